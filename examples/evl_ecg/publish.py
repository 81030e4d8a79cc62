r"""Publish a distilled student, or a data set of drawn ECGs, on the Hugging Face Hub, and check what the Hub returns.

A student: an export, or a folder of distill.py, which is exported first and then needs the image options of its training, to
record them. The card is a README.md, or a description as in model_cards/ that is rendered from results:

    hf auth login
    python examples/evl_ecg/publish.py --model outputs/student --export_dir outputs/student_export \
        --repo_id your-name/ecg-student --card model_cards/ecg_small.yaml --results model_cards/results/ecg_small.json --tag v1.0

The questions of prepare_data.py with their ECGs drawn, as parquet; image options as in training:

    python examples/evl_ecg/publish.py --data outputs/questions --repo_id your-name/ecg-questions --card my_card.md \
        --image_width 448 --image_height 224 --grid thick

Repositories are private unless --no_private is given, and hold exactly what was published: no pickles, no teacher, no aligner, no
training state. A student is run in a new process before it is sent and again as the Hub returns it; only then it is tagged. The
same again makes no commit; after an interruption, run the same again (with the export as --model). The checks run on the CPU.
HF_TOKEN and HF_ENDPOINT replace the login and the address of the Hub.
"""

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import DatasetDict, load_from_disk
from ecg_options import ImageOptions, parse_arguments

from hf_evl_ecg import EVLECGTrainer
from hf_evl_ecg.cards.card import write_card as render_and_write_card
from hf_evl_ecg.files import write_text
from hf_evl_ecg.hub.checks import check_card, write_card
from hf_evl_ecg.hub.export import export_student
from hf_evl_ecg.hub.publish import publish_dataset, publish_student, render_dataset
from hf_evl_ecg.hub.push import Push
from hf_evl_ecg.models.loading import PROVENANCE_KEY
from hf_evl_ecg.results import current_commit, read_results


@dataclass
class PublishArguments:
    """What to publish, and where."""

    repo_id: str = field(metadata={"help": "Repository, as NAMESPACE/NAME; created if it is missing."})
    model: str | None = field(default=None, metadata={"help": "The student: an export, or a folder of distill.py."})
    data: str | None = field(
        default=None, metadata={"help": "Question dataset from prepare_data.py, in place of --model."}
    )
    card: str | None = field(
        default=None,
        metadata={
            "help": "Card: README.md with its pictures beside it, or, for a student, a description in YAML that "
            "hf_evl_ecg.cards.card renders. Default: the README.md of an export."
        },
    )
    results: str | None = field(
        default=None, metadata={"help": "Results json of the student's evaluation; published and named in config.json."}
    )
    export_dir: str | None = field(default=None, metadata={"help": "New folder for the export, if --model is none."})
    private: bool = field(default=True, metadata={"help": "Make a new repository private, and refuse a public one."})
    revision: str = field(default="main", metadata={"help": "Branch."})
    tag: str | None = field(default=None, metadata={"help": "Tag for what was published; tags are never moved."})
    commit_message: str = field(default="Publish", metadata={"help": "Message of the commit."})
    parent_commit: str | None = field(
        default=None, metadata={"help": "Publish only if this is the newest commit of the branch."}
    )

    def __post_init__(self) -> None:
        if (self.model is None) == (self.data is None):
            raise ValueError("Give either --model or --data.")
        if self.data is not None and (self.card is None or self.results is not None or self.export_dir is not None):
            raise ValueError("--data needs --card, and has neither --results nor --export_dir.")

    def where(self) -> dict[str, Any]:
        """Options that all kinds of repositories have in common."""
        names = ("private", "revision", "tag", "commit_message", "parent_commit")
        return {name: getattr(self, name) for name in names}


def main(args: PublishArguments, images: ImageOptions) -> Push:
    """Publish and check.

    Returns:
        What is on the Hub.
    """
    if args.data is not None:
        assert args.card is not None
        drawn = {name: render_dataset(rows, images.renderer()) for name, rows in load_from_disk(args.data).items()}
        push = publish_dataset(DatasetDict(drawn), args.repo_id, card=Path(args.card), **args.where())
        print(describe(push))
        return push
    folder = exported(args, images)
    provenance = {}
    if args.results is not None:
        results = read_results(args.results)
        name = f"results/{Path(args.results).name}"
        write_text(folder / name, Path(args.results).read_text(encoding="utf-8"))
        provenance = {"results": {"study": results["study"], "commit": results["commit"], "file": name}}
    card = None if args.card is None else Path(args.card)
    if card is not None and card.suffix in (".yaml", ".yml"):
        render_and_write_card(card, folder / "README.md", folder)
        card = None
    report = publish_student(folder, args.repo_id, card=card, provenance=provenance, **args.where())
    print(f"{describe(report.push)}\nLogits differ by at most {report.difference:.2g} of the largest.")
    return report.push


def exported(args: PublishArguments, images: ImageOptions) -> Path:
    """The export that ``model`` is, or that is now made of it."""
    model = Path(args.model or "")
    config = model / "config.json"
    if config.is_file() and f'"{PROVENANCE_KEY}"' in config.read_text(encoding="utf-8"):
        return model
    if args.export_dir is None:
        raise ValueError(f"{model} is no export; name a new folder for one with --export_dir.")
    drawn = images.config().to_dict()
    provenance = {"method": "EVL-ECG, arXiv 2605.29977", "images": drawn, "commit": current_commit()}
    report = export_student(model, args.export_dir, provenance=provenance)
    print(f"Exported: {report.folder}; should publishing fail, go on with --model {report.folder}")
    return report.folder


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
    with tempfile.TemporaryDirectory(dir=trainer.args.output_dir, prefix=".export.") as scratch:
        folder = Path(scratch) / "student"
        export_student(trainer.student, folder, processor=processor, provenance=provenance)
        print(describe(publish_student(folder, card=Path(card), **hub).push))


def check_card_file(card: str | None) -> str:
    """The card of ``--push_to_hub``, checked before training rather than after it."""
    if card is None or not Path(card).is_file():
        raise ValueError(f"--card {card}: --push_to_hub needs a README.md whose metadata names a license.")
    with tempfile.TemporaryDirectory() as scratch:
        write_card(Path(scratch), Path(card))
        check_card(Path(scratch))
    return card


def describe(push: Push) -> str:
    """Where something was published, in a sentence."""
    done = "Published" if push.committed else "Nothing has changed since it was published"
    return f"{done}: {push.repo_type} {push.repo_id} ({push.revision}) at {push.commit}, {len(push.files)} files."


if __name__ == "__main__":
    main(*parse_arguments(sys.argv[1:], PublishArguments, ImageOptions, description=__doc__))
