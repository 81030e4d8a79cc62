"""A trained student → a folder that loads anywhere with `from_pretrained`: merged, stripped, checked in a new process."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_evl_ecg.chat.conversations import Turn, chat_messages, special_tokens
from hf_evl_ecg.files import new_folder
from hf_evl_ecg.inference.likelihood import answer_token_ids
from hf_evl_ecg.models.flat_tiles import is_flat
from hf_evl_ecg.models.loading import PROVENANCE_KEY, check_folder, check_model, load_network, load_processor
from hf_evl_ecg.models.native import UnsupportedModelError, base_model, eval_mode, move_batch
from hf_evl_ecg.qa.prompts import RHYTHM_QUESTION

from .reload_check import ReloadError, relative_difference, reload_logits

__all__ = ["ExportReport", "check_input", "export_student", "load_student", "model_logits"]

_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}  # these run code when they are loaded
# Shares of the largest logit. A new process may add in another order, which rounds at 1e-7 (half precision: 4e-4); a merged adapter
# rounds in every layer.
_SAME = {torch.float32: 1e-5, torch.float64: 1e-5}
_MERGED = {torch.float32: 1e-3, torch.float64: 1e-3}
_SAME_HALF, _MERGED_HALF = 1e-3, 5e-2
_GREY_LEVELS = 4  # image backends round by one or two


@dataclass(frozen=True)
class ExportReport:
    """What an export contains and how it was checked.

    Attributes:
        folder: The exported folder.
        parameters: Parameters of the student.
        dropped: Weights of the given model that are not the student's.
        reload_difference: Largest difference of logits between this process and the new one, over the largest logit.
        merge_difference: The same between the model with adapters and the merged one; 0 without adapters.
        pixel_difference: Largest difference of the picture's pixels between the given processor and the one that the new process
            loads, in grey levels: another image backend (torchvision, Pillow) resizes a little otherwise.
    """

    folder: Path
    parameters: int
    dropped: tuple[str, ...]
    reload_difference: float
    merge_difference: float
    pixel_difference: float = 0.0


def export_student(
    model: nn.Module | str | Path,
    output_dir: str | Path,
    *,
    processor: Any = None,
    provenance: Mapping[str, Any] | None = None,
    check_inputs: Mapping[str, Tensor] | None = None,
) -> ExportReport:
    """Write a student as a native checkpoint, and prove that it loads without this package and computes the same.

    LoRA adapters are merged (in float32, on a copy), weights that the native architecture does not know are left out,
    weights are safetensors and nothing is pickled. The generation settings become greedy and stop at the end of a turn.
    The folder is written under another name, loaded by ``AutoModelForImageTextToText`` and ``AutoProcessor`` in a new
    process that cannot import this package, and takes its name only if the logits agree.

    Args:
        model: The student, a PEFT model around it, or a checkpoint folder of either.
        output_dir: New folder.
        processor: Its processor, or a tokenizer alone if `check_inputs` are given; None: from the checkpoint folder.
        provenance: What is worth knowing (teacher, data, method, commit, results); json under "evl_ecg" in ``config.json``.
        check_inputs: Model inputs to compare logits on, instead of a picture and a question through the processor.

    Raises:
        ReloadError: The export does not load, or computes something else.
        UnsupportedModelError: The model is no native architecture of transformers, or packs its image tokens otherwise.
        ValueError: The folder exists, there is no processor or chat template, or the provenance is no json.

    See docs/distil.md for a run.
    """
    output = Path(output_dir)
    if output.exists():
        raise ValueError(f"output_dir={output}: it exists; choose a new folder or remove it")
    text = _provenance_text(provenance or {})
    if not isinstance(model, nn.Module):
        folder, model = model, load_student(model)
        processor = load_processor(folder) if processor is None else processor
    _check_processor(processor, check_inputs)
    tensors, question = check_input(processor, check_inputs)
    student = _native_copy(model)
    before, after = model_logits(model, tensors), model_logits(student, tensors)
    merged = relative_difference(after, before)
    if merged > _MERGED.get(student.dtype, _MERGED_HALF):
        raise ReloadError(
            f"Merging the adapters changes logits by {merged:.2g} of the largest{_tied_cause(model)}; nothing was exported."
        )
    native = _native_names(student)
    state = {name: tensor for name, tensor in student.state_dict().items() if name in native}
    dropped = tuple(sorted(set(student.state_dict()) - set(state)))
    student.config.update({PROVENANCE_KEY: json.loads(text)})
    _set_generation(student, processor)
    with new_folder(output) as temporary:
        student.save_pretrained(temporary, state_dict=state)
        processor.save_pretrained(temporary)
        found = _reload(temporary, tensors, question, student)
        grey = _pixel_difference(found, tensors) if question else 0.0
        same = relative_difference(found["logits"], after)
        if same > _SAME.get(student.dtype, _SAME_HALF):
            raise ReloadError(
                f"Reloaded in a new process, logits differ by {same:.2g} of the largest; nothing was exported."
            )
        _refuse_pickles(temporary)
    return ExportReport(output, sum(p.numel() for p in student.parameters()), dropped, same, merged, grey)


def load_student(folder: str | Path) -> nn.Module:
    """Load a checkpoint of `EVLECGTrainer`: a whole model, or adapters with the base model they name.

    Raises:
        ModelLoadError: There is no such folder.
        UnsupportedModelError: Its model takes no images.
        ValueError: The folder holds neither.
    """
    folder = Path(folder)
    check_folder(folder)
    if (folder / "adapter_config.json").is_file():
        from peft import PeftConfig, PeftModel

        base = PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
        if not base:
            raise ValueError(
                f"folder={folder}: its adapter_config.json names no base model; load the model and give it itself"
            )
        return PeftModel.from_pretrained(load_network(base), str(folder))
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"folder={folder}: it holds neither config.json nor adapter_config.json; give a checkpoint folder"
        )
    check_model(folder)
    return load_network(folder)


def _native_copy(model: nn.Module) -> PreTrainedModel:
    """The student without adapters, as a copy in its own type, in eval mode."""
    inner = base_model(model)
    if is_flat(inner.config):
        raise UnsupportedModelError(
            "mm_patch_merge_type='flat': from_pretrained packs image tokens as 'spatial_unpad' and knows no other way, so the "
            "exported student would see other tokens than it was trained on; distil into another student (Qwen2-VL, SmolVLM …)"
        )
    if not type(inner).__module__.startswith("transformers."):
        raise UnsupportedModelError(
            f"{type(inner).__module__}.{type(inner).__name__} is no class of transformers, so it would not load without "
            "its own code; distil into a native architecture"
        )
    copied = copy.deepcopy(model)
    if inner is not model:
        types = {name.replace(".base_layer.", "."): p.dtype for name, p in inner.named_parameters()}
        # In float32: the update of an adapter is small, and half precision would round most of it away.
        copied = copied.float().merge_and_unload()  # type: ignore[operator]
        for name, parameter in copied.named_parameters():
            parameter.data = parameter.data.to(types.get(name, inner.dtype))
    assert isinstance(copied, PreTrainedModel)
    return copied.eval()


def _tied_cause(model: nn.Module) -> str:
    """Why merging changes logits, if adapters sit on a weight that is also the input embedding's."""
    tied = base_model(model).config.get_text_config().tie_word_embeddings
    names = {name.split(".")[-1] for name in getattr(model, "targeted_module_names", ())} & {"lm_head", "embed_tokens"}
    if not tied or not names:
        return ""
    return (
        f": adapters of {' and '.join(sorted(names))} are merged into a weight that input and output embeddings share "
        "(tie_word_embeddings), so both change; train without them, or with LoraConfig(ensure_weight_tying=True) or "
        "modules_to_save=['lm_head']"
    )


