r"""Publish a distilled student, or a data set of drawn ECGs, on the Hugging Face Hub, and check what the Hub returns.

A student: an export, or a folder of hf-evl-ecg distil, which is exported first and then needs the image options of its training, to
record them. The card is a README.md, or a description as in model_cards/ that is rendered from results:

    hf auth login
    hf-evl-ecg publish --model outputs/student --export_dir outputs/student_export --repo_id your-name/ecg-student \
        --card model_cards/ecg_small.yaml --results model_cards/results/ecg_small.json --tag v1.0

The questions of hf-evl-ecg prepare with their ECGs drawn, as parquet; image options as in training:

    hf-evl-ecg publish --data outputs/questions --repo_id your-name/ecg-questions --card my_card.md \
        --image_width 448 --image_height 224 --grid thick

--dry_run sends nothing and needs no login: it checks, and shows the card and the list of files.

Repositories are private unless --no_private is given, and hold exactly what was published: no pickles, no teacher, no aligner, no
training state. A student is run in a new process before it is sent and again as the Hub returns it; only then it is tagged. The
same again makes no commit; after an interruption, run the same again (with the export as --model). The checks run on the CPU.
HF_TOKEN and HF_ENDPOINT replace the login and the address of the Hub.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_evl_ecg.command_line.options import PageOptions
from hf_evl_ecg.command_line.parser import parse_arguments

from .export import ExportArguments, is_export
from .export import main as export

if TYPE_CHECKING:  # --help must not wait for torch
    from hf_evl_ecg.distillation.trainer import EVLECGTrainer
    from hf_evl_ecg.hub.push import Preview, Push

__all__ = ["PublishArguments", "check_card_file", "command", "main", "publish_trained"]


@dataclass
class PublishArguments:
    """What to publish, and where."""

    repo_id: str = field(metadata={"help": "Repository, as NAMESPACE/NAME; created if it is missing."})
    model: str | None = field(
        default=None, metadata={"help": "The student: an export, or a folder of hf-evl-ecg distil."}
    )
    data: str | None = field(
        default=None, metadata={"help": "Question dataset from hf-evl-ecg prepare, instead of --model."}
    )
    card: str | None = field(
        default=None,
        metadata={
            "help": "Card: README.md with its pictures beside it, or, for a student, a description in YAML that "
            "hf-evl-ecg card renders. Default: the README.md of an export."
        },
    )
    results: str | None = field(
        default=None, metadata={"help": "Results json of the student's evaluation; published and named in config.json."}
    )
    export_dir: str | None = field(
        default=None, metadata={"help": "New folder for the export, if --model is no export itself."}
    )
    private: bool = field(
        default=True,
        metadata={
            "help": "Make a new repository private, and refuse a public one.",
            "no_help": "Make a new repository public, for all to see, and take one that is.",
        },
    )
    revision: str = field(default="main", metadata={"help": "Branch."})
    tag: str | None = field(default=None, metadata={"help": "Tag for what was published; tags are never moved."})
    commit_message: str = field(default="Publish", metadata={"help": "Message of the commit."})
    parent_commit: str | None = field(
        default=None, metadata={"help": "Publish only if this is the newest commit of the branch."}
    )
    dry_run: bool = field(
        default=False, metadata={"help": "Send nothing: check, and show the card and the list of files."}
    )

    def __post_init__(self) -> None:
        if (self.model is None) == (self.data is None):
            raise ValueError(f"model={self.model}, data={self.data}: one of them is needed (not both)")
        if self.data is not None and (self.card is None or self.results is not None or self.export_dir is not None):
            raise ValueError(f"data={self.data}: needs a card (and has neither results nor export_dir)")

    def where(self) -> dict[str, Any]:
        """Options that all kinds of repositories have in common."""
        names = ("private", "revision", "tag", "commit_message", "parent_commit")
        return {name: getattr(self, name) for name in names}


def command(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run the command line."""
    main(*parse_arguments(arguments, PublishArguments, PageOptions, description=__doc__, prog=prog))


def main(args: PublishArguments, images: PageOptions) -> Push | Preview:
    """Publish and check.

    Returns:
        What is on the Hub; with ``--dry_run`` what would be sent.
    """
    return _publish_questions(args, images) if args.data is not None else _publish_student(args, images)


