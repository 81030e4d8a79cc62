from .levels import lloyd_max
from .packing import code_bytes, pack, unpack
from .quantizer import ScalarQuantizer
from .rotation import hadamard_turn, hadamard_turn_back, random_orthogonal, random_signs
from .storage import load_quantizer, open_codes, save_quantizer

__all__ = [
    "ScalarQuantizer",
    "code_bytes",
    "hadamard_turn",
    "hadamard_turn_back",
    "lloyd_max",
    "load_quantizer",
    "open_codes",
    "pack",
    "random_orthogonal",
    "random_signs",
    "save_quantizer",
    "unpack",
]
