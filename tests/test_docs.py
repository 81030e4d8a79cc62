"""docs/: every Python block runs, every command names a script and options that exist, every link leads somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import wfdb

from hf_evl_ecg import __main__ as ecg_command
from hf_evl_ecg.hub.export import export_student
from hf_evl_ecg.signals.ecg import STANDARD_LEADS
from hf_evl_ecg.signals.simulation import simulate
from hf_mic import __main__ as mic_command

sys.path.insert(0, str(Path(__file__).resolve().parent))
import doc_pages
from hub_server import Account, running_hub
from test_layers import FLOORS
from tiny_vlms import build_idefics3

TESTS = Path(__file__).resolve().parent
DOCS = doc_pages.ROOT / "docs"
PAGES = [
    "app",
    "architecture",
    "bedside",
    "clinic",
    "clinical",
    "codes",
    "distil",
    "evaluate",
    "faults",
    "full_scale",
    "index",
    "interpret",
    "models",
    "own_records",
    "publish",
    "results",
    "serve",
    "train_mic",
    "truncate_an_index",
]


def pages_with(language: str) -> list:
    """Pages that hold blocks of a language."""
    found = sorted(
        path for path in DOCS.glob("*.md") if any(b.language == language for b in doc_pages.read_blocks(path))
    )
    return [pytest.param(path, id=path.stem) for path in found]


@pytest.fixture(scope="module")
def student(tmp_path_factory) -> Path:
    """A tiny student of a real architecture, exported."""
    torch.manual_seed(0)
    model, processor = build_idefics3()
    folder = tmp_path_factory.mktemp("export") / "student"
    export_student(model, folder, processor=processor, provenance={"teacher": "a tiny model of the tests"})
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working directory that holds the files the pages speak of."""
    monkeypatch.chdir(tmp_path)
    for name in ("examples", "studies", "README.md", "model_cards"):
        (tmp_path / name).symlink_to(doc_pages.ROOT / name)
    words = [f"{finding} {place}" for finding in ("ST elevation", "Q wave", "T-wave inversion", "R loss", "ST depression")
             for place in ("in V1", "in V2", "in V3", "in V4", "in V5", "in V6", "in II", "in III", "in aVF", "in aVL")]  # fmt: skip
    (tmp_path / "sentences.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    pairs = [f"{word},{word.lower()} is present" for word in words[:8]]
    (tmp_path / "pairs.csv").write_text("\n".join(["anchor,positive", *pairs]) + "\n", encoding="utf-8")
    random = np.random.default_rng(0)
    np.save("vectors.npy", (random.normal(size=(300, 60)) @ random.normal(size=(60, 384))).astype(np.float32))
    for name, label in (("af", "AF"), ("lbbb", "LBBB")):
        ecg, record = simulate(label, seed=0), Path("records", name)
        record.parent.mkdir(exist_ok=True)
        layout = {"fs": int(ecg.fs_hz), "units": ["mV"] * 12, "sig_name": list(STANDARD_LEADS), "fmt": ["16"] * 12}
        wfdb.wrsamp(name, p_signal=ecg.signal_mv.astype(np.float64), write_dir=str(record.parent), **layout)
    return tmp_path


def test_all_pages_are_there_and_listed():
    assert sorted(path.stem for path in DOCS.glob("*.md")) == PAGES
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    assert all(f"({page}.md)" in index for page in PAGES if page != "index")


def anchors(page: Path) -> set[str]:
    """Anchors of the headings of a page, as the forges make them: lower case, hyphens, no punctuation."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere():
    for path in [*DOCS.glob("*.md"), doc_pages.ROOT / "README.md"]:
        text = path.read_text(encoding="utf-8")
        for target, anchor in re.findall(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)", text):
            page = path.parent / target if target else path
            assert page.exists(), f"{path.name} links to {target}"
            assert not anchor or anchor in anchors(page), f"{path.name} links to {target}#{anchor}"


def test_the_architecture_names_every_room():
    """Each room stands in the picture on its floor and in the table; each module of the door in the picture."""
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    for package, part in zip(("hf_mic", "hf_evl_ecg"), text.split("\n## ")[1:3], strict=True):
        assert part.startswith(package)
        picture, table = part.split("```")[1], part.split("```")[2]
        for name, level in FLOORS[package].items():
            assert re.search(rf"^ floor {level} .*\b{name}\b", picture, re.MULTILINE), name
            assert re.search(rf"^\| .*`{name}`", table, re.MULTILINE), name
        door = {path.stem for path in (doc_pages.ROOT / package).glob("*.py")} - {"__init__", "__main__"}
        missing = [name for name in sorted(door) if not re.search(rf"\b{name}\b", table)]
        assert missing == []


def test_named_verbs_exist():
    verbs = {"hf-mic": set(mic_command.VERBS), "hf-evl-ecg": set(ecg_command.VERBS)}
    named = set()
    for path in [*DOCS.glob("*.md"), doc_pages.ROOT / "README.md"]:
        for command, rest in re.findall(r"`(hf-mic|hf-evl-ecg) ([a-z-]+)[ `]", path.read_text(encoding="utf-8")):
            assert rest in verbs[command], f"{path.name}: {command} {rest}"
            named.add((command, rest))
    assert len(named) > 10


def test_named_files_exist():
    """Paths of this repository that a page names in code style."""
    for path in DOCS.glob("*.md"):
        named = re.findall(
            r"`((?:examples|studies|model_cards|benchmarks)/[\w./*-]+)`", path.read_text(encoding="utf-8")
        )
        missing = [name for name in named if not list(doc_pages.ROOT.glob(name.rstrip("/")))]
        assert not missing, f"{path.name} names {missing}"


def test_what_is_not_run_is_known():
    """Python blocks that are not run, with their reasons; a new one has to be entered here."""
    skipped = {
        f"{path.stem}: {block.mark}"
        for path in DOCS.glob("*.md")
        for block in doc_pages.read_blocks(path)
        if block.language == "python" and (block.mark or "").startswith(("not run:", "needs:"))
    }
    assert skipped == {
        "bedside: needs: torchao",  # run where the extra quantize is installed
        "codes: not run: examples/mic/code_with_ray.py does the same, and a test runs it on a cluster of two workers",
        "evaluate: needs: mteb",  # run where the extra mteb is installed
        "evaluate: not run: downloads the task; tests run two small ones of their own",
        "serve: needs: openvino",  # run where the extra openvino is installed
        "truncate_an_index: needs: faiss",  # run where the extra search is installed
        "truncate_an_index: needs: usearch",
        "truncate_an_index: not run: hnswlib is not installed by any extra",
        "truncate_an_index: not run: needs a Qdrant server",
    }


@pytest.mark.parametrize("page", pages_with("bash"))
def test_commands_have_scripts_and_options(page):
    for block in doc_pages.read_blocks(page):
        for words in doc_pages.commands(block.code) if block.language == "bash" else []:
            call, where = doc_pages.as_call(words), f"{page.name}, line {block.line}: {' '.join(words)}"
            if words[0] == "cp":
                copied = [word for word in words[1:-1] if not word.startswith("-")]
                assert all(list(doc_pages.ROOT.glob(name)) for name in copied), where
            if call is None:
                continue
            if call.program[0] != "-m":
                assert (doc_pages.ROOT / call.program[0]).is_file(), where
            unknown = set(doc_pages.option_names(call.arguments)) - doc_pages.known_options(call.program)
            assert not unknown, f"{where}: unknown {unknown}"
            configs = [word for word in call.arguments if word.startswith(("examples/", "studies/"))]
            assert all((doc_pages.ROOT / word).is_file() for word in configs), where
            if call.launcher and call.launcher[0] in ("accelerate", "torchrun"):
                unknown = set(doc_pages.option_names(call.launcher)) - doc_pages.launcher_options(call.launcher)
                assert not unknown, f"{where}: unknown {unknown}"


@pytest.mark.parametrize("page", pages_with("python"))
def test_page_runs(page, folder, request):
    blocks = doc_pages.read_blocks(page)
    if any("student" in block.code for block in blocks if block.runs) and page.stem != "distil":
        (folder / "student").symlink_to(request.getfixturevalue("student"))
    if page.stem != "publish":
        assert doc_pages.run_blocks(blocks, doc_pages.local_names())
        return
    with running_hub({"hf_local": Account("your-name", ("your-name",))}) as hub:
        online = {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_local"}
        own = {"HF_HOME": str(folder / "hf_home"), "PYTHONPATH": str(doc_pages.ROOT)}
        done = subprocess.run(
            [sys.executable, str(TESTS / "doc_pages.py"), str(page)],
            env={**os.environ, **online, **own},
            capture_output=True,
            text=True,
            timeout=1200,
        )
        assert done.returncode == 0, done.stderr[-3000:]


def test_commands_are_read_as_a_shell_reads_them():
    code = "A=1 python x.py --one 'a b' \\\n    --two=3  # say why\nmake demo & wait\ncat - <<'END'\nit's\nEND\npython -m hf_mic inspect M --html"
    first, *rest = doc_pages.commands(code)
    assert first == ["python", "x.py", "--one", "a b", "--two=3"]
    assert rest == [["make", "demo"], ["wait"], ["cat", "-"], ["python", "-m", "hf_mic", "inspect", "M", "--html"]]
    call = doc_pages.as_call(rest[-1])
    assert call == doc_pages.Call(("python",), ("-m", "hf_mic", "inspect"), ("M", "--html"))
    assert doc_pages.as_call(["hf-mic", *rest[-1][3:]]) == call
    assert doc_pages.as_call(rest[0]) is None
    assert doc_pages.as_call(["cp", "a", "b.py"]) is None
    assert doc_pages.option_names(["--a", "-b", "--c=1", "-1"]) == ["--a", "--c"]


def test_options_are_those_that_are_listed():
    """The description of a script shows commands of other scripts, whose options it does not have."""
    program = ("examples/evl_ecg/cache_teacher.py",)
    assert "--lambda_uld" in doc_pages.help_text(program)
    assert "--top_k" in doc_pages.known_options(program)
    assert "--lambda_uld" not in doc_pages.known_options(program)
    assert {"--lora_rank", "--learning_rate"} <= doc_pages.known_options(("-m", "hf_evl_ecg", "teach"))
    assert "--texts" in doc_pages.known_options(("-m", "hf_mic", "inspect"))
    assert "--num_processes" in doc_pages.launcher_options(("accelerate", "launch"))
    assert "--metrics" in doc_pages.known_options(("-m", "hf_mic", "report"))


def test_marks_decide_what_runs(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```python\na = 1\n```\n\n<!-- not run: needs a GPU -->\n```python\nraise ValueError\n```\n\n```bash\nexit 1\n```\n\n"
        "```text\nx\n```\n\n```python\nassert a == 1\n```\n\n"
        "<!-- needs: json -->\n```python\na = 2\n```\n\n<!-- needs: no_such_module -->\n```python\nimport no_such_module\n```\n",
        encoding="utf-8",
    )
    blocks = doc_pages.read_blocks(page)
    assert [(block.language, block.runs, block.line) for block in blocks] == [
        ("python", True, 2),
        ("python", False, 7),
        ("bash", False, 11),
        ("python", True, 19),
        ("python", True, 24),
        ("python", False, 29),
    ]
    assert doc_pages.run_blocks(blocks, {}) == 3
    page.write_text("```python\n\nraise KeyError('here')\n```\n", encoding="utf-8")
    with pytest.raises(KeyError) as error:
        doc_pages.run_blocks(doc_pages.read_blocks(page), {})
    assert error.traceback[-1].lineno + 1 == 3  # line of the page
