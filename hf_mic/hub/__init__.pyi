from .publish import PublishReport, publish_encoder
from .push import PublishError, Push, push_encoder

__all__ = ["PublishError", "PublishReport", "Push", "publish_encoder", "push_encoder"]
