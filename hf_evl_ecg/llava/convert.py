r"""LLaVA-layout checkpoints (``llava_llama``, such as PULSE-7B) → `LlavaNextForConditionalGeneration`.

``hf-evl-ecg convert SOURCE DESTINATION`` does it on the command line. Weights are read and written tensor by tensor, so memory
stays at about one shard; their type is kept. `hf_evl_ecg.models.load_model` loads the result with the packing of image tokens that
the source was trained with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from torch import Tensor
from transformers import (
    AddedToken,
    AutoTokenizer,
    CLIPVisionConfig,
    GenerationConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
)
from transformers.utils import is_protobuf_available, is_sentencepiece_available

from hf_evl_ecg.files import new_folder
from hf_evl_ecg.models.loading import check_folder
from hf_evl_ecg.models.weights import ShardWriter, iterate_tensors

from .layout import (
    COMPUTED_BUFFERS,
    IMAGE_TOKEN,
    PAD_TOKEN,
    CheckpointKeyError,
    line_behind_image,
    native_config,
    native_key,
    read_settings,
    vicuna_template,
)

__all__ = ["convert_llava"]

_SETTINGS = ("*.json", "*.model", "*.txt")
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def convert_llava(
    source: str | Path,
    destination: str | Path,
    *,
    vision_tower: str | Path | None = None,
    max_shard_bytes: int = 4 * 10**9,
) -> Path:
    """Convert a checkpoint; the destination appears only when it is complete.

    Args:
        source: Folder or Hub name of the checkpoint.
        destination: New folder.
        vision_tower: Folder or Hub name of the vision tower, for its configuration and for weights that the source lacks;
            None: what the source names (``mm_vision_tower``, CLIP ViT-L/14-336 for PULSE-7B).
        max_shard_bytes: Largest file of weights.

    Returns:
        The destination.

    Raises:
        CheckpointKeyError: Weights that are unknown, missing or of another shape, all named.
        ValueError: The destination exists, the source is of another layout, or a library that reads its tokenizer is missing.

    The command ``hf-evl-ecg convert PULSE-ECG/PULSE-7B pulse-7b`` does the same.
    """
    destination = Path(destination)
    if destination.exists():
        raise ValueError(f"{destination} exists; choose a new folder or remove it")
    settings = read_settings(_folder(source, _SETTINGS))  # what can be refused is, before the weights are fetched
    vision = vision_tower or settings["mm_vision_tower"]
    tokenizer = read_tokenizer(_folder(source, _SETTINGS), settings["vocab_size"])
    config = native_config(settings, CLIPVisionConfig.from_pretrained(_folder(vision, _SETTINGS)), tokenizer)
    with new_folder(destination) as temporary:
        write_weights(_folder(source), vision, config, temporary, max_shard_bytes)
        config.save_pretrained(temporary)
        _processor(config, tokenizer).save_pretrained(temporary)
        GenerationConfig(
            do_sample=False,
            max_new_tokens=1024,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ).save_pretrained(temporary)
    return destination


def write_weights(source: Path, vision: str | Path, config: Any, folder: Path, max_shard_bytes: int) -> None:
    """Rename, enlarge and check every weight on its way from source to folder.

    Raises:
        CheckpointKeyError: Weights that are unknown, missing or of another shape, all named.
    """
    with torch.device("meta"):  # names and shapes without memory for the weights
        needed = {n: p.shape for n, p in LlavaNextForConditionalGeneration(config).state_dict().items()}
    if config.tie_word_embeddings:
        needed.pop("lm_head.weight")
    writer = ShardWriter(folder, max_shard_bytes)
    written: set[str] = set()
    problems: list[str] = []

    def write(pairs: Iterator[tuple[str, Tensor]], origin: Path) -> None:
        for name, tensor in pairs:
            if name in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
                tensor = add_mean_rows(tensor, config.text_config.vocab_size)
            if name not in needed or needed[name] != tensor.shape:
                problems.append(f"{name} {tuple(tensor.shape)} in {origin}, needed {tuple(needed.get(name, ()))}")
            else:
                writer.add(name, tensor)
                written.add(name)

    write(_source_weights(source, problems), source)
    if any(name not in written for name in needed if name.startswith("model.vision_tower.")):
        dtype = getattr(torch, str(config.dtype).removeprefix("torch."))
        tower = _folder(vision)
        write(((n, t.to(dtype)) for n, t in _vision_weights(tower) if n not in written), tower)
    problems += [f"{name} is missing" for name in sorted(set(needed) - written)]
    if problems:
        raise CheckpointKeyError(f"{source} does not fit {config.architectures}: {'; '.join(problems)}")
    writer.close()


def add_mean_rows(weight: Tensor, rows: int) -> Tensor:
    """Append rows that are the mean of the others: as outputs they never have the highest score.

    Example:
        >>> add_mean_rows(torch.tensor([[1.0], [3.0]]), 3)
        tensor([[1.],
                [3.],
                [2.]])
    """
    mean = weight.float().mean(0, keepdim=True).to(weight.dtype)  # in float32: a sum over a vocabulary of rows
    return torch.cat([weight, mean.expand(rows - len(weight), -1)])


def _folder(name: str | Path, patterns: Sequence[str] = (*_SETTINGS, *_WEIGHTS)) -> Path:
    """A local folder as it is, or a download from the Hub without what is not needed."""
    check_folder(name)
    if Path(name).is_dir():
        return Path(name)
    return Path(snapshot_download(str(name), allow_patterns=list(patterns)))


def read_tokenizer(folder: Path, rows: int) -> Any:
    """Read a checkpoint's tokenizer, also from ``tokenizer.model`` alone, and add the tokens of image and padding.

    Args:
        folder: Folder of the checkpoint.
        rows: Rows of the model's embedding.

    Raises:
        ValueError: A library is missing, or the tokenizer has another number of tokens.
    """
    if (folder / "tokenizer.model").is_file() and not (folder / "tokenizer.json").is_file():
        # transformers would take it for a file of tiktoken, and ask for that
        there = {"sentencepiece": is_sentencepiece_available(), "protobuf": is_protobuf_available()}
        if missing := [name for name, found in there.items() if not found]:
            raise ValueError(
                f"{folder / 'tokenizer.model'}: is read with {' and '.join(there)}; missing: {', '.join(missing)} (pip install "
                f"{' '.join(missing)}, or the extra ecg)"
            )
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if len(tokenizer) != rows:
        raise ValueError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, the model {rows} rows; they must be equal"
        )
    tokenizer.add_tokens([AddedToken(IMAGE_TOKEN, special=True, normalized=False)], special_tokens=True)
    tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    return tokenizer


def _processor(config: Any, tokenizer: Any) -> LlavaNextProcessor:
    edge = config.vision_config.image_size
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": edge},
        crop_size={"height": edge, "width": edge},
        image_grid_pinpoints=config.image_grid_pinpoints,
    )
    return LlavaNextProcessor(
        images,
        tokenizer,
        patch_size=config.vision_config.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        chat_template=vicuna_template(line_behind_image(tokenizer)),
        num_additional_image_tokens=1,
    )


def _source_weights(folder: Path, problems: list[str]) -> Iterator[tuple[str, Tensor]]:
    for key, tensor in iterate_tensors(folder):
        try:
            name = native_key(key)
        except CheckpointKeyError as error:
            problems.append(str(error))
            continue
        if name is not None:
            yield name, tensor


def _vision_weights(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Weights of a CLIP checkpoint's vision tower, whole models and towers alone alike."""
    for key, tensor in iterate_tensors(folder):
        name = key.removeprefix("vision_model.")
        towers = ("embeddings.", "encoder.", "pre_layrnorm.", "post_layernorm.")
        if name.startswith(towers) and not key.endswith(COMPUTED_BUFFERS):
            yield f"model.vision_tower.{name}", tensor
