"""Pages that are drawn and processed once: the same batches, with less work."""

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from hf_evl_ecg.chat.collator import EVLECGCollator
from hf_evl_ecg.chat.remembered import RememberedInk, RememberedPages, remember_processing
from hf_evl_ecg.data.rendered import RenderedECG
from hf_evl_ecg.drawing.artefacts import AugmentConfig
from hf_evl_ecg.drawing.config import RenderConfig


class Pages:
    """Draws noise that follows from the record, and counts how often."""

    def __init__(self, size=(56, 40)):
        self.size, self.drawn = size, Counter()

    def __call__(self, example):
        self.drawn[example["record"]] += 1
        pixels = np.random.default_rng(int(example["record"])).integers(0, 255, (*self.size[::-1], 3), dtype=np.uint8)
        return Image.fromarray(pixels)


def asked(*records, answer="yes"):
    return [
        {"source": "s", "record": str(r), "question": "Is it?", "answer": answer, "labels": ["AF"]} for r in records
    ]


@pytest.mark.parametrize("name", ["idefics3", "llava_next"])
def test_batches_are_the_same_and_pages_are_made_once(name, tiny_vlm, monkeypatch):
    processor, pages = tiny_vlm(name).processor, Pages()
    images = processor.image_processor
    calls = Counter()
    original = type(images).__call__

    def counted(self, pictures, *args, **kwargs):
        calls["processed"] += 1
        return original(self, pictures, *args, **kwargs)

    monkeypatch.setattr(type(images), "__call__", counted)
    plain = EVLECGCollator(processor, load_image=Pages())
    kept = EVLECGCollator(remember_processing(processor), load_image=RememberedPages(pages, 10))
    for records in ((1, 2, 3), (3, 1), (2, 2, 4)):
        expected, found = plain(asked(*records)), kept(asked(*records, answer="yes"))
        assert set(expected) == set(found)
        for key, value in expected.items():
            assert torch.equal(value, found[key]) if isinstance(value, torch.Tensor) else value == found[key], key
    assert pages.drawn == {"1": 1, "2": 1, "3": 1, "4": 1}
    before = calls["processed"]
    kept(asked(1, 2, 3, 4, answer="no"))
    assert calls["processed"] == before, "another question about pages that are known processes nothing"
    assert processor.image_processor is images, "the processor that was given is as it was"


def test_only_the_first_pages_are_kept_and_only_where_it_is_known_which_they_are():
    pages = Pages()
    load = RememberedPages(pages, 1)
    for _ in range(3):
        load({"record": "1"}), load({"record": "2"})
    assert pages.drawn == {"1": 1, "2": 3}
    other = RememberedPages(pages, 5)
    first, second = (other({"record": "1", "source": source}) for source in ("a", "b"))
    assert first is not second, "two data sets may name records alike"
    held = {"record": "3", "image": Image.new("L", (2, 2))}
    assert other(held) is not other(held)
    with pytest.raises(ValueError, match="remember_pages=0"):
        RememberedPages(pages, 0)
    with pytest.raises(ValueError, match="seed=None"):
        RememberedPages(RenderedECG(augment=AugmentConfig(), seed=None), 5)


def test_pages_of_other_sizes_are_processed_together(tiny_vlm):
    class Sizes(Pages):
        def __call__(self, example):
            self.size = (56, 40) if int(example["record"]) % 2 else (28, 28)
            return super().__call__(example)

    processor = tiny_vlm("idefics3").processor
    expected = EVLECGCollator(processor, load_image=Sizes())(asked(1, 2))
    found = EVLECGCollator(remember_processing(processor), load_image=RememberedPages(Sizes(), 5))(asked(1, 2))
    assert torch.equal(expected["pixel_values"], found["pixel_values"])
    assert torch.equal(expected["input_ids"], found["input_ids"])


def test_ink_is_remembered_with_its_page(tiny_vlm, monkeypatch):
    processor, draw = tiny_vlm("idefics3").processor, RenderedECG(RenderConfig(width_px=448, height_px=224))
    drawn, with_ink = Counter(), RenderedECG.with_ink
    monkeypatch.setattr(RenderedECG, "with_ink", lambda *given: drawn.update("x") or with_ink(*given))
    examples = [
        {"record": f"{label}/0", "storage": "simulated", "root": "", "question": "q?", "answer": "a"}
        for label in ("AF", "NORM")
    ]
    plain = EVLECGCollator(processor, load_image=draw, ink=True)(examples)
    kept = EVLECGCollator(remember_processing(processor), load_image=RememberedInk(draw, 5), ink=True)
    for _ in range(2):
        found = kept(examples)
        for name in ("ink", "pixel_values"):
            assert torch.equal(plain[name], found[name])
    assert drawn.total() == 4, "two pages for each collator"
    assert not torch.equal(*plain["ink"])
    with pytest.raises(ValueError, match="load_image=RememberedPages"):
        EVLECGCollator(processor, load_image=RememberedPages(draw, 5), ink=True)
