r"""Commands of hf_mic.

python -m hf_mic inspect MODEL --texts FILE
python -m hf_mic inspect --help
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformers import HfArgumentParser

from hf_mic.commands.options import HelpFormatter
from hf_mic.evaluation.text_tasks import load_task, load_text_tasks
from hf_mic.inspection.inputs import InspectionSettings, load_encoder, read_texts
from hf_mic.inspection.inspection import inspect_model
from hf_mic.inspection.report import verdict, write_inspection

__all__ = ["InspectArguments", "inspect", "main"]

DESCRIPTION = """Report what the prefixes of a sentence encoder are worth: neighbours kept, bytes per vector, geometry, scores.

On texts like those the model will see (for MiniLM about 20 s per thousand short sentences on one CPU core):

    python -m hf_mic inspect sentence-transformers/all-MiniLM-L6-v2 --texts sentences.txt

With scores, whose texts also serve for the geometry unless --texts names others:

    python -m hf_mic inspect my_model --tasks stsb banking77 --data_dir data/text --html

Writes inspection.json, inspection.md, pictures and, with --html, one page that holds them all.
"""


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


def inspect(args: InspectArguments, settings: InspectionSettings) -> list[Path]:
    """Inspect a model and write the report.

    Returns:
        The files written.

    Raises:
        ValueError: If model, texts, tasks or settings do not fit (``InspectionError`` for most).
        OSError: If a file cannot be read or written.
    """
    texts = None if args.texts is None else read_texts(args.texts, args.text_columns)
    tasks = [
        task
        for name in args.tasks or []
        for task in (
            [load_task(name)] if "=" in name else load_text_tasks(args.data_dir, [name], validation=args.validation)
        )
    ]
    name = args.name or (Path(args.model).resolve().name if Path(args.model).exists() else args.model)
    model = load_encoder(args.model, device=args.device, trust_remote_code=args.trust_remote_code)
    found = inspect_model(model, texts, tasks=tasks, name=name, settings=settings, progress_bar=True)
    written = write_inspection(found, args.output_dir or Path("outputs", "inspect", Path(name).name), html=args.html)
    print("\n".join(verdict(found)))
    print("\nWritten:", ", ".join(map(str, written)))
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; wrong input ends with status 2 and one message.

    Returns:
        The exit status.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] != ["inspect"]:
        asked = given[:1] in (["-h"], ["--help"])
        print(__doc__.strip() if asked else f"Unknown command {given[:1]}.\n\n{__doc__.strip()}")
        return 0 if asked else 2
    given = given[1:]
    if given and not given[0].startswith("-"):
        given = ["--model", *given]
    parser = HfArgumentParser(
        (InspectArguments, InspectionSettings),  # type: ignore[arg-type]  # its hint asks for a type of its own
        prog="python -m hf_mic inspect",
        description=DESCRIPTION,
        formatter_class=HelpFormatter,
    )
    try:
        inspect(*parser.parse_args_into_dataclasses(given))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
