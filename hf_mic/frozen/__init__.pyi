from .appended import append_to_model
from .compressor import Compressor
from .config import AdaptConfig
from .fit import fit_map
from .head import KeepOrthogonal, add_dense_head
from .prefix_map import PrefixMap
from .vectors import principal_axes

__all__ = [
    "AdaptConfig",
    "Compressor",
    "KeepOrthogonal",
    "PrefixMap",
    "add_dense_head",
    "append_to_model",
    "fit_map",
    "principal_axes",
]
