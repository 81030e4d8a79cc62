"""Loading the encoder that is trained, scored, inspected or published."""

from __future__ import annotations

from pathlib import Path

from sentence_transformers import SentenceTransformer

__all__ = ["EncoderLoadError", "load_encoder"]


class EncoderLoadError(ValueError):
    """There is no such encoder, or it is damaged."""


def load_encoder(
    name: str | Path, *, device: str | None = None, trust_remote_code: bool = False
) -> SentenceTransformer:
    """Load a sentence-transformers model from a folder or the Hub.

    Args:
        name: Folder, or name on the Hub.
        device: Such as ``cpu`` or ``cuda:0``; chosen automatically by default.
        trust_remote_code: Run code that the model's repository brings along.

    Raises:
        EncoderLoadError: If there is no such model or it cannot be loaded.

    Example:
        >>> encoder.save("encoder")
        >>> load_encoder("encoder", device="cpu").encode(["fast rhythm"]).shape
        (1, 32)
    """
    try:
        return SentenceTransformer(str(name), device=device, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        where = "from this folder" if Path(name).is_dir() else "as a folder or from the Hub"
        raise EncoderLoadError(
            f"No sentence-transformers model {str(name)!r} could be loaded {where}: {error}"
        ) from error
