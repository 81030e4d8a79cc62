"""A model that cannot be loaded here is refused with the reason: a library that is missing, or a class that transformers lacks."""

import json

import pytest
from transformers import CLIPConfig, LlamaConfig, Phi4MultimodalConfig

from hf_evl_ecg.models import loading
from hf_evl_ecg.models.loading import ModelLoadError, check_model, load_model, load_vlm
from hf_evl_ecg.models.native import UnsupportedModelError

# As transformers 5.23 says it, line breaks included.
TORCHVISION = """
Qwen2VLVideoProcessor requires the Torchvision library but it was not found in your environment. Check out the instructions on the
installation page: https://pytorch.org/get-started/locally/ and follow the ones that match your environment.
Please note that you may need to restart your runtime after installation.
"""
NUM2WORDS = "Package `num2words` is required to run SmolVLM processor. Install it with `pip install num2words`."


@pytest.mark.parametrize(("hint", "library"), [(TORCHVISION, "torchvision"), (NUM2WORDS, "num2words")])
@pytest.mark.parametrize("load", [lambda path: load_model(path), lambda path: load_vlm(path, device="cpu")])
def test_a_missing_library_is_named_whole(tiny_vlm, monkeypatch, load, hint, library):
    def fail(*arguments, **options):
        raise ImportError(hint)

    monkeypatch.setattr(loading, "load_processor", fail)
    with pytest.raises(ModelLoadError) as caught:
        load(tiny_vlm("idefics3").path)
    assert f"needs {library} (pip install {library}): {' '.join(hint.split())}" in str(caught.value)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (Phi4MultimodalConfig, "'phi4_multimodal', which AutoModelForImageTextToText does not load"),
        (CLIPConfig, "'clip', which AutoModelForImageTextToText does not load"),
        (LlamaConfig, "'llama', which takes no images"),
    ],
)
def test_a_model_is_refused_for_what_is_true_of_it(tmp_path, config, reason):
    config().save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match=reason):
        check_model(tmp_path)


@pytest.mark.parametrize("load", [check_model, load_model, load_vlm, loading.load_network, loading.load_processor])
def test_code_that_a_model_brings_along_is_neither_run_nor_asked_about(tmp_path, monkeypatch, load):
    """Where nothing is said, transformers asks at the keyboard, which a server does not have."""
    named = {"AutoConfig": "own.Config", "AutoModelForImageTextToText": "own.Model", "AutoProcessor": "own.Processor"}
    for name in ("config.json", "processor_config.json", "preprocessor_config.json"):
        (tmp_path / name).write_text(json.dumps({"model_type": "told", "auto_map": named}))
    (tmp_path / "own.py").write_text("raise SystemExit('run')")
    monkeypatch.setattr("builtins.input", lambda prompt="": pytest.fail(f"asked: {prompt}"))
    with pytest.raises(ValueError, match=r"brings code of its own, which is never run|trust_remote_code"):
        load(str(tmp_path))


def test_the_extra_holds_them(repo_root):
    setup = (repo_root / "setup.py").read_text("utf-8")
    assert {name for name in loading._LIBRARIES if f'"{name}>=' in setup} == set(loading._LIBRARIES)
