"""The command of this package: ``hf-evl-ecg VERB …``, or ``python -m hf_evl_ecg VERB …``.

What this package or the Hub refuses gives a message without the lines of code that it came through; any other failure shows
them.
"""

from __future__ import annotations

import difflib
import importlib
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

# In the order of a first visit: ask a model, train one's own, hand it on.
VERBS = (
    *("interpret", "interpret-folder", "app"),
    *("prepare", "teach", "answer", "cache", "plan", "distil", "evaluate", "replay", "study", "job"),
    *("export", "quantize", "card", "publish", "convert", "convert-record"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb; wrong input ends with status 2 and one message.

    Args:
        arguments: The verb and its options; None: those this process was started with.

    Returns:
        The exit status.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] in ([], ["-h"], ["--help"], ["help"]):
        print(_overview())
        return 0
    if given[0] == "--version":
        print(f"hf-mic-evl-ecg {version('hf-mic-evl-ecg')}")
        return 0
    if given[0] not in VERBS:
        meant = difflib.get_close_matches(given[0], VERBS, 1)
        hint = f" (did you mean {meant[0]}?)" if meant else ""
        print(f"{given[0]}: no such verb{hint}\n\n{_overview()}", file=sys.stderr)
        return 2
    verb = _module(given[0])
    try:
        verb.command(given[1:], prog=f"hf-evl-ecg {given[0]}")
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "hf_evl_ecg"):  # a fault of ours, not of the installation
            raise
        extras = "ecg,app" if missing == "gradio" else "ecg"
        print(f"error: {missing} is not installed (pip install 'hf-mic-evl-ecg[{extras}]')", file=sys.stderr)
        return 2
    except Exception as error:
        if not _is_refusal(error):
            raise  # a fault of the program, perhaps hours into a training: its place must be seen
        print(f"error: {str(error).strip() or type(error).__name__}", file=sys.stderr)
        return 2
    return 0


def _module(verb: str) -> ModuleType:
    return importlib.import_module(f"hf_evl_ecg.commands.{verb.replace('-', '_')}")


def _is_refusal(error: Exception) -> bool:
    """Whether this package, the Hub, the network or the file system refused something, and says why."""
    if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in ("huggingface_hub", "httpx"):
        return True
    if not isinstance(error, ValueError | RuntimeError):
        return False
    return Path(traceback.extract_tb(error.__traceback__)[-1].filename).is_relative_to(Path(__file__).parent)


def _overview() -> str:
    """One line per verb, from the first line of its module."""
    lines = ["Usage: hf-evl-ecg VERB [OPTIONS], or hf-evl-ecg VERB --help", ""]
    for name in VERBS:
        verb = _module(name)
        lines.append(f"  {name:<16} {(verb.__doc__ or '').partition(chr(10))[0]}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
