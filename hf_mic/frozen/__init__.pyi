from .fit import AdaptConfig, fit_map, principal_axes
from .head import KeepOrthogonal, add_dense_head
from .prefix_map import PrefixMap, append_to_model

__all__ = [
    "AdaptConfig",
    "KeepOrthogonal",
    "PrefixMap",
    "add_dense_head",
    "append_to_model",
    "fit_map",
    "principal_axes",
]
