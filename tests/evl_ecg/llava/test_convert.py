"""LLaVA-layout checkpoints: converted logits equal a forward pass written out by hand, or the error names what is wrong."""

import json

import numpy as np
import pytest
import torch
from llava_source import PINPOINTS, Source, plain_tokenizer
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from hf_evl_ecg.__main__ import main
from hf_evl_ecg.chat.collator import EVLECGCollator
from hf_evl_ecg.chat.conversations import Turn, chat_messages
from hf_evl_ecg.llava.convert import convert_llava
from hf_evl_ecg.llava.layout import CheckpointKeyError, line_behind_image, native_key, read_settings
from hf_evl_ecg.models.flat_tiles import FlatLlavaNextForConditionalGeneration
from hf_evl_ecg.models.loading import load_model, load_processor
from hf_evl_ecg.models.weights import ShardWriter, checkpoint_shards, iterate_tensors
from hf_evl_ecg.qa.prompts import pulse_prompt


@pytest.fixture
def tokenizer(tiny_vlm):
    return plain_tokenizer(tiny_vlm("llava_next"))


def picture(height, width):
    return Image.fromarray(np.random.default_rng(height).integers(0, 255, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(40, 56), (30, 80)])
@pytest.mark.parametrize("merge", ["flat", "spatial_unpad"])
def test_converted_logits_equal_the_sources(tmp_path, tokenizer, merge, size):
    source = Source(tmp_path, tokenizer, merge=merge, with_vision=merge == "flat")
    if merge == "flat":
        source.write("bin")
    folder = convert_llava(source.folder, tmp_path / "native", max_shard_bytes=20_000)
    model, processor = load_model(str(folder))
    assert isinstance(model, FlatLlavaNextForConditionalGeneration) == (merge == "flat")
    messages = chat_messages([Turn("What is the rhythm?", "sinus rhythm")])
    text = processor.apply_chat_template(messages[:1], add_generation_prompt=True)
    blank = line_behind_image(processor.tokenizer)[
        :-1
    ]  # stands for the beginning of a word, which LLaVA puts there itself
    assert text == pulse_prompt("What is the rhythm?").replace("<image>", f"<image>{blank}")
    inputs = processor(images=[picture(*size)], text=[text], return_tensors="pt")
    tiles = {(40, 56): 5, (30, 80): 4}[size]
    ids = inputs["input_ids"][0]
    if merge == "flat":
        assert (ids == processor.image_token_id).sum() == tiles * 4
    expected = source.logits(ids, inputs["pixel_values"][0][:tiles], size, processor.image_token_id)
    found = model(**inputs).logits[0, :, : len(tokenizer)]
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


def test_what_is_written(tmp_path, tokenizer, capsys):
    source = Source(tmp_path, tokenizer, dtype=torch.float16, merge="spatial_unpad")
    folder = tmp_path / "native"
    assert main(["convert", str(source.folder), str(folder)]) == 0
    assert capsys.readouterr().out.strip() == f"Written: {folder}"
    model = AutoModelForImageTextToText.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    assert type(model).__name__ == "LlavaNextForConditionalGeneration"
    assert {p.dtype for p in model.parameters()} == {torch.float16}
    n = len(tokenizer)
    assert (processor.image_token_id, processor.tokenizer.pad_token_id) == (n, n + 1)
    assert model.config.text_config.vocab_size == -(-(n + 2) // 64) * 64
    assert model.config.image_grid_pinpoints == [[h, w] for w, h in PINPOINTS]
    assert model.config.text_config.rope_parameters["rope_theta"] == 5000.0
    assert model.config.text_config.rms_norm_eps == 1e-5
    assert model.generation_config.do_sample is False
    assert model.generation_config.max_new_tokens == 1024
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    embedded = model.get_input_embeddings().weight
    torch.testing.assert_close(embedded[:n], source.state["model.embed_tokens.weight"])
    logits = model.lm_head(torch.randn(50, 32, dtype=torch.float16))
    assert (logits[:, :n].max(1).values >= logits[:, n:].max(1).values - 2e-3).all()
    assert not list(folder.glob("*.bin"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip", "llava", "native"]
    with pytest.raises(ValueError, match="exists"):
        convert_llava(source.folder, folder)
    model.generate(**processor(images=[picture(40, 56)], text=["<image>"], return_tensors="pt"), max_new_tokens=2)


def test_the_collator_learns_the_answers_of_the_template(tmp_path, tokenizer, ecg_examples):
    source = Source(tmp_path, tokenizer)
    processor = load_processor(convert_llava(source.folder, tmp_path / "native"))
    batch = EVLECGCollator(processor)(ecg_examples)
    labels = batch["labels"][1]
    decoded = processor.tokenizer.decode(labels[labels != -100])
    assert decoded.replace(" ", "") == "atrialfibrillation</s>"


def test_wrong_checkpoints_are_named_and_leave_nothing_behind(tmp_path, tokenizer):
    source = Source(tmp_path, tokenizer)
    good = dict(source.state)
    wrong = {
        r"'model.mm_projector.4.weight'": {**good, "model.mm_projector.4.weight": torch.ones(2)},
        r"model.language_model.norm.weight is missing": {n: t for n, t in good.items() if n != "model.norm.weight"},
        r"multi_modal_projector.linear_1.bias \(3,\)": {**good, "model.mm_projector.0.bias": torch.ones(3)},
    }
    for message, state in wrong.items():
        source.state = state
        source.write()
        with pytest.raises(CheckpointKeyError, match=message):
            convert_llava(source.folder, tmp_path / "native")
    source.state = good
    for name, value in (
        ("mm_projector_type", "linear"),
        ("mm_patch_merge_type", "spatial"),
        ("image_aspect_ratio", "pad"),
    ):
        original, source.config[name] = source.config[name], value
        source.write()
        with pytest.raises(ValueError, match=f"{name}='{value}': must be one of"):
            convert_llava(source.folder, tmp_path / "native")
        source.config[name] = original
    source.write()
    source.config["image_grid_pinpoints"] = "(1x1),...,(6x6)"
    source.write()
    with pytest.raises(ValueError, match=r"image_grid_pinpoints=.*must be a list of widths and heights"):
        convert_llava(source.folder, tmp_path / "native")
    source.config["image_grid_pinpoints"] = str(PINPOINTS)
    source.write()
    assert read_settings(source.folder)["image_grid_pinpoints"] == PINPOINTS
    (source.folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="holds no weights"):
        convert_llava(source.folder, tmp_path / "native")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip", "llava"]
    with pytest.raises(CheckpointKeyError, match="unknown weight 'x'"):
        native_key("x")
    assert native_key("model.layers.0.self_attn.rotary_emb.inv_freq") is None


def test_shards(tmp_path):
    tensors = {f"w{i}": torch.full((100,), float(i)) for i in range(5)}
    for limit, count in ((10**6, 1), (900, 3), (1, 5)):
        folder = tmp_path / str(limit)
        folder.mkdir()
        writer = ShardWriter(folder, limit)
        for name, tensor in tensors.items():
            writer.add(name, tensor)
        writer.close()
        assert len(checkpoint_shards(folder)) == count
        found = dict(iterate_tensors(folder))
        assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
        assert all(load_file(path) for path in checkpoint_shards(folder))
        with safe_open(checkpoint_shards(folder)[0], "pt") as file:
            assert file.metadata() == {"format": "pt"}
    index = tmp_path / "900" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w0": "../1/model.safetensors"}}))
    with pytest.raises(ValueError, match="no files in"):
        checkpoint_shards(tmp_path / "900")
