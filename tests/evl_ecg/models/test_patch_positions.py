"""Positions of image tokens: by hand, and by disturbing one spot of an image and seeing which token moves most."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from transformers import GotOcr2ImageProcessorPil, InternVLConfig

from hf_evl_ecg.chat.collator import EVLECGCollator
from hf_evl_ecg.models.features import FeatureRequest, extract_features
from hf_evl_ecg.models.patch_positions import UnknownLayoutError, _square, _tiles, patch_boxes, patch_positions

ASK = FeatureRequest(logits=False, positions=True)


def read(model, collator, image):
    batch = collator([{"id": "x", "image": image, "question": "q?", "answer": "a"}])
    inputs = {k: v for k, v in batch.items() if k not in ("labels", "keys", "skipped")}
    with torch.no_grad():
        features = extract_features(model, inputs, batch["labels"], ASK)
    return features.visual[0], features.visual_positions[0]


@pytest.mark.parametrize("size", [(56, 40), (40, 56), (64, 64), (80, 24)])
@pytest.mark.parametrize("name", ["llava_next", "idefics3"])
def test_a_disturbed_spot_moves_the_token_that_claims_it(tiny_vlm, name, size):
    tiny = tiny_vlm(name)
    model, collator = tiny.load(), EVLECGCollator(tiny.processor)
    width, height = size
    before, positions = read(model, collator, Image.new("RGB", size, (128, 128, 128)))
    assert (
        positions.min() > -0.25
    )  # half a patch of these models: padding is packed where it shares a patch with the page
    assert positions.max() < 1.25
    for x, y in ((0.1, 0.15), (0.85, 0.15), (0.15, 0.9), (0.9, 0.85)):
        pixels = np.full((height, width, 3), 128, dtype=np.uint8)
        radius = max(2, round(0.07 * min(size)))
        column, row = round(x * width), round(y * height)
        pixels[max(row - radius, 0) : row + radius, max(column - radius, 0) : column + radius] = (255, 0, 255)
        after, _ = read(model, collator, Image.fromarray(pixels))
        moved = (after - before).norm(dim=1)
        found = positions[moved.argmax()]
        assert (found - torch.tensor([x, y])).abs().max() < 0.3, (x, y, found)


def test_grids_by_hand(tiny_vlm, hand_made_inputs):
    for name, shape in (("qwen2_vl", (2, 2)), ("qwen3_vl", (2, 2))):
        model = tiny_vlm(name).load()
        inputs, labels = hand_made_inputs(name, model)
        features = extract_features(model, inputs, labels, ASK)
        expected = [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
        assert features.visual_positions.tolist() == [expected, expected], shape
    mask = torch.ones(1, 2, dtype=torch.bool)
    wide = patch_positions(tiny_vlm("qwen2_vl").load(), {"image_grid_thw": torch.tensor([[1, 2, 4]])}, mask)
    assert wide.tolist() == [[[0.25, 0.5], [0.75, 0.5]]]
    with pytest.raises(UnknownLayoutError, match=r"\[1\] image tokens per sample.*explains \[2\]"):
        patch_positions(tiny_vlm("qwen2_vl").load(), {"image_grid_thw": torch.tensor([[1, 2, 4]])}, mask[:, :1])


def test_tiles_by_hand():
    """One-token tiles: two rows of three, one row, one column; the last tile is the whole image."""

    def runs(gaps):
        return torch.tensor([0, *gaps]).cumsum(0).tolist()

    def centres(tokens):
        return _tiles(tokens)[:, :2]

    third = [1 / 6, 3 / 6, 5 / 6]
    expected = [[x, y] for y in (0.25, 0.75) for x in third] + [[0.5, 0.5]]
    torch.testing.assert_close(centres(runs([3, 3, 4, 3, 3, 5])), torch.tensor(expected))
    sizes = _tiles(runs([3, 3, 4, 3, 3, 5]))[:, 2:]
    torch.testing.assert_close(sizes, torch.tensor([[1 / 3, 1 / 2]] * 6 + [[1.0, 1.0]]))
    torch.testing.assert_close(centres(runs([3, 4])), torch.tensor([[0.25, 0.5], [0.75, 0.5], [0.5, 0.5]]))
    torch.testing.assert_close(centres(runs([4, 5])), torch.tensor([[0.5, 0.25], [0.5, 0.75], [0.5, 0.5]]))
    square = [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
    assert centres([7, 8, 9, 10]).tolist() == _square([7, 8, 9, 10], 4)[:, :2].tolist() == square
    for tokens in ([1, 2, 3], runs([3, 4, 4, 3, 5]), []):
        with pytest.raises(UnknownLayoutError):
            _tiles(tokens)
    for tokens, whole in (
        ([1, 2, 3, 4], 1),
        ([1, 2, 3, 4], 16),
        ([1, 2, 3, 4, 9, 10, 11, 12], 4),
        ([1, 2], 2),
        ([], 4),
    ):
        with pytest.raises(UnknownLayoutError):
            _square(tokens, whole)


def test_newlines_lie_at_the_end_of_their_row(tiny_vlm):
    """56×40 pixels: a coarse tile of 2×2, then 2 rows of 4 patches and a newline."""
    tiny = tiny_vlm("llava_next")
    image = Image.new("RGB", (56, 28))
    _, positions = read(tiny.load(), EVLECGCollator(tiny.processor), image)
    assert positions.shape == (14, 2)
    assert positions[:4].tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
    rows = [[[0.125 + 0.25 * i, y] for i in range(4)] + [[1.0, y]] for y in (0.25, 0.75)]
    torch.testing.assert_close(positions[4:], torch.tensor(rows).flatten(0, 1))


def test_tiles_of_unknown_shape_are_refused(tiny_vlm, hand_made_inputs):
    model = tiny_vlm("internvl").load()
    with pytest.raises(UnknownLayoutError, match="set ot_position_weight to 0"):
        extract_features(model, *hand_made_inputs("internvl", model), ASK)
    with pytest.raises(ValueError, match="needs visual=True"):
        FeatureRequest(visual=False, positions=True)


@pytest.mark.parametrize("size", [(1100, 850), (850, 1100), (1700, 600), (448, 224)])
def test_a_dark_square_lies_where_internvl_s_tiles_say(size):
    """Released settings: tiles of 448 px and an overview, as the processor cuts them; the darkest token holds the square."""
    processor = GotOcr2ImageProcessorPil(size={"height": 448, "width": 448}, crop_to_patches=True, max_patches=12)
    pages, squares = [], [(0.8, 0.3), (0.2, 0.7)]
    for seed, (x, y) in enumerate(squares):
        paper = np.random.default_rng(seed).integers(180, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
        page = Image.fromarray(paper).resize(size)
        side = 0.03 * min(size)
        ImageDraw.Draw(page).rectangle(
            (x * size[0] - side, y * size[1] - side, x * size[0] + side, y * size[1] + side), "black"
        )
        pages.append(page)
    tiles = processor(pages, return_tensors="pt")["pixel_values"]
    each = len(tiles) // 2
    assert each > 2
    model = SimpleNamespace(config=InternVLConfig(image_seq_length=64))
    mask = torch.zeros(2, each * 64 + 5, dtype=torch.bool)
    mask[:, 3 : 3 + each * 64] = True
    boxes = patch_boxes(model, {"pixel_values": tiles}, mask)
    assert boxes.shape == (2, each * 64, 4)
    for i, (x, y) in enumerate(squares):
        tokens = -torch.nn.functional.avg_pool2d(tiles[i * each : (i + 1) * each].mean(1, keepdim=True), 56).flatten()
        for part in (slice(0, (each - 1) * 64), slice((each - 1) * 64, None)):  # the tiles, and the overview
            cx, cy, w, h = boxes[i, part][tokens[part].argmax()].tolist()
            assert abs(cx - x) <= w / 2 + 0.03
            assert abs(cy - y) <= h / 2 + 0.03
    area = boxes[0, : (each - 1) * 64, 2:].prod(1).sum()
    assert float(area) == pytest.approx(1.0)


def test_tiles_whose_order_the_pixels_do_not_tell_are_refused():
    model = SimpleNamespace(config=InternVLConfig(image_seq_length=4))
    mask = torch.ones(1, 7 * 4, dtype=torch.bool)
    for tiles in (torch.zeros(7, 3, 16, 16), torch.rand(7, 3, 16, 16, generator=torch.Generator().manual_seed(0))):
        with pytest.raises(UnknownLayoutError, match="could stand in several orders"):
            patch_boxes(model, {"pixel_values": tiles}, mask)
    with pytest.raises(UnknownLayoutError, match="2 tiles for 1 times 4 image tokens"):
        patch_boxes(model, {"pixel_values": torch.zeros(2, 3, 16, 16)}, mask[:, :4])
    with pytest.raises(UnknownLayoutError, match="set ot_position_weight to 0"):
        patch_boxes(model, {"pixel_values": torch.zeros(2, 3, 16, 16)}, mask[:, :7])


@pytest.mark.parametrize("size", [(56, 28), (28, 56), (56, 40), (64, 64)])
@pytest.mark.parametrize("name", ["llava_next", "idefics3"])
def test_the_boxes_of_each_scale_cover_the_image_once(tiny_vlm, name, size):
    """Coarse tile and fine grid have the area of the image each, boxes lie side by side, newlines have no size.

    A page of 56 × 40 lies on a canvas of 56 × 56, 8 pixels of padding above and below: transformers takes a whole patch of 14 off
    there, so that the fine grid shows 28 of 40 rows.
    """
    tiny = tiny_vlm(name)
    batch = EVLECGCollator(tiny.processor)(
        [{"id": "x", "image": Image.new("RGB", size), "question": "q?", "answer": "a"}]
    )
    model = tiny.load()
    boxes = patch_boxes(model, batch, batch["input_ids"] == model.config.image_token_id)[0]
    corners = torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1).clamp(0, 1)
    areas = (corners[:, 2:] - corners[:, :2]).prod(1)
    fine = (areas > 0) & (areas < 0.2) if (areas > 0).sum() > 4 else areas > 0
    covered = 28 / 40 if (name, size) == ("llava_next", (56, 40)) else 1
    assert areas[fine].sum().item() == pytest.approx(covered, abs=1e-5)
    coarse = (areas > 0) & ~fine
    assert areas[coarse].sum().item() == pytest.approx(float(coarse.any()), abs=1e-5)
    for x in (0.05, 0.33, 0.71):
        inside = (corners[fine, 0] < x) & (x < corners[fine, 2]) & (corners[fine, 1] < 0.4) & (corners[fine, 3] > 0.4)
        assert inside.sum() == 1
