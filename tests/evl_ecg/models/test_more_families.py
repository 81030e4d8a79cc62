"""Other native vision-language models: the same code reads them, without a branch, or says why it cannot."""

import pytest
import torch
import torch.nn.functional as F
from transformers import (
    AyaVisionConfig,
    AyaVisionForConditionalGeneration,
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Idefics2Config,
    Idefics2ForConditionalGeneration,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MllamaConfig,
    MllamaForConditionalGeneration,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

from hf_evl_ecg.distillation.cross_entropy import answer_cross_entropy
from hf_evl_ecg.models.features import FeatureRequest, extract_features
from hf_evl_ecg.models.native import UnsupportedModelError
from hf_evl_ecg.models.patch_positions import UnknownLayoutError, patch_boxes

IMAGE = 300
TEXT = {"vocab_size": 400, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "pad_token_id": 0}
TEXT |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
LAYERS = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
VISION = {**LAYERS, "num_attention_heads": 2, "image_size": 16, "patch_size": 4}
SIGLIP = {**VISION, "model_type": "siglip_vision_model", "vision_use_head": False}
SQUARES = {"pixel_values": (2, 3, 16, 16)}
TILES = {"pixel_values": (2, 2, 3, 16, 16)}
GRIDS = {"pixel_values": (32, 96), "image_grid_thw": [[1, 4, 4]] * 2}
VIDEO = {"video_token_id": 303}


def text(kind, **fields):
    return {"model_type": kind, **TEXT, **fields}


def mrope(**fields):
    return {**TEXT, "rope_scaling": {"rope_type": "default", "mrope_section": [2, 1, 1]}, **fields}


def tower(**fields):
    return {"depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": 4, **fields}


def llava():
    vision = {**VISION, "model_type": "clip_vision_model", "projection_dim": 16}
    config = LlavaConfig(text_config=text("llama"), vision_config=vision, image_token_id=IMAGE)
    return LlavaForConditionalGeneration(config)


def llava_onevision():
    config = LlavaOnevisionConfig(
        text_config=text("qwen2"), vision_config=SIGLIP, image_token_id=IMAGE, vision_feature_layer=-1,
        image_grid_pinpoints=[[16, 16], [32, 32], [16, 32]], **VIDEO,
    )  # fmt: skip
    return LlavaOnevisionForConditionalGeneration(config)


def mistral3():
    vision = {**VISION, "model_type": "pixtral", "head_dim": 8}
    config = Mistral3Config(
        text_config=text("mistral", head_dim=8), vision_config=vision, image_token_id=IMAGE, spatial_merge_size=2
    )
    return Mistral3ForConditionalGeneration(config)


def paligemma():
    config = PaliGemmaConfig(
        text_config=text("gemma", head_dim=8), vision_config={**SIGLIP, "projection_dim": 32}, image_token_id=IMAGE,
        projection_dim=32,
    )  # fmt: skip
    return PaliGemmaForConditionalGeneration(config)


def smolvlm():
    config = SmolVLMConfig(text_config=text("llama"), vision_config=VISION, scale_factor=2, image_token_id=IMAGE)
    return SmolVLMForConditionalGeneration(config)


def idefics2():
    perceiver = {"resampler_n_latents": 4, "resampler_depth": 1, "resampler_n_heads": 2, "resampler_head_dim": 8}
    perceiver |= {"num_key_value_heads": 1, "hidden_size": 32}
    config = Idefics2Config(
        text_config=text("mistral", head_dim=8), vision_config=VISION, perceiver_config=perceiver, image_token_id=IMAGE
    )
    return Idefics2ForConditionalGeneration(config)


def aya_vision():
    config = AyaVisionConfig(
        text_config=text("cohere2", sliding_window=64), vision_config=SIGLIP, image_token_id=IMAGE, downsample_factor=2
    )
    return AyaVisionForConditionalGeneration(config)


def qwen2_5_vl():
    vision = tower(out_hidden_size=32, window_size=16, fullatt_block_indexes=[1])
    config = Qwen2_5_VLConfig(
        text_config=mrope(), vision_config=vision, image_token_id=IMAGE, vision_start_token_id=301, **VIDEO
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def glm4v():
    config = Glm4vConfig(
        text_config=mrope(), vision_config=tower(out_hidden_size=32, image_size=16), image_token_id=IMAGE, **VIDEO
    )
    return Glm4vForConditionalGeneration(config)


CASES = {  # builder, what its processor makes of two images beside the tokens
    "llava": (llava, SQUARES),
    "llava_onevision": (llava_onevision, {"pixel_values": (2, 3, 3, 16, 16), "image_sizes": [[16, 32]] * 2}),
    "mistral3": (mistral3, {**SQUARES, "image_sizes": [[16, 16]] * 2}),
    "paligemma": (paligemma, {**SQUARES, "token_type_ids": True}),
    "smolvlm": (smolvlm, TILES),
    "idefics2": (idefics2, TILES),
    "aya_vision": (aya_vision, SQUARES),
    "qwen2_5_vl": (qwen2_5_vl, {**GRIDS, "mm_token_type_ids": True}),
    "glm4v": (glm4v, {**GRIDS, "mm_token_type_ids": True}),
}


def prepare(model, given):
    """Two left-padded samples with an image and an answer each: inputs, labels and the projector's output."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, 0, 0.5 / parameter.shape[-1] ** 0.5, generator=generator)
    inputs = {
        name: torch.randn(*value, generator=generator) if name == "pixel_values" else torch.tensor(value)
        for name, value in given.items()
        if name not in ("token_type_ids", "mm_token_type_ids")
    }
    with torch.no_grad():
        projected = torch.cat(list(model.eval().get_image_features(**inputs, return_dict=True).pooler_output))
    visual = projected.reshape(2, -1, projected.shape[-1])
    rows, targets = [], []
    for before, after, answer in ((3, 4, 5), (2, 6, 2)):
        words = torch.randint(20, 290, (before + after + answer,), generator=generator)
        row = torch.cat([words[:before], torch.full((visual.shape[1],), IMAGE), words[before:]])
        rows.append(row)
        targets.append(torch.cat([torch.full_like(row[:-answer], -100), row[-answer:]]))
    width = max(map(len, rows))
    ids, labels, mask = (
        torch.stack([F.pad(row, (width - len(row), 0), value=fill) for row in part])
        for part, fill in ((rows, 1), (targets, -100), ([torch.ones_like(row) for row in rows], 0))
    )
    inputs |= {"input_ids": ids, "attention_mask": mask}
    if "mm_token_type_ids" in given:
        inputs["mm_token_type_ids"] = (ids == IMAGE).int()
    if "token_type_ids" in given:  # 1: the answer, which the prefix does not see
        inputs["token_type_ids"] = (labels != -100).long()
    return inputs, labels, visual


@pytest.mark.parametrize("name", sorted(CASES))
def test_features_are_the_models_own(name):
    build, given = CASES[name]
    torch.manual_seed(0)
    model = build()
    inputs, labels, visual = prepare(model, given)
    features = extract_features(model, inputs, labels)
    reference = model(**inputs, labels=labels, output_hidden_states=True)
    torch.testing.assert_close(answer_cross_entropy(features), reference.loss, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features.hidden, reference.hidden_states[-1])
    torch.testing.assert_close(
        extract_features(model, inputs, labels, FeatureRequest(layer=1)).hidden, reference.hidden_states[1]
    )
    torch.testing.assert_close(features.visual, visual)
    assert visual.std() > 0.01
    assert features.answer_mask.sum(1).tolist() == [5, 2]
    model.train()
    extract_features(model, inputs, labels, FeatureRequest(logits=False)).visual.square().sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.get_encoder(modality="image").parameters())


KNOWN = {  # tokens of one image; others have a square number of tokens, or inputs of the same names, and another layout
    "qwen2_5_vl": 4, "glm4v": 4, "paligemma": 16, "smolvlm": 4,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(CASES))
def test_positions_are_known_or_refused(name):
    """LLaVA-1.5 cuts the page, Idefics2 resamples it, OneVision and Mistral 3 have image sizes and no layout of LLaVA-NeXT."""
    build, given = CASES[name]
    model = build()
    rows = [1, *[IMAGE] * KNOWN.get(name, 16), 2]
    if name == "smolvlm":  # the whole page alone
        given = {}
    ids = torch.tensor([rows, rows])
    inputs = {key: torch.tensor(value) for key, value in given.items() if key in ("image_sizes", "image_grid_thw")}
    if name in KNOWN:
        boxes = patch_boxes(model, inputs, ids == IMAGE)
        side = int(KNOWN[name] ** 0.5)
        assert boxes.shape == (2, KNOWN[name], 4)
        torch.testing.assert_close(boxes[..., 2:], torch.full((2, KNOWN[name], 2), 1 / side))
        torch.testing.assert_close(boxes[0, :2, :2], torch.tensor([[0.5 / side, 0.5 / side], [1.5 / side, 0.5 / side]]))
        return
    with pytest.raises(UnknownLayoutError, match=r"not known .* set ot_position_weight to 0"):
        patch_boxes(model, inputs, ids == IMAGE)


def test_cuts_of_gemma_are_refused(tiny_vlm):
    """Pan-and-scan shows the page and then cuts of it, as Idefics3 shows tiles and then the page."""
    model = tiny_vlm("gemma3").load()
    token = model.config.image_token_id
    page = [1, *[token] * 4, 2]
    one = torch.tensor([page])
    assert patch_boxes(model, {}, one == token).shape == (1, 4, 4)
    with pytest.raises(UnknownLayoutError, match=r"runs of \[4, 4, 4\] are not one square of 4.*do_pan_and_scan=False"):
        patch_boxes(model, {}, torch.tensor([page * 3]) == token)


def test_images_that_enter_by_cross_attention_are_refused():
    """Llama 3.2 Vision has an image token, but its decoder reads no image there."""
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_global_layers": 1}
    vision |= {"attention_heads": 2, "image_size": 16, "patch_size": 4, "vision_output_dim": 32, "max_num_tiles": 2}
    vision |= {"intermediate_layers_indices": [0], "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]]}
    layers = {"cross_attention_layers": [1], "rope_scaling": {"rope_type": "default"}}
    config = MllamaConfig(text_config=text("mllama_text_model", **layers), vision_config=vision, image_token_id=IMAGE)
    model = MllamaForConditionalGeneration(config).eval()
    ids = torch.tensor([[5, IMAGE, 6, 7]])
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.randn(1, 1, 2, 3, 16, 16),
        "aspect_ratio_ids": torch.ones(1, 1).long(),
        "aspect_ratio_mask": torch.ones(1, 1, 2).long(),
        "cross_attention_mask": torch.ones(1, 4, 1, 2).long(),
    }
    with pytest.raises(UnsupportedModelError, match=r"no embeddings for \(1, 4\) tokens.*cross-attention"):
        extract_features(model, inputs, torch.tensor([[-100, -100, -100, 7]]))
