from .funnel import CodedStage, Found, Funnel, VectorStage
from .indexes import FaissStage, UsearchStage

__all__ = ["CodedStage", "FaissStage", "Found", "Funnel", "UsearchStage", "VectorStage"]
