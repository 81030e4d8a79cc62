from .legacy_modules import has_legacy_modules, write_legacy_modules
from .publish import PublishReport, publish_encoder
from .push import PublishError, Push, push_encoder

__all__ = [
    "PublishError",
    "PublishReport",
    "Push",
    "has_legacy_modules",
    "publish_encoder",
    "push_encoder",
    "write_legacy_modules",
]
