"""Tiny vision-language models of the real architectures, with real processors where they work without torchvision."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3Processor,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

CORPUS = [
    "What is the heart rhythm in this ECG? sinus rhythm, atrial fibrillation, left bundle branch block.",
    "Is there an axis deviation? yes no normal left axis right axis. The heart rate is 72 beats per minute.",
    "A chat between a curious human and an artificial intelligence assistant. USER: ASSISTANT: User: Assistant:",
    "Right bundle branch block with PR interval 160 ms, QRS duration 120 ms and QT interval 400 ms.",
]

# As released: LLaVA-1.6-Vicuna (generation tags, no end-of-turn token), Idefics3/SmolVLM and Qwen-VL (ChatML).
VICUNA_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'][0]['text'] + ' ' }}"
    "{% elif message['role'] == 'user' %}{{ 'USER: ' }}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' ' }}{% endfor %}"
    "{% else %}{{ 'ASSISTANT: ' }}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] + ' ' }}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
IDEFICS3_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
QWEN_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ content['text'] | trim }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<start_of_turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{% for item in message['content'] %}{% if item['type'] == 'image' %}<start_of_image>"
    "{% else %}{{ item['text'] | trim }}{% endif %}{% endfor %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
QWEN_TOKENS = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
TEXT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT |= {"num_key_value_heads": 2, "max_position_embeddings": 512, "rope_theta": 10000.0}


def sentencepiece_tokenizer(extra: list[str], **named: str) -> PreTrainedTokenizerFast:
    """Llama-like: metaspace and byte fallback, so words begin with ▁ and rare bytes are <0xNN>."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", "<pad>", *extra]
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=120, special_tokens=special, show_progress=False)
    )
    trained = json.loads(tokenizer.to_str())["model"]
    vocab = dict(trained["vocab"])
    for byte in range(256):
        vocab[f"<0x{byte:02X}>"] = len(vocab)
    merges = [tuple(pair) for pair in trained["merges"]]
    tokenizer.model = models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        extra_special_tokens=named,
    )  # fmt: skip


def byte_level_tokenizer(extra: list[str], eos: str, **named: str) -> PreTrainedTokenizerFast:
    """GPT-2-like: byte-level BPE, so words begin with Ġ and nothing is ever unknown."""
    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Split(Regex(r"\d"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|pad|>", *extra]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=eos, pad_token="<|pad|>", extra_special_tokens=named
    )


def build_llava_next() -> tuple[LlavaNextForConditionalGeneration, LlavaNextProcessor]:
    tokenizer = sentencepiece_tokenizer(["<image>"])
    pinpoints = [[28, 56], [56, 28], [56, 56]]
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}, image_grid_pinpoints=pinpoints
    )
    processor = LlavaNextProcessor(
        images,
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        chat_template=VICUNA_TEMPLATE,
        num_additional_image_tokens=1,
    )
    vision = {"model_type": "clip_vision_model", "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2}
    vision |= {"num_attention_heads": 2, "image_size": 28, "patch_size": 14, "projection_dim": 24}
    config = LlavaNextConfig(
        vision_config=vision,
        text_config={"model_type": "llama", "vocab_size": len(tokenizer), **TEXT, "hidden_size": 48}
        | {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=pinpoints,
        tie_word_embeddings=False,
    )
    return LlavaNextForConditionalGeneration(config), processor


def build_idefics3() -> tuple[Idefics3ForConditionalGeneration, Idefics3Processor]:
    tiles = [f"<row_{i}_col_{j}>" for i in range(1, 7) for j in range(1, 7)]
    extra = ["<|im_start|>", "<end_of_utterance>", "<image>", "<fake_token_around_image>", "<global-img>", *tiles]
    tokenizer = byte_level_tokenizer(extra, eos="<end_of_utterance>")
    images = Idefics3ImageProcessorPil(size={"longest_edge": 32}, max_image_size={"longest_edge": 16})
    processor = Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=IDEFICS3_TEMPLATE)
    vision = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Idefics3Config(
        vision_config={**vision, "image_size": 16, "patch_size": 4},
        text_config={"model_type": "llama", "vocab_size": len(tokenizer), **TEXT}
        | {"bos_token_id": 0, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        tie_word_embeddings=True,
    )
    return Idefics3ForConditionalGeneration(config), processor


def build_gemma3() -> tuple[Gemma3ForConditionalGeneration, Gemma3Processor]:
    """A chat shows one token for an image, the model's input others; the template writes the beginning of the text."""
    named = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tokenizer = sentencepiece_tokenizer([*named.values(), "<start_of_turn>", "<end_of_turn>"], **named)
    images = Gemma3ImageProcessorPil(size={"height": 16, "width": 16})
    processor = Gemma3Processor(images, tokenizer, image_seq_length=4, chat_template=GEMMA_TEMPLATE)
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Gemma3Config(
        vision_config={**vision, "model_type": "siglip_vision_model", "image_size": 16, "patch_size": 4},
        text_config={"model_type": "gemma3_text", "vocab_size": len(tokenizer), **TEXT, "head_dim": 8}
        | {"sliding_window": 64, "query_pre_attn_scalar": 8, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3},
        mm_tokens_per_image=4,
        image_token_id=tokenizer.convert_tokens_to_ids(named["image_token"]),
        boi_token_index=tokenizer.convert_tokens_to_ids(named["boi_token"]),
        eoi_token_index=tokenizer.convert_tokens_to_ids(named["eoi_token"]),
    )
    return Gemma3ForConditionalGeneration(config), processor


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    return byte_level_tokenizer(QWEN_TOKENS, eos="<|im_end|>")


def build_qwen2_vl() -> tuple[Qwen2VLForConditionalGeneration, PreTrainedTokenizerFast]:
    tokenizer = qwen_tokenizer()
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("image_pad", "video_pad")}
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            **TEXT,
            "rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]},
        },
        vision_config={"depth": 2, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 4},
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=tokenizer.convert_tokens_to_ids("<|vision_end|>"),
    )
    return Qwen2VLForConditionalGeneration(config), tokenizer


