"""Report what the prefixes of a sentence encoder are worth: neighbours kept, bytes per vector, geometry, scores.

On texts like those the model will see (for MiniLM about 20 s per thousand short sentences on one CPU core):

    hf-mic inspect sentence-transformers/all-MiniLM-L6-v2 --texts sentences.txt

With scores, whose texts also serve for the geometry unless --texts names others:

    hf-mic inspect my_model --tasks stsb banking77 --data_dir data/text --html

Writes inspection.json, inspection.md, pictures and, with --html, one page that holds them all.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hf_mic.inspection.settings import InspectionSettings

from .options import parse_options


@dataclass
class InspectArguments:
    """Which model, on which texts and tasks, and where the report goes."""

    model: str = field(metadata={"help": "Folder or name on the Hub; the word --model may be left out."})
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


def parse(words: Sequence[str]) -> tuple[InspectArguments, InspectionSettings]:
    """Read the words after the verb."""
    kinds = (InspectArguments, InspectionSettings)
    args, settings = parse_options(kinds, words, __doc__, prog="hf-mic inspect", positional="model")
    return args, settings


def main(args: InspectArguments, settings: InspectionSettings) -> list[Path]:
    """Inspect a model and write the report.

    Returns:
        The files written.

    Raises:
        ValueError: If model, texts, tasks or settings do not fit (``InspectionError``, ``EncoderLoadError`` for most).
        OSError: If a file cannot be read or written.
    """
    from hf_mic.evaluation.loading import load_encoder
    from hf_mic.evaluation.text_tasks import load_tasks
    from hf_mic.inspection.findings import verdict
    from hf_mic.inspection.inputs import read_texts
    from hf_mic.inspection.inspection import inspect_model
    from hf_mic.inspection.report import write_inspection

    texts = None if args.texts is None else read_texts(args.texts, args.text_columns)
    tasks = load_tasks(args.tasks or [], args.data_dir, validation=args.validation)
    name = args.name or (Path(args.model).resolve().name if Path(args.model).exists() else args.model)
    model = load_encoder(args.model, device=args.device, trust_remote_code=args.trust_remote_code)
    found = inspect_model(model, texts, tasks=tasks, name=name, settings=settings, progress_bar=True)
    written = write_inspection(found, args.output_dir or Path("outputs", "inspect", Path(name).name), html=args.html)
    print("\n".join(verdict(found)))
    print("\nWritten:", ", ".join(map(str, written)))
    return written
