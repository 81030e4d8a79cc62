"""Report what the prefixes of a sentence encoder, or of vectors, are worth: neighbours kept, bytes per vector, geometry, scores.

On texts like those the model will see (for MiniLM about 20 s per thousand short sentences on one CPU core):

    hf-mic inspect sentence-transformers/all-MiniLM-L6-v2 --texts sentences.txt

With scores, whose texts also serve for the geometry unless --texts names others:

    hf-mic inspect my_model --tasks stsb banking77 --data_dir data/text --html

Vectors that are in a file, from any encoder or an API, with no texts; --map compares what a folder of `hf-mic adapt` makes of them:

    hf-mic inspect vectors.npy
    hf-mic inspect vectors.npy --map outputs/index8

Writes inspection.json, inspection.md, pictures and, with --html, one page that holds them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hf_mic.command_line.options import parse_options
from hf_mic.inspection.settings import InspectionSettings

if TYPE_CHECKING:
    from hf_mic.inspection.inspection import Inspection

VECTOR_FILES = (".npy", ".npz", ".safetensors", ".csv", ".parquet")


@dataclass
class InspectArguments:
    """Which model, on which texts and tasks, or which vectors, and where the report goes."""

    model: str | None = field(
        default=None, metadata={"help": "Folder or name on the Hub; the word --model may be left out."}
    )
    vectors: str | None = field(
        default=None,
        metadata={
            "help": "Instead of a model, vectors of shape (N, D): .npy, read as a memory map, .npz, .safetensors, .csv or .parquet. The "
            "word --vectors may be left out."
        },
    )
    map: str | None = field(
        default=None,
        metadata={"help": "Folder that hf-mic adapt wrote, or file of a map: measure --vectors before and after it."},
    )
    texts: list[str] | None = field(
        default=None,
        metadata={
            "help": "Files of texts (txt, csv, tsv, jsonl, parquet) or Hub data sets. Default: those of --tasks."
        },
    )
    text_columns: list[str] | None = field(
        default=None, metadata={"help": "Columns of --texts; default: text, or the only one there is."}
    )
    tasks: list[str] | None = field(
        default=None,
        metadata={
            "help": "What to score on: any of stsb, banking77, scifact, or files of your own: sts=FILE, "
            "classification=TRAIN,TEST, pairs=DEV,TEST, retrieval=FOLDER."
        },
    )
    data_dir: str | None = field(
        default=None,
        metadata={
            "help": "Folder with stsb/, classification/banking77/ and retrieval/scifact/. Without it, they come from the Hub."
        },
    )
    validation: bool = field(default=False, metadata={"help": "Score validation data instead of test data."})
    name: str | None = field(default=None, metadata={"help": "Name in the report; default: the last part of MODEL."})
    output_dir: str | None = field(
        default=None, metadata={"help": "Folder of the report; default: outputs/inspect/NAME."}
    )
    html: bool = field(default=False, metadata={"help": "Also write inspection.html, one file with all pictures."})
    device: str | None = field(
        default=None, metadata={"help": "Such as cpu or cuda:0; chosen automatically if not given."}
    )
    trust_remote_code: bool = field(
        default=False, metadata={"help": "Run code that the model's repository on the Hub brings along."}
    )

    def __post_init__(self) -> None:
        if (self.model is None) == (self.vectors is None):
            raise ValueError("Give what is inspected: either MODEL, a folder or a name on the Hub, or --vectors FILE.")
        if self.vectors is None and self.map is not None:
            raise ValueError("--map is applied to --vectors: give a file of them instead of a model.")
        if self.vectors is not None and (self.texts or self.tasks):
            raise ValueError("Vectors are measured without texts: leave out --texts and --tasks.")


def parse(words: Sequence[str]) -> tuple[InspectArguments, InspectionSettings]:
    """Read the words after the verb."""
    kinds = (InspectArguments, InspectionSettings)
    positional = "vectors" if words and _names_vectors(words[0]) else "model"
    args, settings = parse_options(kinds, words, __doc__, prog="hf-mic inspect", positional=positional)
    if args.vectors is not None and (settings.prompt is not None or settings.prompt_name is not None):
        raise ValueError("Prompts stand before texts, and vectors have none: leave out --prompt and --prompt_name.")
    return args, settings


def _names_vectors(word: str) -> bool:
    """Whether a word names a file of vectors: models are folders, or names on the Hub."""
    return Path(word).suffix.lower() in VECTOR_FILES


def main(args: InspectArguments, settings: InspectionSettings) -> list[Path]:
    """Inspect a model, or vectors, and write the report.

    Returns:
        The files written.

    Raises:
        ValueError: If model, texts, tasks or settings do not fit (``InspectionError``, ``EncoderLoadError`` for most).
        OSError: If a file cannot be read or written.
    """
    from hf_mic.inspection.findings import verdict
    from hf_mic.inspection.report import write_inspection

    found = _inspected_model(args, settings) if args.vectors is None else _inspected_vectors(args, settings)
    folder = args.output_dir or Path("outputs", "inspect", Path(found.model["name"]).name)
    written = write_inspection(found, folder, html=args.html)
    print("\n".join(verdict(found)))
    print("\nWritten:", ", ".join(map(str, written)))
    return written


def _inspected_vectors(args: InspectArguments, settings: InspectionSettings) -> Inspection:
    from hf_mic.frozen.index import open_vectors
    from hf_mic.inspection.vectors import inspect_vectors, read_map

    path = Path(str(args.vectors))
    vectors = open_vectors(path)
    return inspect_vectors(
        vectors,
        name=args.name or path.stem,
        file=_told(str(path)),
        mapped=None if args.map is None else read_map(args.map),
        map_name="" if args.map is None else Path(args.map).resolve().name,
        settings=settings,
        progress_bar=True,
    )


def _inspected_model(args: InspectArguments, settings: InspectionSettings) -> Inspection:
    from hf_mic.evaluation.loading import load_encoder
    from hf_mic.evaluation.text_tasks import load_tasks
    from hf_mic.inspection.inputs import read_texts
    from hf_mic.inspection.inspection import inspect_model

    source = str(args.model)
    texts = None if args.texts is None else read_texts(args.texts, args.text_columns)
    tasks = load_tasks(args.tasks or [], args.data_dir, validation=args.validation)
    name = args.name or (Path(source).resolve().name if Path(source).exists() else source)
    model = load_encoder(source, device=args.device, trust_remote_code=args.trust_remote_code)
    file = args.texts[0] if args.texts is not None and len(args.texts) == 1 else "TEXTS"
    columns = f" --text_columns {' '.join(args.text_columns)}" if args.text_columns else ""
    command = f"hf-mic adapt --model {_told(source)} --texts {_told(file)}{columns} --output_dir outputs/{Path(name).name}_adapted"
    return inspect_model(
        model, texts, tasks=tasks, name=name, next_command=command, settings=settings, progress_bar=True
    )


def _told(path: str) -> str:
    """A path as a report tells it, which names no folders of one machine."""
    return Path(path).name if Path(path).is_absolute() else path
