"""The bytes that the tokens of a tokenizer stand for, whichever way it spells spaces and rare characters."""

import re
from collections.abc import Collection, Sequence
from functools import cache

__all__ = ["token_bytes"]

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def token_bytes(tokens: Sequence[str], special_tokens: Collection[str] = ()) -> list[bytes]:
    r"""The UTF-8 bytes each token of a tokenizer stands for, free of the tokenizer's own spelling.

    Understands SentencePiece (``▁`` for a space, ``<0xNN>`` for a byte) and byte-level BPE (``Ġ`` for a space and one
    printable character per byte).

    Args:
        tokens: Token strings of one text, as `tokenizer.convert_ids_to_tokens` gives them.
        special_tokens: Tokens without text, such as the end of the answer: ``b""``.

    Returns:
        One bytes object per token; joined they are the text.

    Example:
        >>> token_bytes(["▁sinus", "▁rhy", "thm", "<0xC3>", "<0xA9>", "</s>"], {"</s>"})
        [b' sinus', b' rhy', b'thm', b'\xc3', b'\xa9', b'']
        >>> token_bytes(["sinus", "Ġrhythm", "Ã©"])
        [b'sinus', b' rhythm', b'\xc3\xa9']
    """
    plain = [token for token in tokens if token not in special_tokens]
    decode = _byte_level_bytes if _is_byte_level(plain) else _sentencepiece_bytes
    return [b"" if token in special_tokens else decode(token) for token in tokens]


@cache
def _byte_of_character() -> dict[str, int]:
    """GPT-2's table: printable Latin-1 characters stand for themselves, the other bytes for characters from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


def _is_byte_level(tokens: Sequence[str]) -> bool:
    text = "".join(tokens)
    if "▁" in text or any(_BYTE_TOKEN.fullmatch(token) for token in tokens):
        return False
    if "Ġ" in text or "Ċ" in text:  # byte-level's space and line break
        return True
    table = _byte_of_character()
    if not all(character in table for character in text):
        return False
    try:  # without either, only what its bytes spell can tell: "Ã©" is é in one spelling and two letters in the other
        bytes(table[character] for character in text).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _byte_level_bytes(token: str) -> bytes:
    table = _byte_of_character()
    return b"".join(bytes([table[c]]) if c in table else c.encode() for c in token)


def _sentencepiece_bytes(token: str) -> bytes:
    match = _BYTE_TOKEN.fullmatch(token)
    return bytes([int(match[1], 16)]) if match else token.replace("▁", " ").encode()
