"""Tiny models of the released families with their real processors, templates and special tokens.

Most of these processors exist only beside torchvision (`make test-torchvision`). Settings are those of the released checkpoints, but for
sizes; templates write what the released ones write, without their branches for tools.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import torch
import transformers
from tiny_vlms import (
    IDEFICS3_TEMPLATE,
    QWEN_TOKENS,
    TEXT,
    build_gemma3,
    build_idefics3,
    build_llava_next,
    build_qwen2_vl,
    build_qwen3_vl,
    byte_level_tokenizer,
)

HAVE_TORCHVISION = importlib.util.find_spec("torchvision") is not None
NEEDS_TORCHVISION = "needs torchvision, as its processor does (make test-torchvision)"

_QWEN_CONTENT = (
    "<|im_start|>{{ message['role'] }}\n{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
)
QWEN2_TEMPLATE = (  # Qwen2-VL and Qwen2.5-VL bring a system message of their own, Qwen3-VL none
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    f"You are a helpful assistant.<|im_end|>\n{{% endif %}}{_QWEN_CONTENT}{{% endfor %}}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN3_TEMPLATE = (
    f"{{% for message in messages %}}{_QWEN_CONTENT}{{% endfor %}}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INTERNVL_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ONEVISION_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>' }}{% endfor %}"
    "{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ '\n' + content['text'] }}{% endfor %}"
    "{% else %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ '\n' + content['text'] }}{% endgeneration %}{% endfor %}{% endif %}{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GRANITE_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|system|>\nA chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions.\n{% endif %}"
    "{% for message in messages %}<|{{ message['role'] }}|>\n{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<image>\n{% else %}{{ content['text'] }}{% endif %}{% endfor %}"
    "{% if message['role'] == 'assistant' %}<|end_of_text|>{% else %}\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
SIGLIP = {"model_type": "siglip_vision_model", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3}
SIGLIP |= {"num_attention_heads": 2, "image_size": 28, "patch_size": 7, "vision_use_head": False}

Pair = tuple[transformers.PreTrainedModel, transformers.ProcessorMixin]


def images_of(name: str, **options: object) -> object:
    """An image processor by the name of its class, with torchvision or with Pillow."""
    return getattr(transformers, name if HAVE_TORCHVISION else name + "Pil")(**options)


def qwen_images() -> object:
    """Patches of 4 pixels, merged two by two: 8 pixels a token, up to some 300 tokens a page."""
    return images_of("Qwen2VLImageProcessor", patch_size=4, size={"shortest_edge": 64, "longest_edge": 20000})


def qwen(build: Callable[[], tuple[transformers.PreTrainedModel, object]], kind: str, template: str) -> Pair:
    model, tokenizer = build()
    videos = "Qwen3VLVideoProcessor" if kind == "Qwen3VLProcessor" else "Qwen2VLVideoProcessor"
    parts = {"video_processor": getattr(transformers, videos)(patch_size=4), "chat_template": template}
    return model, getattr(transformers, kind)(qwen_images(), tokenizer, **parts)


def qwen2_5_model() -> tuple[transformers.PreTrainedModel, object]:
    tokenizer = byte_level_tokenizer(QWEN_TOKENS, eos="<|im_end|>")
    vision = {"depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": 4}
    config = transformers.Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            **TEXT,
            "rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]},
        },
        vision_config={**vision, "out_hidden_size": 32, "window_size": 16, "fullatt_block_indexes": [1]},
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=tokenizer.convert_tokens_to_ids("<|vision_end|>"),
    )
    return transformers.Qwen2_5_VLForConditionalGeneration(config), tokenizer


def smolvlm2() -> Pair:
    tiles = [f"<row_{i}_col_{j}>" for i in range(1, 7) for j in range(1, 7)]
    extra = ["<|im_start|>", "<end_of_utterance>", "<image>", "<fake_token_around_image>", "<global-img>", *tiles]
    tokenizer = byte_level_tokenizer(extra, eos="<end_of_utterance>")
    images = images_of("SmolVLMImageProcessor", size={"longest_edge": 64}, max_image_size={"longest_edge": 16})
    videos = transformers.SmolVLMVideoProcessor(size={"longest_edge": 16}, max_image_size={"longest_edge": 16})
    processor = transformers.SmolVLMProcessor(
        images, tokenizer, videos, image_seq_len=4, chat_template=IDEFICS3_TEMPLATE
    )
    vision = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.SmolVLMConfig(
        vision_config={**vision, "image_size": 16, "patch_size": 4},
        text_config={"model_type": "llama", "vocab_size": len(tokenizer), **TEXT}
        | {"bos_token_id": 0, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        tie_word_embeddings=True,
    )
    return transformers.SmolVLMForConditionalGeneration(config), processor


def internvl3() -> Pair:
    named = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    named["video_token"] = "<video>"
    tokenizer = byte_level_tokenizer(["<|im_start|>", "<|im_end|>", *named.values()], eos="<|im_end|>", **named)
    images = images_of("GotOcr2ImageProcessor", size={"height": 16, "width": 16}, crop_to_patches=True, max_patches=12)
    videos = transformers.InternVLVideoProcessor(size={"height": 16, "width": 16})
    processor = transformers.InternVLProcessor(
        images, tokenizer, videos, image_seq_length=4, chat_template=INTERNVL_TEMPLATE
    )
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.InternVLConfig(
        vision_config={**vision, "image_size": [16, 16], "patch_size": [4, 4]},
        text_config={"model_type": "qwen2", "vocab_size": len(tokenizer), **TEXT},
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    return transformers.InternVLForConditionalGeneration(config), processor


def llava_onevision() -> Pair:
    tokenizer = byte_level_tokenizer(["<|im_start|>", "<|im_end|>", "<image>", "<video>"], eos="<|im_end|>")
    pinpoints = [[28 * i, 28 * j] for i in range(1, 4) for j in range(1, 4)]
    images = images_of("LlavaOnevisionImageProcessor", size={"height": 28, "width": 28}, image_grid_pinpoints=pinpoints)
    processor = transformers.LlavaOnevisionProcessor(
        images,
        tokenizer,
        transformers.LlavaOnevisionVideoProcessor(size={"height": 28, "width": 28}),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=ONEVISION_TEMPLATE,
        vision_aspect_ratio="anyres_max_9",
    )
    config = transformers.LlavaOnevisionConfig(
        vision_config=SIGLIP,
        text_config={"model_type": "qwen2", "vocab_size": len(tokenizer), **TEXT},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=pinpoints,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_9",
    )
    return transformers.LlavaOnevisionForConditionalGeneration(config), processor


def granite_vision() -> Pair:
    """LLaVA-NeXT with a SigLIP tower, of which several layers are read, and a Granite decoder."""
    special = ["<image>", "<|system|>", "<|user|>", "<|assistant|>", "<|end_of_text|>"]
    tokenizer = byte_level_tokenizer(special, eos="<|end_of_text|>")
    pinpoints = [[28 * i, 28 * j] for i in range(1, 4) for j in range(1, 4)]
    images = images_of(
        "LlavaNextImageProcessor",
        size={"shortest_edge": 28},
        crop_size={"height": 28, "width": 28},
        image_grid_pinpoints=pinpoints,
    )
    processor = transformers.LlavaNextProcessor(
        images,
        tokenizer,
        patch_size=7,
        vision_feature_select_strategy="full",
        chat_template=GRANITE_TEMPLATE,
        num_additional_image_tokens=0,
    )
    config = transformers.LlavaNextConfig(
        vision_config=SIGLIP,
        text_config={"model_type": "granite", "vocab_size": len(tokenizer), **TEXT}
        | {"bos_token_id": 0, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=pinpoints,
        vision_feature_layer=[-3, -1],
        vision_feature_select_strategy="full",
        tie_word_embeddings=True,
    )
    return transformers.LlavaNextForConditionalGeneration(config), processor


@dataclass(frozen=True)
class Family:
    """A family as docs/models.md lists it.

    Attributes:
        build: Makes a tiny model and its processor.
        positions: Whether it is known where on the page its image tokens lie.
        torchvision: Whether its processor needs torchvision.
    """

    build: Callable[[], Pair]
    positions: bool = True
    torchvision: bool = True


FAMILIES = {
    "LLaVA-NeXT": Family(build_llava_next, torchvision=False),
    "Granite Vision": Family(granite_vision, torchvision=False),
    "LLaVA-OneVision": Family(llava_onevision, positions=False),
    "Idefics3": Family(build_idefics3, torchvision=False),
    "SmolVLM2": Family(smolvlm2),
    "Qwen2-VL": Family(lambda: qwen(build_qwen2_vl, "Qwen2VLProcessor", QWEN2_TEMPLATE)),
    "Qwen2.5-VL": Family(lambda: qwen(qwen2_5_model, "Qwen2_5_VLProcessor", QWEN2_TEMPLATE)),
    "Qwen3-VL": Family(lambda: qwen(build_qwen3_vl, "Qwen3VLProcessor", QWEN3_TEMPLATE)),
    "InternVL3": Family(internvl3),
    "Gemma 3": Family(build_gemma3, torchvision=False),
}


def build_family(name: str, seed: int = 0) -> Pair:
    """The model, with weights large enough to react to what it sees, and the processor."""
    torch.manual_seed(seed)
    model, processor = FAMILIES[name].build()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0, 0.5 / parameter.shape[-1] ** 0.5)
    return model.eval(), processor
