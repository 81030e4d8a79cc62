"""Draw the two pictures of the README: scores from the committed results, and a simulated ECG on paper.

    python studies/readme_pictures.py

Writes docs/images/mic.png and docs/images/ecg.png; seconds on one core.
"""

import json
import statistics
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from hf_evl_ecg import RenderConfig, render
from hf_evl_ecg.signals import simulate

ROOT = Path(__file__).resolve().parent.parent
LINES = {  # name → method of the study of bytes, colour
    "MIC, a map for codes of 1 bit": ("mic_1bit_general", "#c0392b"),
    "MIC, a map for all sizes": ("mic_general", "#e67e22"),
    "truncation": ("truncation_general", "#2c3e50"),
    "random rotation": ("random_rotation_general", "#16a085"),
    "PCA": ("pca_general", "#7f8c8d"),
    "OPQ": ("opq_general", "#2980b9"),
}
PANELS = {
    "similarity (STS-B)": ("stsb",),
    "intents (Banking77)": ("banking77",),
    "search (mean of four sets)": ("scifact", "medquad", "wordnet", "scifact_100k"),
}
METRICS = ("spearman", "accuracy_10nn", "ndcg@10")
SIZES = (4, 8, 16, 32)


def draw_mic(path: Path) -> None:
    """What a sentence is worth in 4 to 32 bytes, all methods fitted on text of no task."""
    results = json.loads((ROOT / "model_cards" / "results" / "mic_bytes.json").read_text(encoding="utf-8"))
    rows = [row for row in results["rows"] if row["metric"] in METRICS]
    figure = Figure(figsize=(9, 4), layout="constrained")
    for axis, (title, tasks) in zip(figure.subplots(1, 3), PANELS.items(), strict=True):
        for number, (name, (method, colour)) in enumerate(LINES.items()):
            points, spans = [], []
            for size in SIZES:
                found = [r for r in rows if r["method"] == method and r["bytes"] == size and r["task"] in tasks]
                points.append(100 * statistics.mean(row["value"] for row in found))
                # Mean half width of the tasks' intervals: that of their mean is narrower, as they are not one set.
                first = [row for row in found if row["seed"] in (0, None)]
                spans.append(50 * statistics.mean(row["ci_high"] - row["ci_low"] for row in first))
            places = [size * 2 ** (0.06 * (number - 2.5)) for size in SIZES]  # intervals stand beside each other
            axis.errorbar(
                places, points, yerr=spans, marker="o", markersize=3.5, color=colour, label=name, elinewidth=0.7
            )
        axis.set_title(title, fontsize=10)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_locator(FixedLocator(SIZES))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.set_xlabel("bytes a sentence (float32: 1,536)")
        axis.grid(alpha=0.3)
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    figure.savefig(path, dpi=130)


def draw_ecg(path: Path) -> None:
    """A simulated ECG, which the footer of the page says."""
    page = render(simulate("AF", seed=0), RenderConfig(width_px=935, height_px=560))
    page.convert("P", colors=64).save(path, optimize=True)  # half the bytes, no difference to the eye


def main() -> None:
    """Draw both."""
    folder = ROOT / "docs" / "images"
    folder.mkdir(exist_ok=True)
    draw_mic(folder / "mic.png")
    draw_ecg(folder / "ecg.png")


if __name__ == "__main__":
    main()
