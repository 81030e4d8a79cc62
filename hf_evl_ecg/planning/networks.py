"""Models of a configuration alone: of the right shape, without weights, and which of their modules are which part."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedConfig

from hf_evl_ecg.arguments import check_choice
from hf_evl_ecg.models.flat_tiles import FlatLlavaNextForConditionalGeneration, is_flat
from hf_evl_ecg.models.loading import DTYPES, ModelLoadError, check_model, load_processor
from hf_evl_ecg.models.native import base_model

__all__ = [
    "PARTS",
    "ParameterCount",
    "count_parameters",
    "empty_network",
    "load_shape",
    "module_parts",
    "vocabulary_size",
    "weight_bytes",
]

PARTS = ("vision tower", "projector", "decoder", "embeddings", "head", "adapters")


@dataclass(frozen=True)
class ParameterCount:
    """Parameters of a model.

    Attributes:
        total: By part, each parameter once; a head that shares the weights of the embeddings has none.
        trained: Those with a gradient, by part.
    """

    total: dict[str, int]
    trained: dict[str, int]


def load_shape(name: str | Path, dtype: str = "auto") -> tuple[Any, Any]:
    """A model without weights (on the meta device), and its processor: the folder needs ``config.json`` and the processor's files.

    Args:
        name: A folder, or a name on the Hub, of which no weights are fetched.
        dtype: Type of its weights; ``"auto"``: what the configuration says, or float32.

    Raises:
        ModelLoadError: There is no such model, or the Hub cannot be reached; the message says what to give instead.
        UnsupportedModelError: The model takes no images.
        ValueError: An unknown type.

    Example:
        >>> model, processor = load_shape("ecg-student")
        >>> model.device, type(processor).__name__
        (device(type='meta'), 'Idefics3Processor')
    """
    check_choice("dtype", dtype, ("auto", *DTYPES))
    try:
        check_model(name)
    except ModelLoadError as error:
        raise ModelLoadError(f"{error} {_INSTEAD}") from error
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        processor = load_processor(name)
    except (OSError, ValueError, ImportError) as error:
        raise ModelLoadError(f"{name} has no processor that can be loaded: {error} {_INSTEAD}") from error
    return empty_network(config, dtype), processor


def empty_network(config: PreTrainedConfig, dtype: str = "auto") -> Any:
    """A model of a configuration, without weights.

    Args:
        config: The configuration of a vision-language model.
        dtype: As in `load_shape`.

    Example:
        >>> empty_network(student.config).num_parameters() == student.num_parameters()
        True
    """
    with init_empty_weights(include_buffers=False):  # buffers stay real: some hold whole numbers that are read as such
        network: Any = (
            FlatLlavaNextForConditionalGeneration(config)
            if is_flat(config)
            else AutoModelForImageTextToText.from_config(config)
        )
    network.tie_weights()  # each registration made a parameter of its own, also of weights that are one
    stored = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
    wanted = stored if dtype == "auto" else getattr(torch, dtype)
    for parameter in network.parameters():  # not .to(): rope tables stay in float32, as from_pretrained leaves them
        parameter.data = parameter.data.to(wanted)
    return network


_INSTEAD = (
    "To plan, a local folder with config.json and the files of the processor is enough, without weights (hf download NAME --exclude "
    "'*.safetensors' --local-dir FOLDER where there is a network)."
)


def module_parts(model: nn.Module) -> dict[nn.Module, str]:
    """The modules that make up each part of a vision-language model, a projector being what lies in none of the others.

    Those that may lie in others come first. Qwen-VL's projector is inside of its tower (``visual.merger``) and counts there.

    Example:
        >>> sorted((part, type(module).__name__) for module, part in module_parts(student).items())[-2:]
        [('projector', 'Idefics3Connector'), ('vision tower', 'Idefics3VisionTransformer')]
    """
    network = base_model(model)
    tower = {network.get_encoder(modality="image"): "vision tower"}
    rest = {
        network.get_input_embeddings(): "embeddings",
        network.get_output_embeddings(): "head",
        network.get_decoder(): "decoder",
    }
    return {**tower, **dict.fromkeys(_without(network, {*tower, *rest}), "projector"), **rest}


def _without(module: nn.Module, parts: set[nn.Module]) -> list[nn.Module]:
    """The largest modules inside of one that neither are nor hold any of some parts."""
    if module in parts:
        return []
    if not parts & set(module.modules()):
        return [module]
    return [found for child in module.children() for found in _without(child, parts)]


def count_parameters(model: nn.Module) -> ParameterCount:
    """Count the parameters of each part.

    Args:
        model: A vision-language model, or a PEFT model around one; with or without weights.

    Returns:
        The sum over the parts is ``model.num_parameters()``.

    Example:
        >>> found = count_parameters(student)
        >>> sum(found.total.values()) == student.num_parameters(), found.total["adapters"]
        (True, 0)
    """
    owner: dict[int, str] = {}
    for module, part in module_parts(model).items():
        for parameter in module.parameters():
            owner.setdefault(id(parameter), part)
    total, trained = dict.fromkeys(PARTS, 0), dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():
        part = "adapters" if ".lora_" in name else owner.get(id(parameter), "projector")
        total[part] += parameter.numel()
        trained[part] += parameter.numel() * parameter.requires_grad
    return ParameterCount(total, trained)


def weight_bytes(module: nn.Module, *, trained: bool = False) -> int:
    """Bytes of the parameters of a module, each once; ``trained``: of those with a gradient.

    Example:
        >>> weight_bytes(nn.Linear(4, 3))
        60
    """
    return sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad or not trained)


def vocabulary_size(name: str | Path) -> int:
    """Entries of a model's vocabulary, from its configuration.

    Example:
        >>> vocabulary_size("ecg-student")
        330
    """
    return AutoConfig.from_pretrained(name, trust_remote_code=False).get_text_config().vocab_size
