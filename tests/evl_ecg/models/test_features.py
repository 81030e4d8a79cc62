"""Features read from the five architectures equal what the models themselves compute."""

import pytest
import torch

from hf_evl_ecg.distillation.cross_entropy import answer_cross_entropy
from hf_evl_ecg.models.features import LOGITS_PER_SAMPLE, FeatureRequest, extract_features
from hf_evl_ecg.tokens import PADDING_PLACE

NAMES = ["llava_next", "idefics3", "qwen2_vl", "qwen3_vl", "internvl"]


@pytest.fixture(params=NAMES)
def case(request, tiny_vlm):
    return request.param, tiny_vlm(request.param).load()


@pytest.fixture
def make_inputs(hand_made_inputs):
    return hand_made_inputs


def test_cross_entropy_and_logits_are_the_models_own(case, make_inputs):
    name, model = case
    inputs, labels = make_inputs(name, model)
    features = extract_features(model, inputs, labels)
    reference = model(**inputs, labels=labels)
    torch.testing.assert_close(answer_cross_entropy(features), reference.loss)
    assert features.answer_logits.shape[:2] == (2, 5)
    for i in range(2):
        at = (labels[i] != -100).nonzero().flatten()
        torch.testing.assert_close(features.answer_logits[i, : len(at)], reference.logits[i, at - 1])
        assert features.answer_ids[i, : len(at)].tolist() == labels[i, at].tolist()
        assert features.answer_index[i, : len(at)].tolist() == (at - 1).tolist()
    assert features.answer_mask.sum(1).tolist() == [5, 2]
    assert features.answer_ids[1, 2:].eq(-100).all()
    assert features.answer_index[1, 2:].eq(-1).all()


@pytest.mark.parametrize("side", ["right", "left"])
def test_embeddings_of_answers_and_of_what_is_read_before_them(case, make_inputs, side):
    name, model = case
    inputs, labels = make_inputs(name, model, side=side, extra_padding=2)
    features = extract_features(model, inputs, labels, FeatureRequest(embeddings=True))
    table = model.get_input_embeddings()
    for i in range(2):
        at = (labels[i] != -100).nonzero().flatten()
        torch.testing.assert_close(features.answer_read[i, : len(at)], table(inputs["input_ids"][i, at - 1]).detach())
        torch.testing.assert_close(features.answer_wanted[i, : len(at)], table(labels[i, at]).detach())
    for found in (features.answer_read, features.answer_wanted):
        assert not found.requires_grad
        assert (found[~features.answer_mask] == 0).all()
    assert extract_features(model, inputs, labels).answer_read is None


def test_older_hosts_that_keep_positions_for_the_whole_batch(case, make_inputs, monkeypatch):
    name, model = case
    inputs, labels = make_inputs(name, model)
    expected = extract_features(model, inputs, labels).answer_logits
    monkeypatch.setattr("hf_evl_ecg.models.features.LOGITS_PER_SAMPLE", False)
    torch.testing.assert_close(extract_features(model, inputs, labels).answer_logits, expected)


def test_taps_are_the_projector_and_the_hidden_states(case, make_inputs):
    name, model = case
    inputs, labels = make_inputs(name, model)
    output = model(**inputs, output_hidden_states=True)
    images = model.get_image_features(
        **{k: v for k, v in inputs.items() if k.startswith(("pixel", "image"))}, return_dict=True
    ).pooler_output
    projected = torch.cat(list(images)).reshape(2, make_inputs.image_tokens[name], -1)
    for layer in (-1, 0, 1):
        features = extract_features(model, inputs, labels, FeatureRequest(layer=layer))
        torch.testing.assert_close(features.hidden, output.hidden_states[layer])
        torch.testing.assert_close(features.visual, projected)
    assert features.visual_mask.all()
    assert features.mask.sum(1).tolist() == inputs["attention_mask"].sum(1).tolist()
    assert projected.std() > 0.01, "the images must matter"


