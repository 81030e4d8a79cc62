"""Weights in 8 and 4 bits: rounded as the schemes say, smaller, and the same in a new process that knows only transformers."""

import json

import pytest
import torch
from transformers import AutoModelForImageTextToText

from hf_evl_ecg.commands import quantize as verb
from hf_evl_ecg.hub import quantize
from hf_evl_ecg.hub.export import check_input, model_logits
from hf_evl_ecg.hub.quantize import SCHEMES, quantize_model
from hf_evl_ecg.hub.reload_check import ReloadError
from hf_evl_ecg.interpret.interpreter import ECGInterpreter
from hf_evl_ecg.models.loading import ModelLoadError
from hf_evl_ecg.signals.simulation import simulate

torchao = pytest.importorskip("torchao")
pytest.importorskip("bitsandbytes")
LAYER = "text_model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def student(tiny_vlm):
    return tiny_vlm("idefics3")


@pytest.fixture(scope="module")
def written(student, tmp_path_factory):
    """Each scheme once: its folder and report."""
    folder = tmp_path_factory.mktemp("quantized")
    return {scheme: quantize_model(student.path, folder / scheme, scheme=scheme) for scheme in SCHEMES}


def weight(model):
    return model.get_submodule(f"model.{LAYER.removesuffix('.weight')}").weight


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_folder_loads_with_from_pretrained_and_computes_the_same(student, written, scheme):
    report = written[scheme]
    assert {path.suffix for path in report.folder.iterdir()} <= {".json", ".jinja", ".safetensors"}
    assert report.reload_difference <= 1e-5
    loaded = AutoModelForImageTextToText.from_pretrained(report.folder).eval()
    inputs, _ = check_input(student.processor, None)
    before = model_logits(student.load().eval(), inputs)
    assert 1e-6 < report.logit_difference < 0.5, "it was rounded, and is the same model"
    assert (model_logits(loaded, inputs) - before).abs().max() / before.abs().max() == pytest.approx(
        report.logit_difference, rel=2e-2
    )


def test_fewer_bits_are_smaller_and_rounder(written):
    # Of layers as narrow as these, int4 keeps more about a layer than its weights take.
    assert max(report.bytes_after for report in written.values()) < 0.7 * written["int8"].bytes_before
    assert written["int4"].logit_difference > written["int8"].logit_difference


def test_int8_is_the_nearest_of_256_steps_per_output(student, written):
    """Symmetric: the largest of a row is 127.5 steps from 0."""
    exact = weight(student.load()).detach().float()
    found = weight(AutoModelForImageTextToText.from_pretrained(written["int8"].folder)).dequantize().float()
    step = exact.abs().amax(1, keepdim=True) / 127.5
    assert ((found - exact).abs() <= 0.51 * step).all()
    assert (found - exact).abs().max() > 0
    torch.testing.assert_close(found / step, (found / step).round(), atol=2e-2, rtol=0)


def test_int4_has_sixteen_values_per_block(written):
    import bitsandbytes.functional as bnb

    layer = weight(AutoModelForImageTextToText.from_pretrained(written["int4"].folder))
    blocks = bnb.dequantize_4bit(layer.data, layer.quant_state).float().reshape(-1, 64)
    assert layer.dtype == torch.uint8
    assert layer.numel() * 2 == blocks.numel()
    assert max(len(row.unique()) for row in blocks) <= 16


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_interpreter_answers_with_it(written, scheme):
    interpreter = ECGInterpreter.from_pretrained(str(written[scheme].folder), device="cpu")
    answer = interpreter(simulate("AF", seed=0), "What is the rhythm of this ECG?", max_new_tokens=3)
    assert set(answer.label_scores)
    config = json.loads((written[scheme].folder / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == SCHEMES[scheme]


def test_what_cannot_be_quantized_is_refused_and_nothing_is_left(student, written, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"scheme='int3': choose one of int8, int4"):
        quantize_model(student.path, tmp_path / "a", scheme="int3")
    with pytest.raises(ValueError, match="it exists"):
        quantize_model(student.path, tmp_path)
    with pytest.raises(ModelLoadError, match="is quantized already"):
        quantize_model(written["int8"].folder, tmp_path / "a")
    monkeypatch.setattr(quantize, "reload_logits", lambda *_: {"logits": torch.zeros(1)})
    with pytest.raises(ReloadError, match=r"logits differ by inf of the largest; nothing was written"):
        quantize_model(student.path, tmp_path / "a")
    monkeypatch.setattr(quantize.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ModelLoadError, match=r"scheme='int4' needs bitsandbytes: pip install 'hf-mic-evl-ecg\[quantize\]'"
    ):
        quantize_model(student.path, tmp_path / "a", scheme="int4")
    assert list(tmp_path.iterdir()) == []


def test_the_verb_says_what_it_wrote(student, tmp_path, capsys):
    verb.command(
        ["--model", student.path, "--output_dir", str(tmp_path / "q"), "--scheme", "int4", "--dtype", "bfloat16"]
    )
    said = capsys.readouterr().out
    assert "Written:" in said
    assert "hf-evl-ecg evaluate" in said
    assert (
        AutoModelForImageTextToText.from_pretrained(tmp_path / "q").get_input_embeddings().weight.dtype
        == torch.bfloat16
    )
