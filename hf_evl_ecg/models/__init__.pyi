from .features import FeatureRequest, extract_features, extract_layers
from .fingerprints import model_fingerprint, processor_fingerprint
from .loading import PROVENANCE_KEY, ModelLoadError, load_model, load_processor, load_vlm
from .native import UnsupportedModelError, base_model
from .patch_positions import UnknownLayoutError

__all__ = [
    "PROVENANCE_KEY",
    "FeatureRequest",
    "ModelLoadError",
    "UnknownLayoutError",
    "UnsupportedModelError",
    "base_model",
    "extract_features",
    "extract_layers",
    "load_model",
    "load_processor",
    "load_vlm",
    "model_fingerprint",
    "processor_fingerprint",
]
