from .embedding_server import DimensionsRefusedError, EmbeddingServer, ServerError
from .legacy_modules import has_legacy_modules, write_legacy_modules
from .publish import Preview, PublishReport, preview_encoder, publish_encoder
from .push import PublishError, Push, push_encoder
from .serve_check import ServeReport, check_server

__all__ = [
    "DimensionsRefusedError",
    "EmbeddingServer",
    "Preview",
    "PublishError",
    "PublishReport",
    "Push",
    "ServeReport",
    "ServerError",
    "check_server",
    "has_legacy_modules",
    "preview_encoder",
    "publish_encoder",
    "push_encoder",
    "write_legacy_modules",
]
