"""Images per second of `hf_evl_ecg.drawing.rendering` on one core, against matplotlib drawing the same page, and against ecg_plot.

Matplotlib gets every strip, lead name, pulse and grid line at the pixel where ours lies, in two ways: a new figure per record,
as ECG-Image-Kit does, and, its strongest, one figure whose background is kept and whose lines are only given new data (blitting).
ecg_plot draws pages of its own with the same leads, times and grid, on as many pixels: by CairoSVG and by matplotlib, each left out, and
said so, where it is not installed (pip install ecg_plot cairosvg). Agreement is the correlation of a picture's ink with ours.

All make pictures as arrays, and as PNG (of Pillow's usual compression; CairoSVG writes its own, which the array is decoded from). The
ways take turns; times are CPU seconds, medians over rounds, and a ratio is of a way's to ours: above 1 it is slower.

    OMP_NUM_THREADS=1 python benchmarks/ecg_render.py
    OMP_NUM_THREADS=1 python benchmarks/ecg_render.py --layouts 12x1 --records 1 --rounds 1     # a quick look

Takes some minutes.
"""

import io
import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from measuring import median_ratio, take_turns
from PIL import Image
from reporting import Table, options

from hf_evl_ecg.drawing.config import RenderConfig
from hf_evl_ecg.drawing.layouts import LAYOUTS
from hf_evl_ecg.drawing.rendering import render
from hf_evl_ecg.signals.ecg import ECG
from hf_evl_ecg.signals.simulation import LABELS, simulate

try:
    import ecg_plot
except ImportError:
    ecg_plot = None
try:
    import cairosvg
except (ImportError, OSError):  # the latter where there is no Cairo for it
    cairosvg = None

DPI = 100.0
POINTS_PER_PX = 72.0 / DPI
OURS = "hf_evl_ecg"
COLUMNS = {"layout": "", "output": "", "way": "", "images/s": ",.1f", "ratio": ".2f", "kB": ",.1f", "agreement": ".3f"}
CHARTS: dict[str, dict[str, Any]] = {  # options of ecg_plot for the same leads and times
    "3x4+rhythm": {"layout": "12lead", "time_mode": "sequential", "rhythm_lead": "II"},
    "3x4": {"layout": "12lead", "time_mode": "sequential"},
    "6x2": {"layout": "columns", "columns": 2, "time_mode": "sequential"},
    "12x1": {"layout": "stacked"},
}
Draw = Callable[[ECG], Any]


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


def make_chart(config: RenderConfig, ecg: ECG) -> tuple[Any, float]:
    """ecg_plot's chart, and the pixels per millimetre at which it has as many pixels as a page."""
    given = {"lead_axis": 1, "lead_names": ecg.leads, "sample_rate": ecg.fs_hz, **CHARTS[config.layout.name]}
    chart = ecg_plot.plot(ecg.signal_mv, **given)
    return chart, math.sqrt(config.width_px * config.height_px / (chart.width_mm * chart.height_mm))


def chart_by_matplotlib(config: RenderConfig, ecg: ECG) -> Image.Image:
    """ecg_plot's chart through its matplotlib adapter."""
    chart, scale = make_chart(config, ecg)
    figure, _ = chart.to_matplotlib()
    figure.set_dpi(25.4 * scale)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])


def chart_png(config: RenderConfig, ecg: ECG) -> bytes:
    """ecg_plot's chart through SVG, as its own `save` makes a PNG."""
    chart, scale = make_chart(config, ecg)
    size = {"output_width": round(chart.width_mm * scale), "output_height": round(chart.height_mm * scale)}
    return cairosvg.svg2png(bytestring=chart.to_svg().encode(), **size)


def encoded(draw: Draw, ecg: ECG) -> bytes:
    """A picture as PNG."""
    file = io.BytesIO()
    draw(ecg).save(file, "PNG")
    return file.getvalue()


def decoded(config: RenderConfig, ecg: ECG) -> Image.Image:
    """The picture within ecg_plot's PNG."""
    return Image.open(io.BytesIO(chart_png(config, ecg))).convert("RGB")


def agreement(ours: Image.Image, theirs: Image.Image, first_row: int) -> float:
    """Correlation of the two pictures' darkness below the lettering of the first row."""
    dark = [255.0 - np.asarray(image, dtype=np.float64)[first_row:, :, 0].ravel() for image in (ours, theirs)]
    return float(np.corrcoef(*dark)[0, 1])


def draw_all(draw: Draw, records: Sequence[ECG]) -> None:
    """Draw one record after the other."""
    for ecg in records:
        draw(ecg)


def measure(config: RenderConfig, records: Sequence[ECG], rounds: int, table: Table) -> None:
    """A row for each way and output."""
    arrays: dict[str, Draw] = {
        OURS: lambda ecg: render(ecg, config),
        "matplotlib, new figure": new_figure(config),
        "matplotlib, blitted": blitted(config),
    }
    if ecg_plot is not None:
        arrays["ecg_plot by matplotlib"] = partial(chart_by_matplotlib, config)
    pngs: dict[str, Draw] = {name: partial(encoded, draw) for name, draw in arrays.items()}
    if ecg_plot is not None and cairosvg is not None:
        arrays["ecg_plot by CairoSVG"], pngs["ecg_plot by CairoSVG"] = (
            partial(decoded, config),
            partial(chart_png, config),
        )
    first_row, ours = round(config.page().strips[0].baseline_px), render(records[0], config)
    for output, ways in (("array", arrays), ("PNG", pngs)):
        taken = take_turns({name: partial(draw_all, draw, records) for name, draw in ways.items()}, rounds)
        for name, times in taken.items():
            rate, ratio = len(records) / statistics.median(times), median_ratio(times, taken[OURS])
            size = len(pngs[name](records[0])) / 1e3 if output == "PNG" else None
            same_page = output == "array" and not name.startswith("ecg_plot")
            agree = agreement(ours, arrays[name](records[0]), first_row) if same_page else None
            table.add(config.layout.name, output, name, rate, ratio, size, agree)


def main() -> None:
    """Measure and print the table."""
    parser = options(__doc__)
    parser.add_argument("--width", type=int, default=1100, help="image width (px)")
    parser.add_argument("--height", type=int, default=850, help="image height (px)")
    parser.add_argument("--layouts", nargs="+", default=sorted(LAYOUTS), help="layouts to draw")
    parser.add_argument("--records", type=int, default=3, help="records drawn in a round")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    records = [simulate(LABELS[seed % len(LABELS)], seed=seed) for seed in range(args.records)]
    for name, library in (("ecg_plot", ecg_plot), ("cairosvg", cairosvg)):
        if library is None:
            print(f"{name} is left out: it cannot be imported\n")
    table = Table(__file__, args.output, COLUMNS, ("numpy", "pillow", "matplotlib", "ecg_plot", "cairosvg"))
    for layout in args.layouts:
        measure(RenderConfig(width_px=args.width, height_px=args.height, layout=layout), records, args.rounds, table)


if __name__ == "__main__":
    main()
