from .callback import GeometryCallback
from .diagnostics import geometry_report
from .directions import alignment, mean_cosine, uniformity
from .pictures import plot_spectra
from .redundancy import cross_correlation_energy, knn_overlap, residual_r2
from .report import geometry_table, write_geometry_report
from .spectra import diagonal_cv, effective_rank, eigenvalue_cv, isoscore, participation_ratio, spectrum

__all__ = [
    "GeometryCallback",
    "alignment",
    "cross_correlation_energy",
    "diagonal_cv",
    "effective_rank",
    "eigenvalue_cv",
    "geometry_report",
    "geometry_table",
    "isoscore",
    "knn_overlap",
    "mean_cosine",
    "participation_ratio",
    "plot_spectra",
    "residual_r2",
    "spectrum",
    "uniformity",
    "write_geometry_report",
]
