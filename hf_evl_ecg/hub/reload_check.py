"""Run a saved model in a new process that has `transformers` but not this package, and compare what it computes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

__all__ = ["ReloadError", "relative_difference", "reload_logits"]

# What a user writes, and nothing else: plain Auto classes, no trust_remote_code. In a new process, because this one has imported
# this package, which registers nothing today but might, and would then hide that the folder needs it.
_SCRIPT = """
import sys

BLOCKED = ("hf_evl_ecg", "hf_mic")

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Block())
folder, inputs, outputs, device, text = sys.argv[1:6]
open(folder + "/config.json").close()

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained(folder).to(device).eval()
tensors = load_file(inputs)
processed = {}
if text:
    processor = AutoProcessor.from_pretrained(folder)
    pixels = tensors.pop("image").numpy()
    from PIL import Image
    content = [{"type": "image"}, {"type": "text", "text": text}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    processed = dict(processor(text=[prompt], images=[[Image.fromarray(pixels)]], return_tensors="pt"))
tensors = tensors or processed
moved = {n: t.to(device, model.dtype if t.is_floating_point() else None) for n, t in tensors.items()}
with torch.no_grad():
    logits = model(**moved).logits.float().cpu()
assert not any(name.split(".")[0] in BLOCKED for name in sys.modules)
processed = {"processed." + n: t.clone(memory_format=torch.contiguous_format) for n, t in processed.items()}
save_file({"logits": logits.contiguous(), "input_ids": tensors["input_ids"], **processed}, outputs)
"""


class ReloadError(RuntimeError):
    """A saved model that does not load in a new process, or computes something else there."""


def reload_logits(
    folder: str | Path,
    inputs: Mapping[str, Tensor],
    *,
    question: str | None = None,
    device: str = "cpu",
    timeout_s: float = 1800,
) -> dict[str, Tensor]:
    """Load a folder with plain Auto classes in a new process and return its logits on a fixed input.

    Args:
        folder: The saved model.
        inputs: Model inputs; with a question also ``"image"``, uint8, of shape (height, width, 3).
        question: Ask this about the image through the folder's own processor and chat template. The model then reads the given
            inputs, or, with the image alone, what the processor has made.
        device: Where to run it.
        timeout_s: Longest time.

    Returns:
        ``"logits"``, float32, and ``"input_ids"``, which the model has read; with a question what the processor has made under
        ``"processed.NAME"``.

    Raises:
        ReloadError: The process failed; the text ends with what it printed last.
    """
    with tempfile.TemporaryDirectory() as scratch:
        given, found = Path(scratch, "inputs.safetensors"), Path(scratch, "outputs.safetensors")
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in inputs.items()}, given)
        command = [
            sys.executable,
            "-P",  # or a checkout in the working directory would be imported
            "-c",
            _SCRIPT,
            str(Path(folder).resolve()),
            str(given),
            str(found),
            device,
            question or "",
        ]
        # Offline, so that what the folder lacks cannot come from elsewhere; as many threads as here, so that sums round alike.
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(torch.get_num_threads())}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=timeout_s, env=environment, cwd=scratch, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise ReloadError(
                f"timeout_s={timeout_s:g}: {folder} was not loaded within that time; give more if the model is large"
            ) from error
        if done.returncode or not found.is_file():
            raise ReloadError(f"{folder} does not load in a new process:\n{done.stderr.strip()[-2000:]}")
        return load_file(found)


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected value; infinite where shapes differ or a value is not finite.

    Example:
        >>> relative_difference(torch.tensor([1.0, 2.5]), torch.tensor([1.0, 2.0]))
        0.25
    """
    if found.shape != expected.shape or not (torch.isfinite(found) & torch.isfinite(expected)).all():
        return float("inf")
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30))
