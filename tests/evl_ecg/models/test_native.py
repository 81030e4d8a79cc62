"""The model inside a wrapper, its image token, its inputs where it is, and its mode."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from hf_evl_ecg.models.native import UnsupportedModelError, base_model, eval_mode, image_token_id, move_batch


def test_the_model_inside_adapters(tiny_vlm):
    model = tiny_vlm("idefics3").load()
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))
    assert base_model(model) is model
    assert base_model(wrapped) is model
    assert image_token_id(wrapped) == model.config.image_token_id


def test_what_is_refused(tiny_vlm):
    with pytest.raises(UnsupportedModelError, match="no image_token_id"):
        image_token_id(tiny_vlm("idefics3").load().model.text_model)
    with pytest.raises(UnsupportedModelError, match="AutoModelForImageTextToText"):
        base_model(torch.nn.Linear(2, 2))


def test_pixels_take_the_type_of_the_model_and_ids_their_own(tiny_vlm):
    model = tiny_vlm("idefics3").load().bfloat16()
    batch = {
        "pixel_values": torch.rand(1, 2),
        "input_ids": torch.tensor([[1, 2]]),
        "keys": ["a"],
        "mask": torch.ones(1, 2).bool(),
    }
    moved = move_batch(batch, model)
    assert {name: value.dtype for name, value in moved.items() if name != "keys"} == {
        "pixel_values": torch.bfloat16,
        "input_ids": torch.int64,
        "mask": torch.bool,
    }
    assert moved["keys"] == ["a"]
    assert batch["pixel_values"].dtype == torch.float32, "the batch itself stays as it is"


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_comes_back_also_after_an_error(training):
    model = torch.nn.Dropout().train(training)

    def fail():
        with eval_mode(model):
            assert not model.training
            raise RuntimeError("within")

    with pytest.raises(RuntimeError, match="within"):
        fail()
    assert model.training == training
