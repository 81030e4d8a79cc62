"""Weights of visual tokens: maps against slow loops, all families, and what one model hands to another."""

import numpy as np
import pytest
import torch

from hf_evl_ecg.chat.batches import model_inputs
from hf_evl_ecg.chat.collator import EVLECGCollator
from hf_evl_ecg.data.rendered import RenderedECG
from hf_evl_ecg.drawing.config import RenderConfig
from hf_evl_ecg.models.features import FeatureRequest, extract_features
from hf_evl_ecg.models.patch_positions import patch_boxes
from hf_evl_ecg.models.visual_weights import contrast_weights, draw_map, mix_uniform, read_map, share_weights
from hf_evl_ecg.sources.simulated import load_simulated
from hf_evl_ecg.tokens import TokenFeatures


def random_boxes(n=6, seed=0):
    gen = torch.Generator().manual_seed(seed)
    size = 0.05 + 0.4 * torch.rand(2, n, 2, generator=gen, dtype=torch.float64)
    centre = size / 2 + (1 - size) * torch.rand(2, n, 2, generator=gen, dtype=torch.float64)
    return torch.cat([centre, size], 2)


def slow_overlap(box, row, column, rows, columns):
    x, y, w, h = box.tolist()
    across = min(x + w / 2, (column + 1) / columns) - max(x - w / 2, column / columns)
    down = min(y + h / 2, (row + 1) / rows) - max(y - h / 2, row / rows)
    return max(across, 0) * max(down, 0)


def test_reading_and_drawing_a_map_equal_slow_loops():
    boxes, gen = random_boxes(), torch.Generator().manual_seed(1)
    boxes[1, 4:] = 0  # padding
    density = torch.rand(2, 5, 7, generator=gen, dtype=torch.float64)
    weights = torch.rand(2, 6, generator=gen, dtype=torch.float64)
    read, drawn = read_map(density, boxes), draw_map(weights, boxes, cells=5)
    for b in range(2):
        for n, box in enumerate(boxes[b]):
            area = box[2] * box[3]
            total = sum(slow_overlap(box, r, c, 5, 7) * density[b, r, c] for r in range(5) for c in range(7))
            assert read[b, n].item() == pytest.approx((total / area).item() if area else 0)
        for r in range(5):
            for c in range(5):
                shares = [slow_overlap(box, r, c, 5, 5) for box in boxes[b]]
                mean = sum(s * w for s, w in zip(shares, weights[b].tolist(), strict=True))
                assert drawn[b, r, c].item() == pytest.approx(mean / sum(shares) if sum(shares) else 0)


def test_evenly_spread_content_gives_equal_weights_at_every_scale():
    boxes = random_boxes()
    even = read_map(torch.full((2, 9, 9), 0.3, dtype=torch.float64), boxes)
    torch.testing.assert_close(even, torch.full((2, 6), 0.3, dtype=torch.float64))
    drawn = draw_map(torch.full((2, 6), 0.3, dtype=torch.float64), boxes, cells=8)
    torch.testing.assert_close(drawn[drawn > 0], torch.full_like(drawn[drawn > 0], 0.3))
    assert 0 < (drawn > 0).double().mean() < 1


def test_contrast_is_the_distance_from_the_mean_unit_token():
    tokens = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    mask = torch.tensor([[True] * 5, [True, True, True, False, False]])
    found = contrast_weights(tokens, mask)
    assert not found.requires_grad
    for row, (sample, valid) in enumerate(zip(tokens.detach(), mask, strict=True)):
        unit = sample[valid] / sample[valid].norm(dim=1, keepdim=True)
        torch.testing.assert_close(found[row, valid], (unit - unit.mean(0)).norm(dim=1))
        assert found[row, ~valid].eq(0).all()


