r"""Fine-tune a sentence encoder so that its embeddings can be truncated: MIC, or one of the methods it is compared with.

One GPU, question-answer pairs from the Hub, scored at each dimension at the end:

    python -m hf_mic train --model sentence-transformers/all-MiniLM-L6-v2 --method mic \
        --data sentence-transformers/natural-questions --columns '{"anchor": "query", "positive": "answer"}' \
        --output_dir outputs/mic_nq --per_device_train_batch_size 64 --num_train_epochs 1 --bf16 \
        --eval_tasks stsb banking77

Several GPUs, batch statistics and negatives over all of them; two CPU processes (with --cpu, accelerate starts several only through MPI;
--multi_gpu starts them, --use_cpu keeps them on CPU):

    accelerate launch --num_processes 4 -m hf_mic train settings.yaml --gather_across_devices
    accelerate launch --multi_gpu --num_processes 2 -m hf_mic train settings.yaml --use_cpu --max_steps 20

Unsupervised (SimCSE: each sentence twice, dropout makes the difference), resumed after an interruption:

    python -m hf_mic train settings.yaml --unsupervised --resume_from_checkpoint last

All options can stand in a YAML file, given first or as --config; options on the command line replace its values. The saved model
needs only sentence-transformers: SentenceTransformer(output_dir, truncate_dim=32).

--push_to_hub --hub_model_id NAMESPACE/NAME --license apache-2.0 publishes the encoder at the end, and only then, as the verb publish
does. The repository is private unless --hub_private_repo False is given; --hub_revision names a branch, --hub_strategy has no effect.

A step of MiniLM with MIC on 2 x 32 sentences of up to 54 tokens takes about 3 s on one core (Xeon).

Beside the options below, all training arguments of sentence-transformers are accepted, such as --output_dir, --max_steps, --seed and
--report_to: --help-all lists them too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from hf_mic.options import MICOptions

from .options import HelpFormatter, parse_options, read_words

if TYPE_CHECKING:
    from hf_mic.training_args import MICTrainingArguments


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
    license: str | None = field(
        default=None,
        metadata={"help": "License of the trained model in its card, such as apache-2.0; for --push_to_hub."},
    )
    study: str = field(default="mic_train", metadata={"help": "Name of the results json, md and png in output_dir."})

    def __post_init__(self) -> None:
        if self.kinds is not None and len(self.kinds) not in (1, len(self.data)):
            raise ValueError(f"--kinds needs one entry, or one per source: {len(self.data)}, got {len(self.kinds)}.")
        if self.unsupervised and self.kinds is not None:
            raise ValueError("--unsupervised takes the texts of all kinds alike: leave --kinds out.")
        if self.score_range is not None and len(self.score_range) != 2:
            raise ValueError(f"--score_range needs two numbers, lowest and highest, got {self.score_range}.")
        if self.head_learning_rate <= 0:
            raise ValueError(f"--head_learning_rate must be > 0, got {self.head_learning_rate}.")
        if isinstance(self.columns, str):
            self.columns = json.loads(self.columns)
        if self.columns is not None and not isinstance(self.columns, Mapping):
            raise ValueError(f'--columns must be a mapping such as {{"anchor": "question"}}, got {self.columns!r}.')


def parse(words: Sequence[str]) -> tuple[TrainArguments, MICTrainingArguments]:
    """Read the words after the verb; ``--help`` answers without the seconds that importing the trainer takes."""
    if {"-h", "--help"} & set(words):
        parse_options((TrainArguments, MICOptions), ["--help"], __doc__, prog="hf-mic train")
    from sentence_transformers import SentenceTransformerTrainingArguments
    from transformers import HfArgumentParser

    from hf_mic.training_args import MICTrainingArguments

    parser = HfArgumentParser(
        [
            _titled(TrainArguments, "what is trained, on what, and how it is scored"),
            _titled(MICOptions, "MIC and its base loss"),
            _titled(SentenceTransformerTrainingArguments, "training arguments of sentence-transformers"),
        ],
        prog="hf-mic train",
        description=__doc__,
        formatter_class=HelpFormatter,
    )
    own, inherited = ([f.name for f in fields(kind) if f.init] for kind in (TrainArguments, MICTrainingArguments))
    given = read_words(words, [*own, *inherited])
    parsed = vars(parser.parse_args(["--help" if word == "--help-all" else word for word in given]))
    args = TrainArguments(**{name: parsed[name] for name in own})
    return args, MICTrainingArguments(**{name: parsed[name] for name in inherited})


def _titled(kind: type, title: str) -> Any:
    """A dataclass whose options HfArgumentParser lists under a title."""
    return type(kind.__name__, (kind,), {"_argument_group_name": title})


def main(args: TrainArguments, training: MICTrainingArguments) -> dict[str, Any] | None:
    """Train, save, score, write the card, publish if that is asked for.

    Returns:
        The results as written to the json file, ``None`` without tasks or in a process other than the first.

    Raises:
        ValueError: If data, model and options do not fit together.
    """
    from hf_mic.evaluation.text_tasks import load_tasks
    from hf_mic.hub.push import take_hub_arguments

    from .training_run import build_trainer, finish, last_checkpoint, warn_about_single_process

    hub = take_hub_arguments(training)
    if hub and args.license is None:
        raise ValueError(
            "--push_to_hub needs --license, such as apache-2.0: a card without a license is not published."
        )
    warn_about_single_process()
    names = args.eval_tasks or (["stsb", "banking77", "scifact"] if args.eval_data_dir else [])
    tasks = load_tasks(names, args.eval_data_dir, validation=args.eval_validation)
    trainer = build_trainer(args, training)
    trainer.train(resume_from_checkpoint=last_checkpoint(training))
    trainer.save_model()
    results = finish(trainer, args, tasks, hub) if trainer.is_world_process_zero() else None
    trainer.accelerator.end_training()  # else processes of a group end with a warning, or hang
    return results
