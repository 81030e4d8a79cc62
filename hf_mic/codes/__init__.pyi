from .levels import lloyd_max
from .packing import code_bytes, pack, unpack
from .quantizer import ScalarQuantizer
from .rotation import random_orthogonal
from .storage import load_quantizer, open_codes, save_quantizer

__all__ = [
    "ScalarQuantizer",
    "code_bytes",
    "lloyd_max",
    "load_quantizer",
    "open_codes",
    "pack",
    "random_orthogonal",
    "save_quantizer",
    "unpack",
]