def _publish_questions(args: PublishArguments, images: PageOptions) -> Push | Preview:
    from datasets import DatasetDict, load_from_disk

    from hf_evl_ecg.hub.publish import preview_dataset, publish_dataset, render_dataset

    drawn = {name: render_dataset(rows, images.renderer()) for name, rows in load_from_disk(str(args.data)).items()}
    if args.dry_run:
        return _shown(preview_dataset(DatasetDict(drawn), card=Path(str(args.card))), args)
    push = publish_dataset(DatasetDict(drawn), args.repo_id, card=Path(str(args.card)), **args.where())
    print(_describe(push))
    return push


def _publish_student(args: PublishArguments, images: PageOptions) -> Push | Preview:
    from hf_evl_ecg.cards.card import write_card
    from hf_evl_ecg.files import write_text
    from hf_evl_ecg.hub.publish import preview_student, publish_student
    from hf_evl_ecg.results import read_results

    folder = _exported(str(args.model), args.export_dir, images)
    provenance = {}
    if args.results is not None:
        results = read_results(args.results)
        name = f"results/{Path(args.results).name}"
        write_text(folder / name, Path(args.results).read_text(encoding="utf-8"))
        provenance = {"results": {"study": results["study"], "commit": results["commit"], "file": name}}
    card = None if args.card is None else Path(args.card)
    if card is not None and card.suffix in (".yaml", ".yml"):
        write_card(card, folder / "README.md", folder)
        card = None  # the export has its card now
    if args.dry_run:
        return _shown(preview_student(folder, card=card, provenance=provenance), args)
    report = publish_student(folder, args.repo_id, card=card, provenance=provenance, **args.where())
    print(f"{_describe(report.push)}\nLogits differ by at most {report.difference:.2g} of the largest.")
    return report.push


def _exported(model: str, export_dir: str | None, images: PageOptions) -> Path:
    """The export that ``model`` is, or that is now made of it."""
    if is_export(model):
        return Path(model)
    if export_dir is None:
        raise ValueError(f"model={model}: is no export (name a new folder for one with --export_dir)")
    folder = export(ExportArguments(model, export_dir), images).folder
    print(f"Should publishing fail, go on with --model {folder}")
    return folder


def publish_trained(
    trainer: EVLECGTrainer, processor: Any, hub: Mapping[str, Any], card: str | Path, provenance: Mapping[str, Any]
) -> None:
    """Publish the student of a trainer: its export alone, nothing else of the training.

    Args:
        trainer: After training.
        processor: The student's processor.
        hub: What `hf_evl_ecg.hub.push.take_hub_arguments` returned.
        card: README.md.
        provenance: What ``config.json`` is to tell.
    """
    from hf_evl_ecg.hub.export import export_student
    from hf_evl_ecg.hub.publish import publish_student

    # Beside the checkpoints, where there is room for a model; a temporary folder may be on a small disk.
    with tempfile.TemporaryDirectory(dir=trainer.args.output_dir, prefix=".export.") as scratch:
        folder = Path(scratch) / "student"
        export_student(trainer.student, folder, processor=processor, provenance=provenance)
        print(_describe(publish_student(folder, card=Path(card), **hub).push))


def check_card_file(card: str | None) -> str:
    """The card of ``--push_to_hub``, checked before training rather than after it."""
    from hf_evl_ecg.hub.checks import check_card, place_card

    if card is None or not Path(card).is_file():
        raise ValueError(f"card={card}: push_to_hub needs a README.md whose metadata names a license")
    with tempfile.TemporaryDirectory() as scratch:
        place_card(Path(scratch), Path(card))
        check_card(Path(scratch))
    return card


def _shown(preview: Preview, args: PublishArguments) -> Preview:
    """Print what would be sent."""
    sizes = [f"{size:>14,}  {name}" for name, size in preview.files.items()]
    print(preview.card.rstrip(), "-" * 80, *sizes, sep="\n")
    print(f"{sum(preview.files.values()):>14,}  bytes in {len(sizes)} files")
    kind = "private" if args.private else "public"
    print(f"Nothing was sent. Without --dry_run, this goes to {args.repo_id} ({args.revision}), {kind} if it is new.")
    return preview


def _describe(push: Push) -> str:
    """Where something was published, in a sentence."""
    done = "Published" if push.committed else "Nothing has changed since it was published"
    return f"{done}: {push.repo_type} {push.repo_id} ({push.revision}) at {push.commit}, {len(push.files)} files."
