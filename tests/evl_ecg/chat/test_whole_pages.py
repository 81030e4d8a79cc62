"""Processors that cut the middle out of a page, of which 23 % would be lost without a word, or take no chat are refused."""

import copy

import numpy as np
import pytest
from PIL import Image
from tiny_vlms import VICUNA_TEMPLATE
from transformers import CLIPImageProcessorPil, LlavaProcessor, PaliGemmaProcessor, SiglipImageProcessorPil

from hf_evl_ecg.chat.collator import EVLECGCollator
from hf_evl_ecg.chat.conversations import ChatTemplateError


@pytest.fixture
def llava(tiny_vlm):
    """LLaVA-1.5's processor, as it is released."""
    images = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    tokenizer = tiny_vlm("llava_next").processor.tokenizer
    return LlavaProcessor(
        images, tokenizer, patch_size=14, vision_feature_select_strategy="default", chat_template=VICUNA_TEMPLATE,
        num_additional_image_tokens=1,
    )  # fmt: skip


def test_a_cut_page_is_refused_and_the_way_out_shows_it_whole(llava):
    with pytest.raises(ChatTemplateError, match=r"cuts the middle out of a page.*do_center_crop = False .*'width': 28"):
        EVLECGCollator(llava)
    llava.image_processor.do_center_crop = False
    llava.image_processor.size = {"height": 28, "width": 28}
    pixels = np.zeros((85, 110, 3), dtype=np.uint8)
    pixels[:, :10] = 255  # at the edge that was cut off
    example = {"id": "x", "image": Image.fromarray(pixels), "question": "q?", "answer": "a"}
    values = EVLECGCollator(llava)([example])["pixel_values"][0]
    assert values.shape == (3, 28, 28)
    assert values[:, :, 0].min() > values[:, :, 14].max()


def test_a_processor_that_takes_no_text_alone_is_refused_with_its_reason(tiny_vlm):
    """PaliGemma 2 with a template of one's own."""
    tokenizer = copy.deepcopy(tiny_vlm("llava_next").processor.tokenizer)
    images = SiglipImageProcessorPil(size={"height": 16, "width": 16})
    images.image_seq_length = 4
    processor = PaliGemmaProcessor(images, tokenizer, chat_template=VICUNA_TEMPLATE)
    with pytest.raises(ChatTemplateError, match=r"PaliGemmaProcessor does not encode a chat .*`images` are expected"):
        EVLECGCollator(processor)


@pytest.mark.parametrize("name", ["llava_next", "idefics3", "gemma3"])
def test_processors_that_show_the_whole_page_are_taken(tiny_vlm, name):
    EVLECGCollator(tiny_vlm(name).processor)
