"""What the verb `train` takes beside the options of MIC and those of the trainer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from hf_mic.options import check_number

__all__ = ["TrainArguments"]


@dataclass
class TrainArguments:
    """What to train, on what, and how to score it."""

    model: str = field(metadata={"help": "Starting model: a folder or a name on the Hub."})
    data: list[str] = field(
        metadata={
            "help": "Training data: files (csv, tsv, jsonl, txt, parquet; also .gz) or names on the Hub. Each batch comes from "
            "one of them, see multi_dataset_batch_sampler."
        }
    )
    method: Literal["mic", "mrl", "simcse", "ese", "matryoshka2d", "gor"] = field(
        default="mic",
        metadata={
            "help": "mic; mrl: Matryoshka loss; simcse: the base loss at full width; ese: Espresso embeddings; matryoshka2d; "
            "gor: Matryoshka loss with global orthogonal regularisation."
        },
    )
    unsupervised: bool = field(
        default=False,
        metadata={"help": "Pair every sentence of every text column with itself (SimCSE); scores are left out."},
    )
    kinds: list[str] | None = field(
        default=None,
        metadata={
            "help": "Kind of each source, or one for all: pairs, triplets, scored, single. Found out from the columns if not given."
        },
    )
    columns: dict[str, str | list[str]] | str | None = field(  # str second: how HfArgumentParser reads the command line
        default=None,
        metadata={
            "help": "Names of columns in the sources where they differ, as a mapping (JSON on the command line) such as "
            '{"anchor": "question", "positive": "answer"}; keys: anchor, positive, negative; sentence1, sentence2, score; text.'
        },
    )
    score_range: list[float] | None = field(
        default=None, metadata={"help": "Lowest and highest possible score of scored pairs, such as 0 5 for STS-B."}
    )
    subset: str | None = field(default=None, metadata={"help": "Configuration of Hub data sets, such as triplet."})
    split: str = field(default="train", metadata={"help": "Split of Hub data sets."})
    max_rows: int | None = field(default=None, metadata={"help": "Use only the first rows of each source."})
    max_seq_length: int | None = field(default=None, metadata={"help": "Cut texts after this many tokens."})
    dense_head: Literal["none", "linear", "orthogonal"] = field(
        default="none",
        metadata={
            "help": "Put a map D -> D on top, starting as the identity: it lets coordinates be re-ordered at a rate of its own, "
            "which the small rates that suit a trained encoder hardly do. linear may stretch; orthogonal stays a rotation and "
            "so cannot harm the full width by itself."
        },
    )
    head_learning_rate: float = field(default=1e-3, metadata={"help": "Learning rate of that map."})
    eval_tasks: list[str] | None = field(
        default=None,
        metadata={
            "help": "Tasks to score at the end: any of stsb, banking77, scifact, or files of your own as for the verb evaluate, "
            "such as sts=my_pairs.csv. Default: the three if eval_data_dir is given, else none."
        },
    )
    eval_data_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder with stsb/, classification/banking77/ and retrieval/scifact/. Without it, they come from the Hub."
        },
    )
    eval_dims: list[int] | None = field(
        default=None, metadata={"help": "Prefix lengths that are scored. Default: 8 and those of matryoshka_dims."}
    )
    eval_validation: bool = field(
        default=False, metadata={"help": "Score data that may be used for choosing settings, instead of test data."}
    )
    n_bootstrap: int = field(default=500, metadata={"help": "Bootstrap resamples for the 95 %% intervals; 0 for none."})
    legacy_modules: bool = field(
        default=False,
        metadata={
            "help": "Save the trained model with the module names that text-embeddings-inference and older vLLM read, see "
            "docs/serve.md; checkpoints keep those of today."
        },
    )
    base_model: str | None = field(
        default=None, metadata={"help": "Name on the Hub of the starting model, for the card, if --model is a folder."}
    )
    license: str | None = field(
        default=None,
        metadata={"help": "License of the trained model in its card, such as apache-2.0; for --push_to_hub."},
    )
    study: str = field(default="mic_train", metadata={"help": "Name of the results json, md and png in output_dir."})

    def __post_init__(self) -> None:
        check_number("head_learning_rate", self.head_learning_rate, positive=True)
        if isinstance(self.columns, str):
            with suppress(json.JSONDecodeError):  # then it is no mapping, which is refused below
                self.columns = json.loads(self.columns)
        kinds, pair, mapping = self.kinds, self.score_range, self.columns
        for fits, needed in (
            (kinds is None or len(kinds) in (1, len(self.data)), f"--kinds {kinds}: one entry, or one per source"),
            (
                kinds is None or not self.unsupervised,
                "--unsupervised takes the texts of all kinds alike: leave --kinds out",
            ),
            (pair is None or len(pair) == 2, f"--score_range {pair}: two numbers are needed, lowest and highest"),
            (
                mapping is None or isinstance(mapping, Mapping),
                f'--columns {mapping!r}: a mapping such as {{"anchor": "question"}}',
            ),
        ):
            if not fits:
                raise ValueError(needed)
