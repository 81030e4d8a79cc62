"""The house: every file stands in a room, a room imports only what lies below it, and light rooms load nothing heavy."""

import ast
import importlib
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("hf_evl_ecg", "hf_mic")

# Floor of each room; the package's own modules, the method, are on floor 0. A room imports lower floors only.
FLOORS = {
    "hf_evl_ecg": {
        "signals": 1,
        "qa": 1,
        "models": 1,
        "rivals": 1,
        "clinical": 2,
        "drawing": 2,
        "llava": 2,
        "records": 3,
        "sources": 4,
        "data": 5,
        "chat": 5,
        "inference": 6,
        "interpret": 7,
        "hub": 7,
        "scores": 7,
        "benchmarks": 7,
        "reasoning": 7,
        "distillation": 8,
        "cards": 8,
        "app": 8,
        "command_line": 8,
        "planning": 9,
        "commands": 10,
    },
    "hf_mic": {
        "codes": 1,
        "reports": 1,
        "command_line": 1,
        "evaluation": 2,
        "geometry": 2,
        "hub": 2,
        "frozen": 3,
        "inspection": 4,
        "budgets": 4,
        "cards": 4,
        "search": 4,
        "runs": 5,
        "commands": 6,
    },
}
DOORS = {"__init__", "__main__"}  # they may open any room
FORBIDDEN = {"hf_mic": {"wfdb", "ot", "PIL", "hf_evl_ecg"}, "hf_evl_ecg": {"sentence_transformers", "hf_mic"}}
LIGHT = [  # what is imported → what it must not load
    ("hf_evl_ecg", {"torch", "numpy", "transformers", "pandas"}),
    ("hf_evl_ecg.signals.ecg", {"torch", "transformers", "pandas", "wfdb", "datasets", "scipy"}),
    ("hf_evl_ecg.signals.simulation", {"torch", "transformers", "pandas", "wfdb", "datasets"}),
    ("hf_evl_ecg.qa.scoring", {"torch", "transformers", "pandas", "datasets"}),
    (
        "hf_evl_ecg.clinical.reading",
        {"torch", "transformers", "pandas", "wfdb", "scipy", "pydicom", "ecgdatakit", "h5py", "PIL"},
    ),
    (
        "hf_evl_ecg.records.reader",
        {"torch", "transformers", "datasets", "scipy.signal", "pydicom", "ecgdatakit", "h5py"},
    ),
    ("hf_evl_ecg.drawing.rendering", {"torch", "transformers", "pandas", "wfdb", "scipy"}),
    ("hf_evl_ecg.ot", {"transformers", "pandas", "ot"}),
    ("hf_evl_ecg.relations", {"transformers", "pandas"}),
    ("hf_evl_ecg.losses", {"transformers", "pandas"}),
    ("hf_mic", {"torch", "numpy", "transformers", "sentence_transformers"}),
    ("hf_mic.functional", {"transformers", "sentence_transformers", "sklearn"}),
    ("hf_mic.codes", {"torch", "numpy", "transformers"}),
    ("hf_mic.codes.quantizer", {"transformers", "sentence_transformers", "sklearn", "scipy", "datasets"}),
    ("hf_mic.frozen.compressor", {"transformers", "sentence_transformers", "sklearn", "scipy", "datasets"}),
    ("hf_mic.geometry.diagnostics", {"transformers", "sentence_transformers", "sklearn", "matplotlib"}),
    ("hf_mic.results", {"transformers", "sentence_transformers", "sklearn", "matplotlib"}),
    ("hf_mic.geometry.report", {"transformers", "sentence_transformers", "sklearn", "matplotlib"}),
]


def modules(package: str) -> dict[str, Path]:
    """Every module of a package by its dotted name inside it."""
    found = {
        ".".join(path.relative_to(ROOT / package).with_suffix("").parts): path
        for path in (ROOT / package).rglob("*.py")
    }
    assert len(found) > 30
    return found


