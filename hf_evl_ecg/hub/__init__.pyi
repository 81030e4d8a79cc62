from .export import ExportReport, export_student, load_student
from .metric_space import publish_metric
from .publish import PublishReport, publish_dataset, publish_student, render_dataset
from .push import PublishError, Push, publish_folder
from .reload_check import ReloadError

__all__ = [
    "ExportReport",
    "PublishError",
    "PublishReport",
    "Push",
    "ReloadError",
    "export_student",
    "load_student",
    "publish_dataset",
    "publish_folder",
    "publish_metric",
    "publish_student",
    "render_dataset",
]
