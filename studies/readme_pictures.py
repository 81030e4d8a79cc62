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
LINES = {  # name → study, method, colour
    "map of frozen vectors (distillation + SIR)": ("mic_adapt", "kl_sir", "#c0392b"),
    "MIC fine-tuning with self-distillation": ("mic_minilm", "mic_distill_mixed", "#e67e22"),
    "Matryoshka fine-tuning": ("mic_minilm", "mrl", "#2980b9"),
    "PCA": ("mic_minilm", "pca", "#7f8c8d"),
    "plain truncation": ("mic_minilm", "truncation", "#2c3e50"),
}
PANELS = {
    "STS-B (Spearman × 100)": ("stsb", "spearman"),
    "Banking77 (accuracy × 100)": ("banking77", "accuracy_standardised"),
}
DIMS = (16, 32, 64)


def draw_mic(path: Path) -> None:
    """Scores of all-MiniLM-L6-v2 cut to 16, 32 and 64 dimensions."""
    rows = {
        study: json.loads((ROOT / "model_cards" / "results" / f"{study}.json").read_text(encoding="utf-8"))["rows"]
        for study in {line[0] for line in LINES.values()}
    }
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    for axis, (title, (task, metric)) in zip(figure.subplots(1, 2), PANELS.items(), strict=True):
        for name, (study, method, colour) in LINES.items():
            means = [
                100 * statistics.mean(row["value"] for row in rows[study] if row["method"] == method
                                      and (row["task"], row["metric"], row["dim"]) == (task, metric, dim)
                                      and row.get("precision", "float32") == "float32")
                for dim in DIMS
            ]  # fmt: skip
            axis.plot(DIMS, means, marker="o", color=colour, label=name)
        axis.set_title(title, fontsize=10)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_locator(FixedLocator(DIMS))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.set_xlabel("dimensions kept of 384")
        axis.grid(alpha=0.3)
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
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
