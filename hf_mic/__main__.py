"""``hf-mic VERB …`` and ``python -m hf_mic VERB …``: what a user of MIC does, each verb with ``--help``."""

import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from hf_mic import __version__
from hf_mic.files import did_you_mean

__all__ = ["VERBS", "main"]

VERBS = {
    "inspect": "what the prefixes of an encoder, or of vectors, are worth: neighbours kept, bytes, geometry, scores",
    "adapt": "make existing vectors, or an encoder, truncatable: no labels, seconds on one CPU core",
    "search": "find the nearest of coded vectors in stages: recall of the exact neighbours, bytes read",
    "train": "fine-tune an encoder so that its embeddings can be truncated",
    "evaluate": "score encoders at each dimension and per byte, with intervals",
    "study": "train methods from one encoder with several seeds, score and compare them",
    "card": "render a model card from the results of a study",
    "publish": "send an encoder with its card to the Hub, and check what the Hub returns",
    "export": "write an encoder as one ONNX or OpenVINO graph, token ids to truncated embedding",
    "serve-check": "ask a running server whether its vectors are those of a folder, at each prefix",
    "replay": "fit and score a published row again: does it come out as published",
    "report": "fill a section of a markdown file with the tables of a results json",
}
"""The verbs: each is a module of hf_mic.commands, with _ for -, that has ``parse(words)`` and ``main`` of what that returns."""


def usage() -> str:
    """The verbs, one line each."""
    lines = [f"  {verb:<11} {what}" for verb, what in VERBS.items()]
    return "\n".join(
        ["usage: hf-mic VERB ...", "", *lines, "", "hf-mic VERB --help says more; hf-mic --version names the release."]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; wrong input ends with status 2 and one message.

    Args:
        arguments: The verb and its options. Default: the command line.

    Returns:
        The exit status.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if words[0] == "--version":
        print("hf-mic-evl-ecg", __version__)
        return 0
    verb, *rest = words
    if verb not in VERBS:
        hint = did_you_mean(verb, VERBS)
        print(f"error: there is no verb {verb!r}{hint}; there are {', '.join(VERBS)}", file=sys.stderr)
        return 2
    try:
        module = import_module(
            f"hf_mic.commands.{verb.replace('-', '_')}"
        )  # only this verb's imports, and those when it is run
        module.main(*module.parse(rest))
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "hf_mic"):  # a fault of ours, not of the installation
            raise
        extra = "onnx" if missing.startswith("onnx") else "mic"
        print(f"error: {missing} is not installed (pip install 'hf-mic-evl-ecg[{extra}]')", file=sys.stderr)
        return 2
    except (ValueError, RuntimeError, OSError) as error:
        if not isinstance(error, OSError) and not _raised_here(error):
            raise  # a fault of the program, whose place must be seen
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _raised_here(error: BaseException) -> bool:
    """Whether this package refused something, and says what to do."""
    return Path(traceback.extract_tb(error.__traceback__)[-1].filename).is_relative_to(Path(__file__).parent)


if __name__ == "__main__":
    sys.exit(main())
