from .convert import convert_llava
from .flat_tiles import load_llava_next

__all__ = ["convert_llava", "load_llava_next"]