def _native_names(student: PreTrainedModel) -> set[str]:
    """Names of the weights of the student's architecture as its configuration describes it."""
    config = copy.deepcopy(student.config)  # models write into the configuration they are made from
    with torch.device("meta"):
        return set(type(student)(config).state_dict())


def _set_generation(student: PreTrainedModel, processor: Any) -> None:
    """Greedy, stopping at the tokenizer's end of sequence and at the end of a turn of the chat template."""
    tokenizer = processor if isinstance(processor, PreTrainedTokenizerBase) else processor.tokenizer
    stops: set[Any] = {tokenizer.eos_token_id} - {None}
    if tokenizer is not processor:
        last = answer_token_ids(processor, ["yes"])[0][-1]
        special: Any = tokenizer.convert_tokens_to_ids(sorted(special_tokens(tokenizer)))
        stops |= {last} & set(special)  # only a marker may stop an answer: the last token may also be a word's
    settings = student.generation_config
    assert settings is not None
    # The scores of a card are of greedy answers; with the base model's sampling a user would get others.
    settings.update(do_sample=False, temperature=None, top_p=None, top_k=None)
    settings.eos_token_id = sorted(stops)
    settings.pad_token_id = tokenizer.pad_token_id


def _check_processor(processor: Any, check_inputs: Mapping[str, Tensor] | None) -> None:
    if processor is None:
        raise ValueError(
            "processor=None: give the student's processor; only a checkpoint folder can be exported without one"
        )
    if isinstance(processor, PreTrainedTokenizerBase):
        if check_inputs is None:
            raise ValueError(
                "processor: a tokenizer alone cannot prepare a picture; give a whole processor, or check_inputs"
            )
        return
    if not processor.chat_template:
        raise ValueError(
            f"processor: {type(processor).__name__} has no chat template, so nobody could ask the student anything; set one"
        )


