"""Pages on LLaVA-NeXT's padded canvas: tokens lie where a dark square on the page makes them react, padding off the page."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
)

from hf_evl_ecg.models.features import FeatureRequest, extract_features
from hf_evl_ecg.models.flat_tiles import FlatLlavaNextForConditionalGeneration, FlatLlavaNextProcessor
from hf_evl_ecg.models.visual_weights import token_weights

EDGE, PATCH = 56, 7
PINPOINTS = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]
# Width and height: pages that fill a canvas, or leave padding of whole patches, of parts of them and of odd numbers of pixels.
PAGES = [(224, 112), (220, 170), (110, 85), (330, 100), (60, 230), (151, 149), (400, 90)]
SPOTS = [(0.2, 0.25), (0.85, 0.2), (0.5, 0.5), (0.25, 0.8), (0.9, 0.9)]


@pytest.fixture(scope="module")
def families(tiny_vlm):
    """Packing → model and processor; the tower hands on what it embeds, so that a token sees its own patch only."""
    tokenizer = tiny_vlm("llava_next").processor.tokenizer
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": EDGE}, crop_size={"height": EDGE, "width": EDGE}, image_grid_pinpoints=PINPOINTS
    )
    options = {"patch_size": PATCH, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    vision = {"model_type": "clip_vision_model", "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "image_size": EDGE, "patch_size": PATCH, "projection_dim": 24}
    text = {"model_type": "llama", "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 32}
    text |= {"num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 1024}
    found = {}
    for packing, model, processor in (
        ("flat", FlatLlavaNextForConditionalGeneration, FlatLlavaNextProcessor),
        ("spatial_unpad", LlavaNextForConditionalGeneration, LlavaNextProcessor),
    ):
        config = LlavaNextConfig(
            vision_config=vision, text_config=text, image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
            image_grid_pinpoints=PINPOINTS, vision_feature_layer=-2,
        )  # fmt: skip
        torch.manual_seed(0)
        found[packing] = model(config).eval(), processor(images, tokenizer, **options)
    return found


def look(model, processor, page):
    """Projected tokens of a page, and their boxes."""
    inputs = processor(images=[page], text=["<image> q"], return_tensors="pt")
    with torch.no_grad():
        found = extract_features(model, inputs, None, FeatureRequest(logits=False, boxes=True))
    return found.visual[0], found.visual_boxes[0]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("packing", ["flat", "spatial_unpad"])
def test_the_token_that_reacts_lies_where_the_square_is(families, packing, page):
    model, processor = families[packing]
    blank, boxes = look(model, processor, Image.new("RGB", page, "white"))
    overview = (EDGE // PATCH) ** 2
    low, high = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
    for spot in SPOTS:
        pixels = np.full((page[1], page[0], 3), 255, dtype=np.uint8)
        left, top = (round(part * edge) - 3 for part, edge in zip(spot, page, strict=True))
        pixels[top : top + 6, left : left + 6] = 0
        square = torch.tensor([left, top]) / torch.tensor(page), torch.tensor([left + 6, top + 6]) / torch.tensor(page)
        moved = (look(model, processor, Image.fromarray(pixels))[0] - blank).norm(dim=1)
        for part in (slice(0, overview), slice(overview, None)):
            most = moved[part].argmax()
            assert (low[part][most] < square[1]).all(), (spot, boxes[part][most])
            assert (high[part][most] > square[0]).all(), (spot, boxes[part][most])
            centre = (moved[part, None] * boxes[part, :2]).sum(0) / moved[part].sum()
            # Within a quarter of a patch: resampling spreads the square, and a token reacts as one
            allowed = 0.3 * boxes[part][most, 2:]
            assert ((centre - torch.tensor(spot)).abs() < allowed + 1 / torch.tensor(page)).all(), (spot, centre)


@pytest.mark.parametrize("page", PAGES)
def test_tokens_of_padding_lie_off_the_page_and_weigh_nothing(families, page):
    """A page that is black throughout, on a canvas padded with black: what reacts to a white one is on the page."""
    model, processor = families["flat"]
    dark, boxes = look(model, processor, Image.new("RGB", page, "black"))
    moved = (look(model, processor, Image.new("RGB", page, "white"))[0] - dark).norm(dim=1) > 1e-4
    on_page = ((boxes[:, :2] + boxes[:, 2:] / 2 > 1e-3) & (boxes[:, :2] - boxes[:, 2:] / 2 < 1 - 1e-3)).all(1)
    assert torch.equal(moved, on_page)
    mask = torch.ones(1, len(boxes), dtype=torch.bool)
    tokens = torch.randn(1, len(boxes), 8, generator=torch.Generator().manual_seed(0))
    attention = torch.ones(1, len(boxes))
    for source in ("ink", "teacher_contrast", "teacher_attention"):
        seen = attention if source == "teacher_attention" else None
        weights, _ = token_weights(source, tokens, mask, boxes[None], torch.ones(1, 128, 128), seen)
        assert torch.equal(weights[0] > 0, on_page), source


def test_there_is_padding_to_tell_apart(families):
    outside = [(look(*families["flat"], Image.new("RGB", page))[1][:, :2] > 1).any(1).sum().item() for page in PAGES]
    assert outside[0] == 0
    assert min(outside[1], outside[4]) > 0


def test_ink_of_a_box_that_reaches_over_the_edge_is_spread_over_all_of_it():
    boxes = torch.tensor([[[0.0, 0.5, 0.5, 1.0], [-0.5, 0.5, 0.5, 1.0], [0.5, 0.5, 0.5, 1.0]]])
    weights, _ = token_weights(
        "ink", torch.zeros(1, 3, 2), torch.ones(1, 3, dtype=torch.bool), boxes, torch.ones(1, 8, 8)
    )
    torch.testing.assert_close(weights, torch.tensor([[0.5, 0.0, 1.0]]))
