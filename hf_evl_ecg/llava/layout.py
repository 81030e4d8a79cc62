"""The layout of LLaVA's own checkpoints (``llava_llama``): names of weights, settings, and the chat they were trained on."""

from __future__ import annotations

import json
from ast import literal_eval
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import CLIPVisionConfig, LlamaConfig, LlavaNextConfig

from hf_evl_ecg.json_text import read_json
from hf_evl_ecg.models.flat_tiles import PACKINGS
from hf_evl_ecg.qa.prompts import PULSE_SYSTEM

__all__ = [
    "COMPUTED_BUFFERS",
    "IMAGE_TOKEN",
    "PAD_TOKEN",
    "CheckpointKeyError",
    "line_behind_image",
    "native_config",
    "native_key",
    "read_settings",
    "vicuna_template",
]

IMAGE_TOKEN, PAD_TOKEN = "<image>", "<pad>"
VOCABULARY_MULTIPLE = 64
_PREFIXES = (  # of the LLaVA layout → of the native one; the first that fits counts
    ("model.vision_tower.vision_tower.vision_model.", "model.vision_tower."),
    ("model.mm_projector.0.", "model.multi_modal_projector.linear_1."),
    ("model.mm_projector.2.", "model.multi_modal_projector.linear_2."),
    ("model.image_newline", "model.image_newline"),
    ("model.embed_tokens.", "model.language_model.embed_tokens."),
    ("model.layers.", "model.language_model.layers."),
    ("model.norm.", "model.language_model.norm."),
    ("lm_head.", "lm_head."),
)
COMPUTED_BUFFERS = (".inv_freq", ".position_ids")  # buffers that are computed
_ALLOWED: dict[str, tuple[Any, ...]] = {
    "mm_projector_type": ("mlp2x_gelu",),
    "mm_patch_merge_type": PACKINGS,
    "image_aspect_ratio": ("anyres",),
    "mm_vision_select_feature": ("patch", "cls_patch"),
    "mm_use_im_start_end": (False,),
}
_DEFAULTS = {"mm_patch_merge_type": "flat", "mm_vision_select_feature": "patch", "mm_use_im_start_end": False}
_TEXT = (  # settings that the text model reads
    *(
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
    ),
    *("hidden_act", "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_scaling", "attention_bias"),
    *("bos_token_id", "eos_token_id"),
)


class CheckpointKeyError(ValueError):
    """A checkpoint with weights that the native model does not know, or without some that it needs."""


def native_key(key: str) -> str | None:
    """Name of a LLaVA-layout weight in the native model; None for buffers that are dropped.

    Raises:
        CheckpointKeyError: An unknown name.

    Example:
        >>> native_key("model.mm_projector.2.bias")
        'model.multi_modal_projector.linear_2.bias'
    """
    if key.endswith(COMPUTED_BUFFERS):
        return None
    for prefix, native in _PREFIXES:
        if key.startswith(prefix):
            return native + key[len(prefix) :]
    raise CheckpointKeyError(f"unknown weight {key!r}; known beginnings: {[prefix for prefix, _ in _PREFIXES]}")


def line_behind_image(tokenizer: Any) -> str:
    """The newline behind an image as a template must write it, so that the tokens are those that LLaVA was trained on.

    LLaVA encodes what stands behind an image by itself, and SentencePiece begins each text with a word's beginning, "▁". Behind
    a special token some tokenizers do so too (``legacy``), others need a blank that stands for it.

    Raises:
        ValueError: The tokenizer makes LLaVA's tokens of neither.
    """
    text = "\nIs the rhythm regular?"
    alone = tokenizer(text, add_special_tokens=False)["input_ids"]
    for line in ("\n", " \n"):
        whole = tokenizer(IMAGE_TOKEN + line + text[1:], add_special_tokens=False)["input_ids"]
        if whole[-len(alone) - 1 :] == [tokenizer.convert_tokens_to_ids(IMAGE_TOKEN), *alone]:
            return line
    raise ValueError(
        f"{type(tokenizer).__name__}: encodes {text!r} behind an image otherwise than alone, which LLaVA does not"
    )