def test_floors_mix_in_uniform_masses():
    mask = torch.tensor([[True, True, True, False], [True, True, True, True]])
    weights = torch.tensor([[4.0, 0.0, 4.0, 7.0], [0.0, 0.0, 0.0, 0.0]])
    assert mix_uniform(weights, mask, 0.0).tolist() == [[0.5, 0.0, 0.5, 0.0], [0.25] * 4]  # no ink: uniform
    torch.testing.assert_close(mix_uniform(weights, mask, 1.0), mask / mask.sum(1, keepdim=True))
    torch.testing.assert_close(mix_uniform(weights, mask, 0.3)[0], torch.tensor([0.45, 0.1, 0.45, 0.0]))
    for floor in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="floor"):
            mix_uniform(weights, mask, floor)


def left_half(cells=128):
    density = torch.zeros(2, cells, cells)
    density[:, :, : cells // 2] = torch.rand(2, cells, cells // 2, generator=torch.Generator().manual_seed(0))
    return density


@pytest.mark.parametrize("name", ["llava_next", "idefics3", "qwen2_vl", "qwen3_vl", "internvl"])
def test_ink_in_the_left_half_is_on_tokens_of_the_left_half(tiny_vlm, hand_made_inputs, name):
    """Coarse tiles, fine tiles, grids; only boxes that reach into the left half get any mass, and all of it."""
    model = tiny_vlm(name).load()
    if name == "internvl":  # a single tile of 2 x 2 tokens
        mask = torch.ones(2, 4, dtype=torch.bool)
        boxes = patch_boxes(model, {}, mask)
    else:
        inputs, _ = hand_made_inputs(name, model)
        if name == "idefics3":  # one row of two tiles and the whole image, with text between them
            row = torch.tensor([0, *([1] * 4), 0, 0, *([1] * 4), 0, 0, 0, 0, *([1] * 4), 0], dtype=torch.bool)
            mask = torch.stack([row, row])
        else:
            mask = inputs["input_ids"] == model.config.image_token_id
        boxes = patch_boxes(model, inputs, mask)
    valid = boxes.abs().sum(2) > 0
    masses = mix_uniform(read_map(left_half(), boxes), valid, 0.0)
    left = boxes[..., 0] - boxes[..., 2] / 2 < 0.5 - 1e-6
    assert valid.sum(1).tolist() == mask.sum(1).tolist()
    assert (left & valid).any(1).all()
    assert not left.all()
    torch.testing.assert_close(masses.sum(1), torch.ones(2))
    assert (masses * ~left).max() < 1e-6
    assert masses[left & (boxes[..., 2:].prod(2) > 0)].min() > 0.01


@pytest.mark.parametrize("name", ["llava_next", "idefics3"])
def test_weights_of_a_drawn_page_through_a_real_processor(tiny_vlm, name):
    """Each token's weight is the mean coverage of the pixels behind it, as the page itself tells."""
    tiny = tiny_vlm(name)
    rows, _ = load_simulated(1, classes=["AF"])
    load = RenderedECG(RenderConfig(width_px=448, height_px=224, grid="thick"))
    example = {**rows[0], "question": "q?", "answer": "a"}
    batch = EVLECGCollator(tiny.processor, load_image=load, ink=True)([example])
    assert batch["ink"].shape == (1, 128, 128)
    assert "ink" not in model_inputs(batch)
    request = FeatureRequest(logits=False, visual_weights="ink", boxes=True)
    with torch.no_grad():
        features = extract_features(tiny.load(), model_inputs(batch), None, request, ink=batch["ink"])
    ink = load.with_ink(example)[1]
    for (x, y, w, h), weight in zip(
        features.visual_boxes[0].tolist(), features.visual_weights[0].tolist(), strict=True
    ):
        across, down = (
            slice(*(np.rint([(middle - size / 2) * 128, (middle + size / 2) * 128]).astype(int)))
            for middle, size in ((x, w), (y, h))
        )
        expected = ink[down, across].mean() if w else 0.0  # tiny models cut pages into halves and quarters
        assert weight == pytest.approx(expected, rel=0.15, abs=1e-7)
    assert torch.equal(features.visual_map, batch["ink"])


@pytest.mark.parametrize("pool", [1, 3])
def test_contrast_of_the_teacher_ignores_newlines_and_pools_as_tokens_do(tiny_vlm, hand_made_inputs, pool):
    model = tiny_vlm("llava_next").load()
    inputs, labels = hand_made_inputs("llava_next", model)

    def read(size):
        with torch.no_grad():
            return extract_features(
                model, inputs, labels, FeatureRequest(logits=False, visual_weights="teacher_contrast", visual_pool=size)
            )

    single, pooled = read(1), read(pool)
    boxes = patch_boxes(model, inputs, inputs["input_ids"] == model.config.image_token_id)
    newline = boxes[..., 2:].prod(2) == 0
    assert newline.any()
    assert single.visual_weights[newline].eq(0).all()
    assert single.visual_weights[~newline].min() > 0
    assert torch.equal(pooled.visual_map, single.visual_map), "the map is that of single tokens"
    runs = [single.visual_weights[:, i : i + pool].mean(1) for i in range(0, 14, pool)]
    torch.testing.assert_close(pooled.visual_weights, torch.stack(runs, 1))


def pair(tokens="all"):
    """A teacher of one row of four tokens, a student of two; the teacher's third quarter holds everything."""
    boxes = torch.tensor([[[0.25, 0.5, 0.5, 1.0], [0.75, 0.5, 0.5, 1.0], [0.0, 0.0, 0.0, 0.0]]])
    quarters = torch.tensor([[[0.125 + 0.25 * i, 0.5, 0.25, 1.0] for i in range(4)]])
    weights = torch.tensor([[0.0, 0.0, 8.0, 0.0]])
    mask, text = torch.tensor([[True, True, False]]), torch.ones(1, 5, dtype=torch.bool)
    index = {"all": [1, 2, -1], "answer": [-1, -1, -1]}[tokens]
    student = TokenFeatures(
        torch.zeros(1, 5, 2), text, torch.zeros(1, 3, 2), mask, visual_boxes=boxes, visual_index=torch.tensor([index])
    )
    teacher = TokenFeatures(
        torch.zeros(1, 5, 2), text, torch.zeros(1, 4, 2), torch.ones(1, 4, dtype=torch.bool),
        visual_weights=weights, visual_map=draw_map(weights, quarters),
    )  # fmt: skip
    return student, teacher


def test_a_student_gets_its_masses_where_the_teacher_has_them():
    student, teacher = share_weights(*pair(), floor=0.0)
    assert teacher.visual_weights.tolist() == [[0.0, 0.0, 1.0, 0.0]]
    torch.testing.assert_close(student.visual_weights, torch.tensor([[0.0, 1.0, 0.0]]))
    torch.testing.assert_close(student.hidden_weights, torch.tensor([[1.0, 0.0, 2.0, 1.0, 1.0]]))
    student, teacher = share_weights(*pair(), floor=0.5)
    torch.testing.assert_close(student.visual_weights, torch.tensor([[0.25, 0.75, 0.0]]))
    torch.testing.assert_close(teacher.visual_weights, torch.tensor([[0.125, 0.125, 0.625, 0.125]]))
    torch.testing.assert_close(student.hidden_weights, torch.tensor([[1.0, 0.5, 1.5, 1.0, 1.0]]))
    student, _ = share_weights(*pair("answer"), floor=0.5)
    assert student.hidden_weights.eq(1).all()
    with pytest.raises(ValueError, match="need features of a student with boxes=True"):
        share_weights(pair()[1], pair()[1], floor=0.5)


def test_requests_that_cannot_be_answered_are_refused(tiny_vlm, hand_made_inputs):
    for wrong in ({"boxes": True, "visual": False}, {"visual_weights": "ink", "visual": False}):
        with pytest.raises(ValueError, match="need visual=True"):
            FeatureRequest(**wrong)
    with pytest.raises(ValueError, match="boxes=True needs visual_pool=1"):
        FeatureRequest(boxes=True, visual_pool=2)
    with pytest.raises(ValueError, match="visual_weights='edges'"):
        FeatureRequest(visual_weights="edges")
    model = tiny_vlm("qwen2_vl").load()
    with pytest.raises(ValueError, match=r"the batch holds no ink.*'teacher_contrast'"):
        extract_features(model, *hand_made_inputs("qwen2_vl", model), FeatureRequest(visual_weights="ink"))
