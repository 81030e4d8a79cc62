from .convert import convert_llava

__all__ = ["convert_llava"]
