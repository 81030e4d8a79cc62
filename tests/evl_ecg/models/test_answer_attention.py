"""What the answer attends to: the host's own attention matrices, averaged, and an error where there are none."""

import pytest
import torch

from hf_evl_ecg.models.answer_attention import answer_attention, attend_eagerly
from hf_evl_ecg.models.features import FeatureRequest, extract_features
from hf_evl_ecg.models.native import UnsupportedModelError
from hf_evl_ecg.models.patch_positions import patch_boxes

ASK = FeatureRequest(logits=False, visual_weights="teacher_attention")


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", ["llava_next", "qwen2_vl", "qwen3_vl"])
def test_weights_are_the_last_layers_attention_of_the_answer(tiny_vlm, hand_made_inputs, name, side):
    """By hand from ``output_attentions``: mean over heads, then over the states that predict the answer."""
    model = tiny_vlm(name).load()
    attend_eagerly(model)
    inputs, labels = hand_made_inputs(name, model, side=side)
    with torch.no_grad():
        weights = extract_features(model, inputs, labels, ASK).visual_weights
        assert not model.get_decoder().layers[-1].self_attn._forward_hooks
        last = model(**inputs, output_attentions=True).attentions[-1]
    image = inputs["input_ids"] == model.config.image_token_id
    boxes = patch_boxes(model, inputs, image)
    for row in range(2):
        predicts = (labels[row] != -100).nonzero().flatten() - 1
        expected = last[row].mean(0)[predicts].mean(0)[image[row]]
        expected = torch.where(boxes[row, :, 2:].prod(1) > 0, expected, 0)  # newlines show nothing
        torch.testing.assert_close(weights[row], expected)
    assert weights.std() > 1e-4


def test_an_attention_that_is_never_computed_cannot_be_read(tiny_vlm, hand_made_inputs):
    model = tiny_vlm("llava_next").load()
    inputs, labels = hand_made_inputs("llava_next", model)
    with pytest.raises(UnsupportedModelError, match=r"'sdpa', which gives no attention; .*'teacher_contrast'"):
        extract_features(model, inputs, labels, ASK)
    assert not model.get_decoder().layers[-1].self_attn._forward_hooks
    del model.get_decoder().layers[-1].self_attn
    with (
        pytest.raises(UnsupportedModelError, match="no self_attn"),
        answer_attention(model, labels, labels > 0),
    ):
        pass


def test_eager_attention_changes_neither_features_nor_the_tower(tiny_vlm, hand_made_inputs):
    model = tiny_vlm("llava_next").load()
    inputs, labels = hand_made_inputs("llava_next", model)
    with torch.no_grad():
        before = extract_features(model, inputs, labels, FeatureRequest(logits=False))
        attend_eagerly(model)
        after = extract_features(model, inputs, labels, ASK)
    torch.testing.assert_close(after.hidden[after.mask], before.hidden[before.mask], rtol=1e-4, atol=1e-5)
    assert model.get_encoder(modality="image").config._attn_implementation == "sdpa"


def test_without_answers_there_is_nothing_to_attend(tiny_vlm, hand_made_inputs):
    model = tiny_vlm("qwen2_vl").load()
    attend_eagerly(model)
    inputs, _ = hand_made_inputs("qwen2_vl", model)
    with torch.no_grad():
        assert extract_features(model, inputs, None, ASK).visual_weights.eq(0).all()