def check_input(
    processor: Any, given: Mapping[str, Tensor] | None
) -> tuple[dict[str, Tensor], dict[str, Tensor] | None]:
    """Model inputs to compare logits on: those given, or those of a picture without two patches alike, with that picture."""
    if given is not None:
        return dict(given), None
    # No two patches alike, so that patches in another order give other logits.
    rows, columns = np.mgrid[0:220, 0:280]
    pixels = np.stack([rows % 256, columns % 256, (rows * columns) % 256], -1).astype(np.uint8)
    messages = chat_messages([Turn(RHYTHM_QUESTION, "-")])[:1]
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
    encoded = processor(text=[prompt], images=[[Image.fromarray(pixels)]], return_tensors="pt")
    return dict(encoded), {"image": torch.from_numpy(pixels)}


@torch.no_grad()
def model_logits(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Logits of a model in eval mode, float32 on the CPU."""
    with eval_mode(model):
        return model(**move_batch(inputs, model)).logits.float().cpu()


def _reload(
    folder: Path, inputs: Mapping[str, Tensor], picture: dict[str, Tensor] | None, student: PreTrainedModel
) -> dict[str, Tensor]:
    """What the written folder computes of the same inputs in a new process; its processor must make the same tokens."""
    device = str(student.device)
    if picture is None:
        return reload_logits(folder, inputs, device=device)
    found = reload_logits(folder, {**inputs, **picture}, question=RHYTHM_QUESTION, device=device)
    if not torch.equal(found["processed.input_ids"], inputs["input_ids"]):
        raise ReloadError("Reloaded in a new process, the processor makes other tokens; nothing was exported.")
    return found


def _pixel_difference(found: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> float:
    """Grey levels between the pixels of both processors; the picture holds every level, so their range is that of 255.

    Raises:
        ReloadError: More than the rounding of another image backend.
    """
    grey = 0.0
    for name, mine in inputs.items():
        theirs = found[f"processed.{name}"]
        if not mine.is_floating_point():
            continue
        if mine.shape != theirs.shape:
            raise ReloadError(
                f"Reloaded in a new process, the processor makes {name} of shape {tuple(theirs.shape)} instead of "
                f"{tuple(mine.shape)}; nothing was exported."
            )
        grey = max(grey, float((theirs - mine).abs().max() / (mine.max() - mine.min()).clamp(min=1e-30) * 255))
    if not grey <= _GREY_LEVELS:
        raise ReloadError(
            f"Reloaded in a new process, the processor makes pixels that differ by {grey:.3g} of 255 grey levels, so the student "
            "would see other pictures (weights agree); save the processor that the student was trained with. Nothing was exported."
        )
    return grey


def _provenance_text(provenance: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(provenance), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"provenance: it is no json ({error}); use texts, numbers, lists and dicts") from error


def _refuse_pickles(folder: Path) -> None:
    if found := sorted(path.name for path in folder.rglob("*") if path.suffix in _PICKLES):
        raise ReloadError(f"The export would hold pickled files {found}; nothing was exported.")