def room(module: str) -> str:
    return module.split(".")[0] if "." in module else ""


def floor(package: str, module: str) -> int:
    return FLOORS[package][room(module)] if room(module) else 0


def imports(package: str, module: str, path: Path) -> tuple[set[str], set[str]]:
    """Modules of the same package (dotted, inside it) and top-level third-party names that a file imports, wherever."""
    own, other, here = set(), set(), module.split(".")[:-1]
    known = modules(package)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [(alias.name.split("."), None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            assert node.level <= len(here) + 1, f"{path} imports from outside of {package}"
            base = [package, *here[: len(here) - node.level + 1], *(node.module or "").split(".")]
            names = [([part for part in base if part], alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [((node.module or "").split("."), alias.name) for alias in node.names]
        else:
            continue
        for parts, name in names:
            if parts[0] != package:
                other.add(parts[0])
                continue
            inner = ".".join(parts[1:])
            full = ".".join(filter(None, (inner, name)))
            target = next(t for t in (full, f"{full}.__init__", inner, f"{inner}.__init__", "__init__") if t in known)
            if target != "__init__" or name != "__version__":
                own.add(target)
    return own, other


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_stands_in_a_room(package):
    assert {room(name) for name in modules(package)} - {""} == set(FLOORS[package])
    assert all(name.count(".") <= 1 for name in modules(package)), "rooms have no rooms inside"
    for name in FLOORS[package]:
        assert (ROOT / package / name / "__init__.py").is_file()


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_never_point_up(package):
    for name, path in modules(package).items():
        own, other = imports(package, name, path)
        assert not other & FORBIDDEN[package], f"{package}/{path.name} imports {other & FORBIDDEN[package]}"
        if name in DOORS:
            continue
        for target in own:
            below = floor(package, target) < floor(package, name) or room(target) == room(name)
            assert below, f"{package}.{name} imports {target}, which does not lie below it"


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_have_no_cycle(package):
    graph = {name: imports(package, name, path)[0] for name, path in modules(package).items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        for other in sorted(graph[name] - done):
            visit(other, (*trail, name))
        done.add(name)

    for name in sorted(graph):
        visit(name, ())


@pytest.mark.parametrize(("module", "heavy"), LIGHT)
def test_light_modules_load_nothing_heavy(module, heavy):
    """In a new interpreter, where no other test has imported anything."""
    code = f"import sys, {module}; print(*sorted({sorted(heavy)!r} & sys.modules.keys()))".replace("['", "{'").replace("']", "'}")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


@pytest.mark.parametrize("package", PACKAGES)
def test_what_a_room_offers_is_there(package):
    """Each name of a room's ``__all__`` can be had from it, and none hides a module of the room."""
    for name in ("", *FLOORS[package]):
        module = importlib.import_module(".".join(filter(None, (package, name))))
        assert module.__doc__
        assert module.__all__
        files = {path.stem for path in (ROOT / package / name).glob("*.py")}
        assert not files & set(module.__all__)
        for offered in module.__all__:
            assert getattr(module, offered) is not None


@pytest.mark.parametrize("package", PACKAGES)
def test_rooms_and_modules_are_small(package):
    """What grows past these bounds does more than one job."""
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules(package).items()}
    for folder in {"", *FLOORS[package]} - {"commands"}:
        inside = [name for name in lines if room(name) == folder and name.rpartition(".")[2] not in DOORS]
        assert len(inside) <= 14, f"{package}/{folder} holds {len(inside)} modules"
    assert {name: count for name, count in lines.items() if count > 300} == {}
    assert statistics.median(lines.values()) < 150


@pytest.mark.parametrize("package", PACKAGES)
def test_commands_holds_verbs_and_nothing_else(package):
    """What verbs share stands in a room below."""
    verbs = importlib.import_module(f"{package}.__main__").VERBS
    files = {path.stem for path in (ROOT / package / "commands").glob("*.py")} - DOORS
    assert files == {verb.replace("-", "_") for verb in verbs}
