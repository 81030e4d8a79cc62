"""The layers: packages are independent, imports never point up, nothing heavy is imported too low."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

LAYERS = {
    "hf_mic": [
        {"functional", "gram", "diagnostics", "matrices", "rotations"},
        {"batching", "data", "metrics", "options", "tasks", "text_tasks", "scoring", "prefix_map"},
        {"capture", "head", "layers", "losses"},
        {"training_args", "adapt", "evaluation", "geometry_callback"},
        {"trainer", "baselines", "checkpoints", "plots", "results", "report"},
        {
            "card",
            "card_parts",
            "study_card",
            "study_sections",
            "hub",
            "publish",
            "inspection",
            "inspection_inputs",
            "inspection_pictures",
            "inspection_report",
            "pages",
        },
        {"__init__", "__main__"},
    ],
    "hf_evl_ecg": [
        {
            "tokens",
            "cross_entropy",
            "gather",
            "ot",
            "relations",
            "geometry",
            "signals",
            "labels",
            "simulate",
            "strokes",
            "vcg",
            "morphology",
        },
        {
            "features",
            "fingerprints",
            "image_file",
            "patch_positions",
            "alignment",
            "vocab",
            "token_groups",
            "records",
            "render",
            "paper_fit",
            "augment",
            "prompts",
            "answers",
            "metrics",
            "calibration",
            "ecgbench",
            "wfdb_header",
            "wfdb_samples",
            "conversations",
            "encoding",
            "plausibility",
            "comments",
            "zscored",
        },
        {
            "losses",
            "generation",
            "images",
            "criterion",
            "teacher_cache",
            "cache_writer",
            "teacher",
            "collator",
            "datasets",
            "config",
            "rows",
            "ptbxl",
            "ludb",
            "cinc",
            "instruct",
            "folder",
            "questions",
            "simulated",
            "grading",
            "likelihood",
            "scoring",
            "flat_tiles",
            "llava_layout",
            "results",
            "ecg_inputs",
            "label_scores",
            "model_loading",
            "streaming",
        },
        {"trainer", "evaluation", "ecg_metric"},
        {
            "convert",
            "checkpoint_files",
            "export",
            "hub",
            "hub_folder",
            "publish",
            "publish_metric",
            "reload_check",
            "interpreter",
            "interpret_report",
            "report_page",
        },
        {
            "card",
            "card_facts",
            "card_findings",
            "card_pictures",
            "card_sections",
            "card_sources",
            "card_spec",
            "card_tables",
        },
        {"__init__", "__main__"},
    ],
}
FORBIDDEN = {  # third-party packages a module or package must do without
    "hf_mic": {"wfdb", "ot", "PIL", "hf_evl_ecg"},
    "hf_evl_ecg": {"sentence_transformers", "hf_mic"},
}
TORCH_ONLY = {"hf_mic": {"functional", "gram"}, "hf_evl_ecg": {"ot", "relations"}}


def imports(path: Path, package: str) -> tuple[set[str], set[str]]:
    """Modules of the same package and top-level third-party names that a file imports, also inside functions."""
    own, other = set(), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level or module.split(".")[0] == package:
                inner = module if node.level else module[len(package) + 1 :]
                own |= {inner.split(".")[0]} if inner else {alias.name for alias in node.names}
            else:
                other.add(module.split(".")[0])
        elif isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                if parts[0] == package:
                    own |= set(parts[1:2])
                else:
                    other.add(parts[0])
    return own, other


@pytest.mark.parametrize("package", sorted(LAYERS))
def test_imports_never_point_up(package):
    level = {name: i for i, names in enumerate(LAYERS[package]) for name in names}
    files = sorted((ROOT / package).glob("*.py"))
    assert files
    for path in files:
        assert path.stem in level, f"{path.name} has no layer: add it to LAYERS"
        own, other = imports(path, package)
        for name in own - {"__version__"}:
            assert level.get(name, -1) <= level[path.stem], f"{package}/{path.name} imports {name}, a layer above it"
        assert not other & FORBIDDEN[package], f"{package}/{path.name} imports {other & FORBIDDEN[package]}"


@pytest.mark.parametrize("package", sorted(LAYERS))
def test_imports_have_no_cycle(package):
    graph = {path.stem: imports(path, package)[0] for path in (ROOT / package).glob("*.py")}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        for other in sorted(graph.get(name, set()) - done):
            visit(other, (*trail, name))
        done.add(name)

    for name in sorted(graph):
        visit(name, ())


def test_maths_needs_torch_only():
    for package, names in TORCH_ONLY.items():
        for name in names:
            path = ROOT / package / f"{name}.py"
            if path.exists():
                _, other = imports(path, package)
                assert other <= {"torch", "__future__", "math", "collections", "typing", "dataclasses", "ot"}, (
                    name,
                    other,
                )
