r"""Build a small teacher and a smaller student of other architecture, from the real configuration classes.

    python studies/evl_ecg/small_models.py --kind teacher --data outputs/questions --output_dir outputs/small_teacher_init
    python studies/evl_ecg/small_models.py --kind student --data outputs/questions --output_dir outputs/small_student_init

The teacher is a LlavaNextForConditionalGeneration (CLIP vision tower, Llama decoder, Llama-like tokenizer), the student an
Idefics3ForConditionalGeneration (the class of SmolVLM; SigLIP-like tower, pixel shuffle, GPT-2-like tokenizer). Both cut a page
of `IMAGE_SIZE` into two tiles and add a small copy of the whole: 3 tiles of 8 x 8 patches, so 192 patches in all. The tokenizers
are trained on the questions and answers of the training split and on this project's own words; weights are random. The folders
load with AutoModelForImageTextToText and AutoProcessor. Takes a few seconds.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from general_pages import page_texts
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from hf_evl_ecg.chat.conversations import read_turns
from hf_evl_ecg.command_line.parser import parse_arguments
from hf_evl_ecg.data.stored import load_questions
from hf_evl_ecg.qa.labels import LABELS
from hf_evl_ecg.qa.prompts import MEASUREMENTS, NO, NOTHING_FOUND, YES

IMAGE_SIZE = (448, 224)
"""Width and height of a page (px): 1.7 px per mm for the layout 3x4+rhythm."""
TILE, PATCH = 224, 28

# As released with LLaVA-1.6-Vicuna and SmolVLM.
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
SMOLVLM_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
# Paper is nearly white: with these the paper is near 0 and the ink stands out.
NORMALISATION: dict[str, Any] = {"image_mean": [0.95, 0.9, 0.9], "image_std": [0.25, 0.25, 0.25]}


@dataclass(frozen=True)
class Sizes:
    """Width, depth and attention heads of the vision tower and of the decoder."""

    vision_width: int
    vision_layers: int
    text_width: int
    text_layers: int
    heads: int = 4

    def vision(self) -> dict[str, Any]:
        """Fields of a vision configuration."""
        return {
            "hidden_size": self.vision_width,
            "intermediate_size": 2 * self.vision_width,
            "num_hidden_layers": self.vision_layers,
            "num_attention_heads": self.heads,
            "image_size": TILE,
            "patch_size": PATCH,
        }

    def text(self, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
        """Fields of a Llama configuration."""
        return {
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": self.text_width,
            "intermediate_size": 2 * self.text_width,
            "num_hidden_layers": self.text_layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "max_position_embeddings": 1024,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }


TEACHER = Sizes(vision_width=160, vision_layers=4, text_width=160, text_layers=3)
STUDENT = Sizes(vision_width=64, vision_layers=3, text_width=64, text_layers=2)


def build_teacher(
    texts: Iterable[str], sizes: Sizes = TEACHER, *, seed: int = 0
) -> tuple[LlavaNextForConditionalGeneration, LlavaNextProcessor]:
    """Build a LlavaNext model with random weights and its processor.

    Args:
        texts: What its tokenizer is trained on.
        sizes: Widths and depths.
        seed: Seed of the weights.
    """
    tokenizer = train_llama_tokenizer(texts, ["<image>"])
    pinpoints = [[TILE, 2 * TILE]]
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": TILE},
        crop_size={"height": TILE, "width": TILE},
        image_grid_pinpoints=pinpoints,
        **NORMALISATION,
    )
    processor = LlavaNextProcessor(
        images,
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=VICUNA_TEMPLATE,
    )
    config = LlavaNextConfig(
        vision_config={"model_type": "clip_vision_model", "projection_dim": sizes.text_width, **sizes.vision()},
        text_config=sizes.text(tokenizer),
        image_token_id=tokenizer.vocab["<image>"],  # type: ignore[call-arg]  # the name that config.json has
        image_grid_pinpoints=pinpoints,
        vision_feature_layer=-1,
        tie_word_embeddings=False,
    )
    return initialise(LlavaNextForConditionalGeneration(config), seed), processor


def build_student(
    texts: Iterable[str], sizes: Sizes = STUDENT, *, seed: int = 0
) -> tuple[Idefics3ForConditionalGeneration, Idefics3Processor]:
    """Build an Idefics3 model with random weights and its processor; arguments as in `build_teacher`."""
    tiles = [f"<row_{i}_col_{j}>" for i in range(1, 7) for j in range(1, 7)]
    extra = ["<|im_start|>", "<end_of_utterance>", "<image>", "<fake_token_around_image>", "<global-img>", *tiles]
    tokenizer = train_gpt2_tokenizer(texts, extra)
    images = Idefics3ImageProcessorPil(
        size={"longest_edge": IMAGE_SIZE[0]}, max_image_size={"longest_edge": TILE}, **NORMALISATION
    )
    shuffle = 2
    tokens = (TILE // PATCH // shuffle) ** 2
    processor = Idefics3Processor(images, tokenizer, image_seq_len=tokens, chat_template=SMOLVLM_TEMPLATE)
    config = Idefics3Config(
        vision_config=sizes.vision(),
        text_config=sizes.text(tokenizer),
        image_token_id=tokenizer.vocab["<image>"],
        scale_factor=shuffle,
        tie_word_embeddings=True,
    )
    return initialise(Idefics3ForConditionalGeneration(config), seed), processor


def initialise(model: nn.Module, seed: int) -> Any:
    """Draw every matrix with variance 1 / inputs: the usual 0.02 leaves narrow models deaf to their input."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim < 2:
                continue
            table = "embed" in name and "patch" not in name
            std = 0.1 if table else 0.7 / parameter[0].numel() ** 0.5
            parameter.normal_(0.0, std, generator=generator)
    return model


