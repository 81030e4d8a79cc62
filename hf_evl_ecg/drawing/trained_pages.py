"""How the pictures of a model's training were drawn: kept in its folder, read by whatever shows it further ECGs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_evl_ecg.files import write_json
from hf_evl_ecg.json_text import read_json

from .config import RenderConfig, read_stored_config

__all__ = ["PAGES_FILE", "PagesError", "read_pages", "stored_pages", "write_pages"]

PAGES_FILE = "pages.json"
"""In the folder of a trained model that is not exported; an export says the same in its ``config.json``."""


class PagesError(ValueError):
    """Pages that a model was not trained on, or a description of them that cannot be read."""


def write_pages(folder: str | Path, config: RenderConfig) -> None:
    """Keep how ECGs were drawn beside the model that learnt from them."""
    write_json(Path(folder) / PAGES_FILE, config.to_dict())


def read_pages(model: str | Path, **hub_options: Any) -> RenderConfig | None:
    """How the pictures of a model's training were drawn.

    Args:
        model: Its folder, or its name on the Hub.
        hub_options: ``revision``, ``token``, ``cache_dir`` … for a name on the Hub.

    Returns:
        None where neither `PAGES_FILE` nor the model's config says it.

    Raises:
        PagesError: It is said in a way that cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_pages(folder, RenderConfig(width_px=640, height_px=480))
        ...     read_pages(folder).width_px
        640
    """
    file = Path(model) / PAGES_FILE
    if file.is_file():
        try:
            images = read_json(file)
        except ValueError as error:
            raise PagesError(f"{error} (remove it and name the options of the pages)") from error
        return stored_pages({"images": images}, str(file))
    from transformers import PreTrainedConfig

    from hf_evl_ecg.models.loading import PROVENANCE_KEY

    try:
        config, _ = PreTrainedConfig.get_config_dict(str(model), **hub_options)
    except (OSError, ValueError):  # no such model: loading it says so, in full
        return None
    return stored_pages(config.get(PROVENANCE_KEY) or {}, f"{model}, config.json")


def stored_pages(provenance: Mapping[str, Any], where: str = "the model's config") -> RenderConfig | None:
    """The same from what an export's config says under ``"images"``, also of exports of earlier versions.

    Raises:
        PagesError: An unknown field, or a value that is not allowed.

    Example:
        >>> stored_pages({"images": {"image_width": 640, "image_height": 480}}).height_px
        480
    """
    images = provenance.get("images")
    if not images:
        return None
    way_out = "(name the options of the pages, or give render=RenderConfig(…))"
    if not isinstance(images, Mapping):
        raise PagesError(f"{where}: images={images!r:.80}: a mapping is needed {way_out}")
    try:
        return read_stored_config(images)
    except ValueError as error:
        raise PagesError(f"{where} says how its ECGs were drawn, but: {error!s:.500} {way_out}") from error