def vicuna_template(line: str = "\n", system: str = PULSE_SYSTEM) -> str:
    """Chat template of LLaVA's Vicuna conversations: "SYSTEM USER: <image> (newline) … ASSISTANT: …</s>USER: …".

    Args:
        line: What stands between image and question; see `line_behind_image`.
        system: System message of chats that have none.
    """
    return (
        "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'][0]['text'] + ' ' }}"
        f"{{% else %}}{{{{ {json.dumps(system + ' ')} }}}}{{% endif %}}"
        "{% for message in messages %}{% if message['role'] == 'user' %}{{ 'USER: ' }}"
        "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
        f"{{{{ {json.dumps(IMAGE_TOKEN + line)} }}}}"
        "{% endif %}{% endfor %}"
        "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
        "{{ ' ' }}{% elif message['role'] == 'assistant' %}{{ 'ASSISTANT:' }}"
        "{% generation %}{{ ' ' + message['content'][0]['text'] + eos_token }}{% endgeneration %}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
    )


def read_settings(folder: Path) -> dict[str, Any]:
    """Read ``config.json`` of a LLaVA-layout checkpoint.

    Raises:
        ValueError: A setting is missing, or has a value that is not supported.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{path} is missing; give the folder of a LLaVA-layout checkpoint")
    stored = read_json(path)
    if not isinstance(stored, dict):
        raise ValueError(
            f"{path}: holds a {type(stored).__name__}, no settings; give the folder of a LLaVA-layout checkpoint"
        )
    settings = _DEFAULTS | stored
    for name in (*_ALLOWED, "vocab_size", "mm_vision_tower", "image_grid_pinpoints"):
        allowed = _ALLOWED.get(name)
        if name not in settings or (allowed and settings[name] not in allowed):
            needed = f"one of {allowed}" if allowed else "a value"
            raise ValueError(f"{path}: {name}={settings.get(name)!r:.80}: must be {needed}")
    return settings | {"image_grid_pinpoints": _pinpoints(path, settings["image_grid_pinpoints"])}


def _pinpoints(path: Path, given: Any) -> list[list[int]]:
    """Sizes of the canvas, which LLaVA also takes as a text."""
    try:
        return [
            [int(width), int(height)] for width, height in (literal_eval(given) if isinstance(given, str) else given)
        ]
    except (
        ValueError,
        TypeError,
        SyntaxError,
        OverflowError,
        RecursionError,
        MemoryError,
    ) as error:  # as literal_eval says
        raise ValueError(
            f"{path}: image_grid_pinpoints={given!r:.80}: must be a list of widths and heights, such as [[336, 672], [672, 336]]"
        ) from error


def native_config(settings: Mapping[str, Any], vision: CLIPVisionConfig, tokenizer: Any) -> Any:
    """Configuration of the native model; LLaVA's pinpoints are (width, height), the native ones (height, width)."""
    text = {name: settings[name] for name in _TEXT if name in settings}
    rows = -(-len(tokenizer) // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
    text |= {"vocab_size": rows, "pad_token_id": tokenizer.pad_token_id}
    config: Any = LlavaNextConfig(  # type: ignore[call-arg]
        vision_config=vision,
        text_config=LlamaConfig(**text),
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        image_grid_pinpoints=[[height, width] for width, height in settings["image_grid_pinpoints"]],
        vision_feature_layer=settings.get("mm_vision_select_layer", -2),
        vision_feature_select_strategy="default" if settings["mm_vision_select_feature"] == "patch" else "full",
        tie_word_embeddings=bool(settings.get("tie_word_embeddings", False)),
    )
    config.mm_patch_merge_type = settings["mm_patch_merge_type"]  # read by hf_evl_ecg.models.loading
    config.architectures = ["LlavaNextForConditionalGeneration"]
    config.dtype = str(settings.get("torch_dtype") or settings.get("dtype") or "float32")
    return config
