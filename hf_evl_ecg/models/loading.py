"""A vision-language model and its processor from a folder or the Hub, also in 4 or 8 bits, or one clear error."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    BitsAndBytesConfig,
)

from hf_evl_ecg.json_text import read_json

from .flat_tiles import FlatLlavaNextForConditionalGeneration, FlatLlavaNextProcessor, is_flat
from .native import UnsupportedModelError

__all__ = [
    "PROVENANCE_KEY",
    "QUANTIZATIONS",
    "ModelLoadError",
    "check_folder",
    "check_model",
    "load_model",
    "load_network",
    "load_processor",
    "load_vlm",
]

PROVENANCE_KEY = "evl_ecg"  # of config.json: where an exported student says what it was made from

QUANTIZATIONS = ("4bit", "8bit")
_LIBRARIES = (
    "torchvision",
    "num2words",
    "sentencepiece",
)  # that processors of some families import; extras vlm and ecg
DTYPES = ("float32", "bfloat16", "float16")

_LOAD_FAILURES = (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError, StrictDataclassError)


class ModelLoadError(ValueError):
    """A model that cannot be loaded from where it was said to be, or not in the way that was asked for."""


def load_vlm(
    model: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "auto",
    quantization: str | None = None,
    revision: str | None = None,
    **hub_options: Any,
) -> tuple[Any, Any]:
    """Load a model, in eval mode, and its processor.

    Args:
        model: Folder of a model native to transformers, or its name on the Hub.
        device: Where it runs; None: a GPU if there is one.
        dtype: Type of its weights; ``"auto"``: as they are stored.
        quantization: ``"4bit"`` (NF4) or ``"8bit"``, by bitsandbytes on a GPU; None: as stored.
        revision: Branch, tag or commit on the Hub.
        hub_options: Further options of transformers' ``from_pretrained``: token, cache_dir, subfolder, local_files_only.

    Raises:
        ModelLoadError: There is no such model, it is damaged, the device is not there, or it cannot be quantized here.
        UnsupportedModelError: The model takes no images.

    Example:
        >>> model, processor = load_vlm("ecg-student", device="cpu")
        >>> type(model).__name__, model.training
        ('Idefics3ForConditionalGeneration', False)
    """
    wanted = device or ("cuda" if torch.cuda.is_available() else "cpu")
    _check_dtype(dtype)
    options = {"dtype": dtype, **_quantization_options(quantization, wanted)}
    place = _checked_device(wanted)
    found = {"revision": revision or "main", **hub_options}
    check_model(model, **found)
    try:
        processor = load_processor(model, **found)
        network, weights = load_network(model, output_loading_info=True, **options, **found)
    except _LOAD_FAILURES as error:
        raise _load_error(model, error) from error
    if missing := sorted(weights["missing_keys"]):  # transformers would draw them at random
        raise ModelLoadError(
            f"{model} lacks {len(missing)} weights of its architecture: {missing[:3]}; it is incomplete"
        )
    return (network.to(place) if quantization is None else network).eval(), processor


def load_model(model: str, dtype: str = "auto", device: str = "cpu") -> tuple[Any, Any]:
    """Load a model to train or to ask, and its processor; adapters come with the model below them.

    Args:
        model: Folder of a native model or of its adapters, or a name on the Hub.
        dtype: Type of its weights; ``"auto"``: as they are stored.
        device: Where it runs.

    Raises:
        ModelLoadError: There is no such model, it is damaged, the type is unknown, or the device is not there.
        UnsupportedModelError: The model takes no images.

    Example:
        >>> model, processor = load_model("ecg-student", "float32")
        >>> model.dtype
        torch.float32
    """
    place = _checked_device(device)
    _check_dtype(dtype)
    if not (Path(model) / "adapter_config.json").is_file():
        check_model(model)
    try:
        return load_network(model, dtype=dtype).to(place), load_processor(model)
    except _LOAD_FAILURES as error:
        raise _load_error(model, error) from error


def load_network(model: str | Path, **options: Any) -> Any:
    """``AutoModelForImageTextToText.from_pretrained``, with the packing of image tokens that the configuration names.

    Args:
        model: Folder of a native model or of its adapters, or a name on the Hub.
        options: Options of ``from_pretrained``, such as dtype and revision.

    Example:
        >>> type(load_network("ecg-student")).__name__
        'Idefics3ForConditionalGeneration'
    """
    options |= _NO_FOREIGN_CODE
    flat = is_flat(_read_config(model, **options))
    # Auto classes choose by the type of the configuration alone, which is the same for both packings.
    chosen: Any = FlatLlavaNextForConditionalGeneration if flat else AutoModelForImageTextToText
    return chosen.from_pretrained(model, **options)


def load_processor(model: str | Path, **options: Any) -> Any:
    """``AutoProcessor.from_pretrained``, with as many image tokens in the prompt as `load_network` packs.

    Args:
        model: Folder of a native model or of its adapters, or a name on the Hub; it holds a processor.
        options: Options of ``from_pretrained``, such as revision.

    Example:
        >>> type(load_processor("ecg-student")).__name__
        'Idefics3Processor'
    """
    options |= _NO_FOREIGN_CODE
    flat = is_flat(_read_config(model, **options))
    return (FlatLlavaNextProcessor if flat else AutoProcessor).from_pretrained(model, **options)


_NO_FOREIGN_CODE = {"trust_remote_code": False}  # said, as transformers asks at the keyboard where nothing is
_OF_FILES = (
    "trust_remote_code",
    "revision",
    "token",
    "cache_dir",
    "subfolder",
    "local_files_only",
    "force_download",
    "proxies",
)


def _read_config(model: str | Path, **options: Any) -> Any:
    """Configuration of a model, or of the one below adapters."""
    adapters = Path(model, "adapter_config.json")
    if adapters.is_file():
        base = read_json(adapters)["base_model_name_or_path"]
        return AutoConfig.from_pretrained(base, **_NO_FOREIGN_CODE)
    return AutoConfig.from_pretrained(model, **{name: options[name] for name in _OF_FILES if name in options})


def _check_dtype(dtype: str | torch.dtype) -> None:
    if dtype != "auto" and not isinstance(dtype, torch.dtype) and dtype not in DTYPES:
        raise ModelLoadError(f"dtype={dtype!r}: choose 'auto', {', '.join(map(repr, DTYPES))}, or a torch.dtype")


def _checked_device(device: str | torch.device) -> torch.device:
    """Try a device before a model is loaded for it."""
    try:
        return torch.empty(1, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        there = ", ".join(["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))])
        raise ModelLoadError(f"device={str(device)!r} cannot be used: {reason}; here are: {there}") from error


def _quantization_options(quantization: str | None, device: str | torch.device) -> dict[str, Any]:
    if quantization is None:
        return {}
    if quantization not in QUANTIZATIONS:
        raise ModelLoadError(f"quantization={quantization!r}: choose one of {QUANTIZATIONS} or None")
    if not str(device).startswith("cuda"):
        raise ModelLoadError(f"quantization={quantization!r} on {device}; it needs a CUDA device; leave it out here")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelLoadError(f"quantization={quantization!r} needs bitsandbytes: pip install bitsandbytes")
    if quantization == "8bit":
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    return {"quantization_config": config, "device_map": {"": device}}


def check_folder(model: str | Path) -> None:
    """Refuse the name of a folder that is not there, before the Hub is asked for it.

    Raises:
        ModelLoadError: What is named can only be a folder, and there is none.

    Example:
        >>> check_folder("heart-lab/ecg-student")
    """
    only_a_folder = isinstance(model, Path) or model.startswith(("/", ".", "~")) or model.count("/") > 1
    if only_a_folder and not Path(model).exists():
        raise ModelLoadError(f"{model} is no folder; give the folder of a model or a name on the Hub")


def check_model(model: str | Path, **found: Any) -> None:
    """Refuse what is no vision-language model of transformers, from its configuration alone.

    Args:
        model: Folder of a model, or its name on the Hub.
        found: Options of transformers' ``from_pretrained``, such as revision.

    Raises:
        ModelLoadError: There is no such model, or its configuration cannot be read.
        UnsupportedModelError: The model takes no images, or transformers does not load it as a vision-language model.

    Example:
        >>> check_model("ecg-student")
    """
    check_folder(model)
    folder = Path(model)
    if folder.is_dir() and not (folder / "config.json").is_file() and (folder / "adapter_config.json").is_file():
        raise ModelLoadError(f"{model} holds adapters only; merge them with hf_evl_ecg.hub.export.export_student first")
    try:
        config = AutoConfig.from_pretrained(model, **(found | _NO_FOREIGN_CODE))
    except _LOAD_FAILURES as error:
        raise _load_error(model, error) from error
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        # Phi-4-multimodal and CLIP read images too, but in other classes than those that answer questions about one
        sees = getattr(config, "vision_config", None) is not None
        reason = "AutoModelForImageTextToText does not load" if sees else "takes no images"
        raise UnsupportedModelError(
            f"{model} is a model of type {config.model_type!r}, which {reason}; give a vision-language model native to "
            "transformers (LlavaNext, Idefics3, Qwen2-VL, InternVL …)"
        )


def _load_error(model: str | Path, error: Exception) -> ModelLoadError:
    # The first paragraph: hints of transformers go on over line breaks.
    reason = " ".join(str(error).strip().split("\n\n")[0].split()) or type(error).__name__
    if "trust_remote_code" in reason:  # transformers would have one set it
        return ModelLoadError(
            f"{model} brings code of its own, which is never run; give a vision-language model native to transformers"
        )
    if isinstance(error, ImportError):
        names = [name for name in _LIBRARIES if name.lower() in reason.lower()]
        needs = f"needs {' and '.join(names)} (pip install {' '.join(names)}): " if names else ""
        return ModelLoadError(f"{model} cannot be loaded: {needs}{reason}")
    return ModelLoadError(
        f"{model} cannot be loaded: {reason} Give the folder of an exported model or a name on the Hub."
    )
