r"""Publish a trained encoder on the Hugging Face Hub, and check what the Hub returns.

    hf auth login
    hf-mic publish outputs/mic --repo_id your-name/mic --license apache-2.0 --tag v1.0

The model is a folder that `train` or `adapt` wrote, or any other that SentenceTransformer reads. Its README.md is the card, or --card
is: a file with its pictures beside it, or a description in YAML that is rendered from results:

    hf-mic publish outputs/mic_minilm --repo_id your-name/mic-minilm --card model_cards/mic_minilm.yaml \
        --results model_cards/results/mic_minilm.json --truncate_dim 32

What would be sent, after all checks and without the Hub, which needs no login:

    hf-mic publish outputs/mic --repo_id your-name/mic --license apache-2.0 --dry_run

Repositories are private unless --no_private is given, and hold exactly the encoder and its card: no pickles, no optimizer, no
checkpoints. The copy on the Hub must give the same embeddings in a new process, with plain sentence-transformers; only then it is
tagged. The same again makes no commit; after an interruption, run the same again. HF_TOKEN and HF_ENDPOINT replace the login and
the address of the Hub.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hf_mic.command_line.options import parse_options

if TYPE_CHECKING:
    from hf_mic.hub.publish import Preview, PublishReport


@dataclass
class PublishArguments:
    """What to publish, and where."""

    model: str = field(metadata={"help": "Folder of the encoder; the word --model may be left out."})
    repo_id: str = field(metadata={"help": "Repository, as NAMESPACE/NAME; created if it is missing."})
    card: str | None = field(
        default=None,
        metadata={
            "help": "Card: README.md with its pictures beside it, or a description in YAML, as for the verb card. "
            "Default: the README.md of the folder."
        },
    )
    license: str | None = field(
        default=None, metadata={"help": "License, such as apache-2.0, for a card that names none."}
    )
    results: str | None = field(
        default=None, metadata={"help": "Results json of the evaluation, published as results/NAME.json."}
    )
    truncate_dim: int | None = field(
        default=None, metadata={"help": "Width at which embeddings are compared. Default: the full width."}
    )
    legacy_modules: bool = field(
        default=False,
        metadata={
            "help": "Send the module names that text-embeddings-inference and older vLLM read, see docs/serve.md; those of a "
            "folder that has them are kept."
        },
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
    commit_message: str = field(default="Publish encoder", metadata={"help": "Message of the commit."})
    parent_commit: str | None = field(
        default=None, metadata={"help": "Publish only if this is the newest commit of the branch."}
    )
    dry_run: bool = field(
        default=False, metadata={"help": "Send nothing: check, and show the card and the list of files."}
    )


def parse(words: Sequence[str]) -> tuple[PublishArguments]:
    """Read the words after the verb."""
    (args,) = parse_options([PublishArguments], words, __doc__, prog="hf-mic publish", positional="model")
    return (args,)


def main(args: PublishArguments) -> PublishReport | Preview:
    """Publish and check.

    Returns:
        What is on the Hub, and how much its embeddings differ; with ``--dry_run`` what would be sent.

    Raises:
        ValueError: If there is no card, or it is not complete.
        PublishError: If the Hub refused, or its copy computes something else.
    """
    from hf_mic.cards.study_card import write_card as render_study_card
    from hf_mic.evaluation.loading import load_encoder
    from hf_mic.hub.legacy_modules import has_legacy_modules
    from hf_mic.hub.publish import preview_encoder, publish_encoder, write_card
    from hf_mic.results import read_results

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        load_encoder(args.model).save_pretrained(scratch, create_model_card=False)
        card = Path(args.card) if args.card is not None else Path(args.model) / "README.md"
        if card.suffix in (".yaml", ".yml"):
            render_study_card(card, folder / "README.md")
        elif card.is_file():
            write_card(folder, card)
        else:
            raise ValueError(f"{card} is not there; name the card with --card.")
        if args.license is not None:
            add_license(folder / "README.md", args.license)
        if args.results is not None:
            read_results(args.results)
            (folder / "results").mkdir()
            shutil.copyfile(args.results, folder / "results" / Path(args.results).name)
        names = ("truncate_dim", "private", "revision", "tag", "commit_message", "parent_commit")
        options = {name: getattr(args, name) for name in names}
        legacy = args.legacy_modules or has_legacy_modules(args.model)
        if args.dry_run:
            return _shown(preview_encoder(folder, truncate_dim=args.truncate_dim, legacy_modules=legacy), args)
        report = publish_encoder(folder, args.repo_id, legacy_modules=legacy, **options)
    done = "Published" if report.push.committed else "Nothing has changed since it was published"
    print(
        f"{done}: {report.push.repo_id} ({report.push.revision}) at {report.push.commit}, {len(report.push.files)} files.\n"
        f"Coordinates differ by at most {report.difference:.2g} of the largest."
    )
    return report


def _shown(preview: Preview, args: PublishArguments) -> Preview:
    """Print what would be sent."""
    sizes = [f"{size:>14,}  {name}" for name, size in preview.files.items()]
    print(preview.card.rstrip(), "-" * 80, *sizes, sep="\n")
    print(f"{sum(preview.files.values()):>14,}  bytes in {len(sizes)} files")
    kind = "private" if args.private else "public"
    print(f"Nothing was sent. Without --dry_run, this goes to {args.repo_id} ({args.revision}), {kind} if it is new.")
    return preview


def add_license(path: Path, name: str) -> None:
    """Name the license in a card that names none.

    Raises:
        ValueError: The card names another.
    """
    from huggingface_hub import ModelCard

    from hf_mic.hub.publish import write_card

    card = ModelCard(path.read_text(encoding="utf-8-sig"))
    if card.data.get("license") not in (None, name):
        raise ValueError(f"--license {name}: the card names {card.data.get('license')}.")
    card.data["license"] = name
    write_card(path.parent, str(card))
