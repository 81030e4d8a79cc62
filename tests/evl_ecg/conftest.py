"""Tiny vision-language models and what they are asked about."""

import numpy as np
import pytest
import torch
from PIL import Image
from written_records import write_normal

from hf_evl_ecg import ECGInterpreter, RenderConfig
from hf_evl_ecg.signals.simulation import simulate


@pytest.fixture(scope="session")
def ecg_examples():
    """Six question-answer pairs on small synthetic images that differ, so that a model can tell them apart."""
    answers = ["sinus rhythm", "atrial fibrillation", "left bundle branch block", "yes", "no", "right axis"]
    examples = []
    for i, answer in enumerate(answers):
        generator = np.random.default_rng(i)
        pixels = generator.integers(0, 255, (40, 56, 3), dtype=np.uint8)
        examples.append(
            {"id": f"r{i}", "image": Image.fromarray(pixels), "question": "What is the rhythm?", "answer": answer}
        )
    return examples


IMAGE_TOKENS = {"llava_next": 14, "idefics3": 8, "qwen2_vl": 4, "qwen3_vl": 4, "internvl": 8}


def image_inputs(name: str, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Tensors as each processor makes them, for two images of IMAGE_TOKENS[name] tokens each."""

    def pixels(*shape):
        return torch.randn(*shape, generator=generator)

    if name == "llava_next":
        return {"pixel_values": pixels(2, 5, 3, 28, 28), "image_sizes": torch.tensor([[40, 56], [40, 56]])}
    if name == "idefics3":
        return {"pixel_values": pixels(2, 2, 3, 16, 16), "pixel_attention_mask": torch.ones(2, 2, 16, 16).long()}
    if name == "internvl":
        return {"pixel_values": pixels(4, 3, 16, 16)}
    return {"pixel_values": pixels(32, 3 * 2 * 4 * 4), "image_grid_thw": torch.tensor([[1, 4, 4], [1, 4, 4]])}


def make_inputs(name: str, model, *, side: str = "right", extra_padding: int = 0, seed: int = 0):
    """Two prompts of different lengths with an answer each: model inputs and labels."""
    generator = torch.Generator().manual_seed(seed)
    token, count = model.config.image_token_id, IMAGE_TOKENS[name]
    rows, targets = [], []
    for before, after, answer in ((3, 4, 5), (2, 6, 2)):
        text = torch.randint(60, 300, (before + after + answer,), generator=generator)
        row = torch.cat([text[:before], torch.full((count,), token), text[before:]])
        labels = torch.full_like(row, -100)
        labels[-answer:] = row[-answer:]
        rows.append(row)
        targets.append(labels)
    width = max(map(len, rows)) + extra_padding

    def pad(tensors, value):
        return torch.stack(
            [
                torch.nn.functional.pad(t, (width - len(t), 0) if side == "left" else (0, width - len(t)), value=value)
                for t in tensors
            ]
        )

    inputs = {
        "input_ids": pad(rows, 1),
        "attention_mask": pad([torch.ones_like(row) for row in rows], 0),
        **image_inputs(name, generator),
    }
    if name.startswith("qwen"):
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == token).int()
    return inputs, pad(targets, -100)


@pytest.fixture(scope="session")
def hand_made_inputs():
    """`make_inputs` of this file, with the number of image tokens per image as ``image_tokens``."""
    make_inputs.image_tokens = IMAGE_TOKENS
    return make_inputs


@pytest.fixture(scope="session")
def ecg_records(tmp_path_factory, save_record):
    """Two simulated records on disk; the comments of the first are hostile and personal."""
    folder = tmp_path_factory.mktemp("records")
    comments = ["<script>alert(1)</script>", "<age>: 51", "<sex>: F", "Name: Jane Doe"]
    return [
        save_record(folder, "af", simulate("AF", seed=0), comments),
        save_record(folder, "lbbb", simulate("LBBB", seed=1)),
    ]


@pytest.fixture(scope="session")
def ecg_student(tmp_path_factory, tiny_vlm):
    """Folder as an export leaves it, with settings in its config."""
    tiny = tiny_vlm("idefics3")
    model = talkative(tiny.load())
    model.config.update(
        {
            "evl_ecg": {
                "method": "EVL-ECG",
                "teacher": "<script>alert(1)</script>",
                "images": {"image_width": 440, "image_height": 340, "grid": "thick", "paper": "grey", "augment": 0.5},
                "labels": ["AF", "LBBB"],
                "temperatures": {"rhythm_closed": 2.0},
            }
        }
    )
    model.generation_config.update(
        eos_token_id=tiny.processor.tokenizer.eos_token_id, pad_token_id=tiny.processor.tokenizer.pad_token_id
    )
    folder = tmp_path_factory.mktemp("exported") / "student"
    model.save_pretrained(folder)
    tiny.processor.save_pretrained(folder)
    return folder


def talkative(model):
    """Louder positions and image features, so that a tiny model does not repeat one token whatever it sees."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and ("self_attn" in name or "mlp" in name):
                parameter.normal_(0, 2.0 / parameter.shape[-1] ** 0.5, generator=generator)
    return model


@pytest.fixture(scope="session", params=["llava_next", "idefics3"])
def interpreter(request, tiny_vlm):
    """An `ECGInterpreter` around a tiny model, once per architecture with a processor."""
    tiny = tiny_vlm(request.param)
    return ECGInterpreter(talkative(tiny.load()), tiny.processor, render=RenderConfig(width_px=440, height_px=340))


@pytest.fixture
def folder(tmp_path):
    """Six records of four patients, one of them cut short."""
    root = tmp_path / "mine"
    lines = ["record,patient,labels,heart_rate,sex,report"]
    for i in range(6):
        write_normal(root / f"r{i}", seed=i)
        lines.append(f"r{i},p{i // 2},{'AF|LVH' if i % 2 else 'SR; AXN'},{60 + i},{'mf'[i % 2]},text {i}")
    cut = root / "r3.dat"
    cut.write_bytes(cut.read_bytes()[:-100])
    (root / "records.csv").write_text("\n".join(lines))
    return root
