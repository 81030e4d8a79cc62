from .export import ExportReport, export_student, load_student
from .metric_space import publish_metric
from .publish import PublishReport, preview_dataset, preview_student, publish_dataset, publish_student, render_dataset
from .push import Preview, PublishError, Push, publish_folder
from .quantize import QuantizeReport, quantize_model
from .reload_check import ReloadError

__all__ = [
    "ExportReport",
    "Preview",
    "PublishError",
    "PublishReport",
    "Push",
    "QuantizeReport",
    "ReloadError",
    "export_student",
    "load_student",
    "preview_dataset",
    "preview_student",
    "publish_dataset",
    "publish_folder",
    "publish_metric",
    "publish_student",
    "quantize_model",
    "render_dataset",
]