@pytest.mark.parametrize("tokens", ["visual", "answer"])
def test_scopes(case, tokens, make_inputs):
    name, model = case
    inputs, labels = make_inputs(name, model)
    every = extract_features(model, inputs, labels)
    numbered = torch.arange(2 * inputs["input_ids"].numel()).view(*inputs["input_ids"].shape, 2)
    part = extract_features(model, inputs, labels, FeatureRequest(tokens=tokens, places=True), places=numbered)
    for i in range(2):
        if tokens == "visual":
            at = (inputs["input_ids"][i] == model.config.image_token_id).nonzero().flatten()
            assert part.answer_index.eq(-1).all()
        else:
            at = (labels[i] != -100).nonzero().flatten() - 1
            assert part.answer_index[i, : len(at)].tolist() == list(range(len(at)))
        assert part.mask[i].sum() == len(at)
        torch.testing.assert_close(part.hidden[i][part.mask[i]], every.hidden[i, at])
        assert part.places[i][part.mask[i]].tolist() == numbered[i, at].tolist()
        assert part.places[i][~part.mask[i]].eq(PADDING_PLACE).all()


def test_padding_changes_nothing(case, make_inputs):
    name, model = case
    tight = extract_features(model, *make_inputs(name, model))
    for side, extra in (("left", 0), ("right", 5), ("left", 5)):
        other = extract_features(model, *make_inputs(name, model, side=side, extra_padding=extra))
        torch.testing.assert_close(other.answer_logits[tight.answer_mask], tight.answer_logits[tight.answer_mask])
        torch.testing.assert_close(other.visual, tight.visual)
        for i in range(2):
            torch.testing.assert_close(
                other.hidden[i][other.mask[i]], tight.hidden[i][tight.mask[i]], rtol=1e-4, atol=1e-5
            )


def test_no_hook_stays_and_the_head_sees_answers_only(case, make_inputs):
    name, model = case
    inputs, labels = make_inputs(name, model)
    seen = []
    handle = model.get_output_embeddings().register_forward_hook(lambda _m, args, _o: seen.append(args[0].shape[:2]))
    extract_features(model, inputs, labels)
    extract_features(model, inputs, labels, FeatureRequest(logits=False))
    handle.remove()
    # An older host computes each position that any sample needs for every sample.
    assert seen == ([(2, 5), (2, 1)] if LOGITS_PER_SAMPLE else [(2, 6), (2, 2)])
    assert not model.get_decoder()._forward_hooks
    assert not model.get_decoder()._forward_pre_hooks


def test_gradient_reaches_the_vision_tower_through_the_visual_tokens(case, make_inputs):
    name, model = case
    features = extract_features(model, *make_inputs(name, model), FeatureRequest(logits=False))
    features.visual.square().sum().backward()
    tower = model.get_encoder(modality="image")
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in tower.parameters())


def test_without_labels_there_is_one_empty_answer_column(tiny_vlm, make_inputs):
    model = tiny_vlm("idefics3").load()
    inputs, _ = make_inputs("idefics3", model)
    features = extract_features(model, inputs, None)
    assert features.answer_mask.shape == (2, 1)
    assert not features.answer_mask.any()
    assert answer_cross_entropy(features).item() == 0.0


def test_what_is_refused(tiny_vlm, make_inputs):
    model = tiny_vlm("idefics3").load()
    inputs, labels = make_inputs("idefics3", model)
    with pytest.raises(ValueError, match=r"layer 7 does not exist.* choose -3 … 2"):
        extract_features(model, inputs, labels, FeatureRequest(layer=7))
    with pytest.raises(ValueError, match="tokens='text': allowed are 'all', 'visual', 'answer'"):
        FeatureRequest(tokens="text")
    with pytest.raises(ValueError, match="places=None: they are asked for"):
        extract_features(model, inputs, labels, FeatureRequest(places=True))
    with pytest.raises(ValueError, match="at least 1"):
        FeatureRequest(visual_pool=0)
    with pytest.raises(ValueError, match="no answer logits"):
        answer_cross_entropy(extract_features(model, inputs, labels, FeatureRequest(logits=False)))
