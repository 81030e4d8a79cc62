from .callback import GeometryCallback
from .diagnostics import geometry_report
from .report import geometry_table, plot_spectra, write_geometry_report

__all__ = ["GeometryCallback", "geometry_report", "geometry_table", "plot_spectra", "write_geometry_report"]
