"""Images per second of `hf_evl_ecg.drawing.rendering` against matplotlib's Agg drawing the same page, in interleaved repeats.

Matplotlib gets every strip, lead name, pulse and grid line at the pixel where ours lies, in two ways: a new figure per record,
as ecg_plot and ECG-Image-Kit do, and, its strongest, one figure whose background is kept and whose lines are only given new
data (blitting). A check first compares the inked pixels of both pictures. Times are CPU seconds of this process, medians over
rounds, so a busy machine matters little; run on one thread.

    OMP_NUM_THREADS=1 python benchmarks/ecg_render.py

Takes about a minute.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from PIL import Image

from hf_evl_ecg.drawing.config import RenderConfig
from hf_evl_ecg.drawing.layouts import LAYOUTS
from hf_evl_ecg.drawing.rendering import render
from hf_evl_ecg.signals.ecg import ECG
from hf_evl_ecg.signals.simulation import LABELS, simulate

DPI = 100.0
POINTS_PER_PX = 72.0 / DPI


def colour(config: RenderConfig, name: str) -> tuple[float, ...]:
    """A colour of the palette as matplotlib takes it."""
    return tuple(part / 255.0 for part in getattr(config.palette, name))


class MatplotlibPage:
    """The page of a `RenderConfig` as a matplotlib figure in pixel coordinates."""

    def __init__(self, config: RenderConfig) -> None:
        self.page = page = config.page()
        figure = Figure(figsize=(page.width_px / DPI, page.height_px / DPI), dpi=DPI, facecolor=colour(config, "paper"))
        self.canvas = FigureCanvasAgg(figure)
        self.axes = axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set(xlim=(0, page.width_px), ylim=(page.height_px, 0))
        axes.axis("off")
        mm = page.scale.px_per_mm
        for name, step, width_mm in (("thin", mm, 0.12), ("thick", 5 * mm, 0.25)):
            xs = np.arange(page.origin_px[0] % step, page.width_px, step)
            ys = np.arange(page.origin_px[1] % step, page.height_px, step)
            lines = [[(x, 0), (x, page.height_px)] for x in xs] + [[(0, y), (page.width_px, y)] for y in ys]
            width = width_mm * mm * POINTS_PER_PX
            axes.add_collection(LineCollection(lines, colors=[colour(config, name)], linewidths=width), autolim=False)
        pen = {"color": colour(config, "ink"), "linewidth": max(config.trace_mm * mm, 1.0) * POINTS_PER_PX}
        for pulse in page.pulses:
            xs = (pulse.start_px, pulse.rise_px, pulse.rise_px, pulse.fall_px, pulse.fall_px, pulse.end_px)
            axes.plot(xs, (*[pulse.foot_px] * 2, *[pulse.top_px] * 2, *[pulse.foot_px] * 2), **pen)
        size = page.label_height_px * POINTS_PER_PX
        for strip in page.strips:
            axes.text(*strip.label_px, strip.lead, fontsize=size, color=pen["color"])
        axes.text(
            *page.footer_px,
            f"{config.speed_mm_s:g} mm/s   {config.gain_mm_mv:g} mm/mV",
            fontsize=size,
            color=pen["color"],
        )
        self.traces = [axes.plot([], [], **pen)[0] for _ in page.strips]

    def set_record(self, ecg: ECG) -> None:
        """Give every trace its stretch of the record."""
        for strip, trace in zip(self.page.strips, self.traces, strict=True):
            begin = round(strip.start_s * ecg.fs_hz)
            signal = ecg.lead(strip.lead)[begin : begin + round(strip.duration_s * ecg.fs_hz) + 1]
            xs = strip.left_px + np.arange(len(signal)) * (self.page.scale.px_per_s / ecg.fs_hz)
            trace.set_data(xs, strip.baseline_px - signal * self.page.scale.px_per_mv)

    def image(self) -> Image.Image:
        """What the canvas shows, as RGB."""
        return Image.fromarray(np.asarray(self.canvas.buffer_rgba())[..., :3])


def new_figure(config: RenderConfig) -> Callable[[ECG], Image.Image]:
    """A drawer that builds the whole figure for each record."""

    def draw(ecg: ECG) -> Image.Image:
        sheet = MatplotlibPage(config)
        sheet.set_record(ecg)
        sheet.canvas.draw()
        return sheet.image()

    return draw


def blitted(config: RenderConfig) -> Callable[[ECG], Image.Image]:
    """A drawer that keeps the background and draws only the traces."""
    sheet = MatplotlibPage(config)
    sheet.canvas.draw()
    background = sheet.canvas.copy_from_bbox(sheet.axes.bbox)

    def draw(ecg: ECG) -> Image.Image:
        sheet.canvas.restore_region(background)
        sheet.set_record(ecg)
        for trace in sheet.traces:
            sheet.axes.draw_artist(trace)
        return sheet.image()

    return draw


def agreement(ours: Image.Image, theirs: Image.Image, first_row: int) -> float:
    """Correlation of the two pictures' darkness below the lettering of the first row."""
    dark = [255.0 - np.asarray(image, dtype=np.float64)[first_row:, :, 0].ravel() for image in (ours, theirs)]
    return float(np.corrcoef(*dark)[0, 1])


def main(args: argparse.Namespace) -> None:
    """Print one line per layout."""
    records = [simulate(label, seed=seed) for seed, label in enumerate(LABELS)]
    print(
        f"{args.width}x{args.height} px, 500 Hz, {len(records)} records, {args.rounds} rounds, {os.cpu_count()} cores, one used"
    )
    print(
        f"{'layout':<12}{'ours /s':>9}{'new figure /s':>15}{'ratio':>7}{'blitted /s':>12}{'ratio':>7}{'agreement':>11}"
    )
    for layout in args.layouts:
        config = RenderConfig(width_px=args.width, height_px=args.height, layout=layout)
        drawers = {"ours": lambda ecg, c=config: render(ecg, c), "new": new_figure(config), "blit": blitted(config)}
        agree = agreement(
            drawers["ours"](records[0]), drawers["blit"](records[0]), round(config.page().strips[0].baseline_px)
        )
        seconds: dict[str, list[float]] = {name: [] for name in drawers}
        for _ in range(args.rounds):
            for name, draw in drawers.items():
                some = records[:2] if name == "new" else records
                start = time.process_time()
                for ecg in some:
                    draw(ecg)
                seconds[name].append((time.process_time() - start) / len(some))
        rate = {name: 1.0 / statistics.median(values) for name, values in seconds.items()}
        print(
            f"{layout:<12}{rate['ours']:>9.0f}{rate['new']:>15.1f}{rate['ours'] / rate['new']:>7.1f}"
            f"{rate['blit']:>12.1f}{rate['ours'] / rate['blit']:>7.1f}{agree:>11.3f}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=1100, help="image width (px)")
    parser.add_argument("--height", type=int, default=850, help="image height (px)")
    parser.add_argument("--rounds", type=int, default=7, help="interleaved repeats")
    parser.add_argument("--layouts", nargs="+", default=sorted(LAYOUTS), help="layouts to draw")
    main(parser.parse_args())