def build_qwen3_vl() -> tuple[Qwen3VLForConditionalGeneration, PreTrainedTokenizerFast]:
    tokenizer = qwen_tokenizer()
    vision = {
        "depth": 2,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_heads": 2,
        "patch_size": 4,
        "out_hidden_size": 32,
    }
    config = Qwen3VLConfig(
        text_config={"vocab_size": len(tokenizer), **TEXT, "head_dim": 8}
        | {"rope_scaling": {"rope_type": "default", "mrope_section": [2, 1, 1], "mrope_interleaved": True}},
        vision_config={**vision, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=tokenizer.convert_tokens_to_ids("<|vision_end|>"),
    )
    return Qwen3VLForConditionalGeneration(config), tokenizer


def build_internvl() -> tuple[InternVLForConditionalGeneration, PreTrainedTokenizerFast]:
    tokenizer = qwen_tokenizer()
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = InternVLConfig(
        vision_config={**vision, "image_size": [16, 16], "patch_size": [4, 4]},
        text_config={"model_type": "qwen2", "vocab_size": len(tokenizer), **TEXT},
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        image_seq_length=4,
    )
    return InternVLForConditionalGeneration(config), tokenizer


BUILDERS = {  # the seed of each follows from its place
    "idefics3": build_idefics3,
    "internvl": build_internvl,
    "llava_next": build_llava_next,
    "qwen2_vl": build_qwen2_vl,
    "qwen3_vl": build_qwen3_vl,
    "gemma3": build_gemma3,
}


@dataclass(frozen=True)
class TinyVLM:
    """A folder to load a fresh model from, and its processor (or only its tokenizer, where torchvision is needed)."""

    path: str
    processor: object
    model_class: type

    def load(self):
        """A new model with the same weights at each call, in eval mode."""
        return self.model_class.from_pretrained(self.path)


def vlm_maker(new_folder: Callable[[str], Path]) -> Callable[[str], TinyVLM]:
    """Function name → TinyVLM, built at the first call; names are the keys of BUILDERS."""
    built: dict[str, TinyVLM] = {}

    def get(name: str) -> TinyVLM:
        if name not in built:
            torch.manual_seed(list(BUILDERS).index(name))
            model, processor = BUILDERS[name]()
            path = new_folder(name)
            with torch.no_grad():  # the default 0.02 makes tiny models deaf to their input
                for parameter in model.parameters():
                    if parameter.ndim >= 2:
                        parameter.normal_(0, 0.5 / parameter.shape[-1] ** 0.5)
            model.save_pretrained(path)
            processor.save_pretrained(path)
            built[name] = TinyVLM(str(path), processor, type(model))
        return built[name]

    return get