def training_texts(questions: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Questions, answers and every word that an answer, or a general start, may need."""
    for item in questions:
        for turn in read_turns(item, item["record"], unanswered="use"):
            yield f"{turn.question} {turn.answer}"
    for label in LABELS.values():
        yield label.text
    for kind in MEASUREMENTS.values():
        yield f"{kind.name} {kind.unit}"
    yield from page_texts()
    yield f"{YES} {NO} {NOTHING_FOUND} USER: ASSISTANT: User: Assistant:"


def train_llama_tokenizer(texts: Iterable[str], extra: list[str], vocab_size: int = 600) -> PreTrainedTokenizerFast:
    """Llama-like: words begin with ▁, digits stand alone, what is unknown is spelled in bytes such as <0x41>."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    metaspace = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([metaspace, pre_tokenizers.Digits(individual_digits=True)])
    strip = decoders.Strip(" ", 1, 0)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), strip])
    special = ["<unk>", "<s>", "</s>", "<pad>", *extra]
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    trained = json.loads(tokenizer.to_str())["model"]
    vocab = dict(trained["vocab"])
    for byte in range(256):
        vocab[f"<0x{byte:02X}>"] = len(vocab)
    merges = [tuple(pair) for pair in trained["merges"]]
    tokenizer.model = models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def train_gpt2_tokenizer(texts: Iterable[str], extra: list[str], vocab_size: int = 700) -> PreTrainedTokenizerFast:
    """GPT-2-like: byte-level BPE, words begin with Ġ, digits stand alone, nothing is ever unknown."""
    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>", "<|pad|>", *extra],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        pad_token="<|pad|>",
    )


@dataclass
class BuildArguments:
    """Which model to build, how large, and where it goes."""

    kind: Literal["teacher", "student"] = field(metadata={"help": "teacher: LlavaNext; student: Idefics3."})
    data: str = field(
        metadata={"help": "Question dataset from hf-evl-ecg prepare, whose training texts the tokenizer learns."}
    )
    output_dir: str = field(metadata={"help": "Where model and processor go."})
    vision_width: int | None = field(
        default=None, metadata={"help": "Width of the vision tower (teacher 160, student 64)."}
    )
    vision_layers: int | None = field(default=None, metadata={"help": "Layers of the vision tower (4, 3)."})
    text_width: int | None = field(default=None, metadata={"help": "Width of the decoder (160, 64)."})
    text_layers: int | None = field(default=None, metadata={"help": "Layers of the decoder (3, 2)."})
    seed: int = field(default=0, metadata={"help": "Seed of the weights."})


def command(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run the command line."""
    main(*parse_arguments(arguments, BuildArguments, description=__doc__, prog=prog))


def main(args: BuildArguments) -> int:
    """Build one model and save it with its processor.

    Returns:
        Number of its parameters.
    """
    default = TEACHER if args.kind == "teacher" else STUDENT
    sizes = Sizes(
        args.vision_width or default.vision_width,
        args.vision_layers or default.vision_layers,
        args.text_width or default.text_width,
        args.text_layers or default.text_layers,
    )
    build = build_teacher if args.kind == "teacher" else build_student
    torch.manual_seed(
        args.seed
    )  # class embedding and line break of the image are vectors, drawn where the model is made
    texts = list(training_texts(load_questions(args.data, "train")))
    model, processor = build(texts, sizes, seed=args.seed)
    model.save_pretrained(args.output_dir)
    processor.save_pretrained(args.output_dir)
    print(f"{type(model).__name__}, {model.num_parameters():,} parameters: {args.output_dir}")
    return model.num_parameters()


if __name__ == "__main__":
    command()
