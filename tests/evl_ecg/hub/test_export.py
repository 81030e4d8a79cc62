"""An export is the student alone, loads in a process without this package, and computes what it did before."""

import json
import subprocess
import sys

import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from safetensors import safe_open
from transformers import AutoModelForImageTextToText, AutoProcessor

from hf_evl_ecg.hub import export
from hf_evl_ecg.hub.export import _native_copy, check_input, export_student
from hf_evl_ecg.hub.reload_check import _SCRIPT, ReloadError, relative_difference, reload_logits
from hf_evl_ecg.models.flat_tiles import FlatLlavaNextForConditionalGeneration
from hf_evl_ecg.models.loading import PROVENANCE_KEY
from hf_evl_ecg.models.native import UnsupportedModelError
from hf_evl_ecg.qa.prompts import RHYTHM_QUESTION

PROVENANCE = {"teacher": "tiny teacher", "data": ["PTB-XL"], "commit": None, "results": {"macro_auc": 0.75}}


def names(folder):
    with safe_open(folder / "model.safetensors", "pt") as file:
        return set(file.keys())


def reload_here(change=lambda model, inputs: None):
    """What the new process does, in this one, and after a change: imports are slow, and two tests need the real thing."""

    def reload(folder, given, *, question, device):
        assert question == RHYTHM_QUESTION
        model, processor = AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
        inputs, again = check_input(processor, None)
        given = dict(given)
        assert torch.equal(given.pop("image"), again["image"])
        with torch.no_grad():
            change(model, inputs)
            moved = {n: t.to(model.dtype) if t.is_floating_point() else t for n, t in given.items()}
            processed = {f"processed.{n}": t for n, t in inputs.items()}
            return {"logits": model.eval()(**moved).logits.float(), "input_ids": given["input_ids"], **processed}

    return reload


def test_a_student_with_adapters_and_foreign_weights(tmp_path, tiny_vlm):
    tiny = tiny_vlm("idefics3")
    model = tiny.load()
    model.aligner = torch.nn.Linear(4, 4)  # as a careless trainer might leave behind
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"])).train()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3, generator=generator)
    before = {name: p.clone() for name, p in adapted.named_parameters()}
    report = export_student(adapted, tmp_path / "out", processor=tiny.processor, provenance=PROVENANCE)
    assert all(torch.equal(before[name], p) for name, p in adapted.named_parameters())
    assert adapted.training
    folder = tmp_path / "out"
    assert list(tmp_path.iterdir()) == [folder]
    assert report.dropped == ("aligner.bias", "aligner.weight")
    assert report.reload_difference <= 1e-6
    assert 0 < report.merge_difference <= 1e-4
    original = tiny.load()
    assert report.parameters - 20 == sum(p.numel() for p in original.parameters())
    assert not any("lora" in name or "aligner" in name for name in names(folder))
    assert {path.suffix for path in folder.iterdir()} <= {".json", ".jinja", ".safetensors"}
    config = json.loads((folder / "config.json").read_text())
    assert config[PROVENANCE_KEY] == PROVENANCE
    assert config["architectures"] == ["Idefics3ForConditionalGeneration"]
    assert "auto_map" not in config
    assert tiny.path not in (folder / "config.json").read_text()
    reloaded = AutoModelForImageTextToText.from_pretrained(folder)
    moved = (reloaded.model.text_model.layers[0].self_attn.q_proj.weight
             - original.model.text_model.layers[0].self_attn.q_proj.weight)  # fmt: skip
    assert moved.abs().max() > 0.05, "the adapters must have been merged"
    tokenizer = tiny.processor.tokenizer
    assert tokenizer.convert_tokens_to_ids("<end_of_utterance>") in reloaded.generation_config.eos_token_id
    assert reloaded.generation_config.do_sample is False
    assert AutoProcessor.from_pretrained(folder).chat_template == tiny.processor.chat_template


def test_merged_layers_keep_their_own_types(tiny_vlm):
    model = tiny_vlm("llava_next").load().to(torch.bfloat16)
    model.model.multi_modal_projector.linear_1.float()
    types = {name: p.dtype for name, p in model.named_parameters()}
    assert len(set(types.values())) == 2
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["linear_1", "q_proj"]))
    copied = _native_copy(adapted)
    assert {name: p.dtype for name, p in copied.named_parameters()} == types


def test_a_checkpoint_folder_with_what_training_leaves(tmp_path, tiny_vlm, monkeypatch):
    monkeypatch.setattr(export, "reload_logits", reload_here())
    tiny = tiny_vlm("llava_next")
    checkpoint = tmp_path / "checkpoint-1"
    tiny.load().to(torch.bfloat16).save_pretrained(checkpoint)
    tiny.processor.save_pretrained(checkpoint)
    torch.save({"a": 1}, checkpoint / "training_args.bin")
    (checkpoint / "distillation.safetensors").write_bytes((checkpoint / "model.safetensors").read_bytes())
    report = export_student(checkpoint, tmp_path / "out")
    assert report.dropped == ()
    assert report.merge_difference == 0
    files = {path.name for path in report.folder.iterdir()}
    assert {"model.safetensors", "config.json", "generation_config.json", "chat_template.jinja"} <= files
    assert not files & {"training_args.bin", "distillation.safetensors"}
    assert AutoModelForImageTextToText.from_pretrained(report.folder).dtype == torch.bfloat16


def test_qwen2_vl_through_given_inputs_into_a_relative_folder(tmp_path, tiny_vlm, hand_made_inputs, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny = tiny_vlm("qwen2_vl")
    model = tiny.load()
    inputs, _ = hand_made_inputs("qwen2_vl", model)
    with pytest.raises(ValueError, match="tokenizer alone"):
        export_student(model, tmp_path / "out", processor=tiny.processor)
    report = export_student(model, "out", processor=tiny.processor, check_inputs=inputs)
    assert report.reload_difference <= 1e-6
    assert model.generation_config.eos_token_id != [tiny.processor.eos_token_id], "the given model stays as it was"


def test_an_export_that_computes_something_else_is_refused(tmp_path, tiny_vlm, monkeypatch):
    tiny = tiny_vlm("idefics3")

    def other_weights(model, inputs):
        model.model.text_model.norm.weight[0] += 0.1

    def other_tokens(model, inputs):
        inputs["input_ids"][0, -1] += 1

    for change, message in ((other_weights, "logits differ"), (other_tokens, "other tokens")):
        monkeypatch.setattr(export, "reload_logits", reload_here(change))
        with pytest.raises(ReloadError, match=message):
            export_student(tiny.load(), tmp_path / "out", processor=tiny.processor)
        assert not list(tmp_path.iterdir())
    monkeypatch.setattr(export, "reload_logits", reload_here())
    assert export_student(tiny.load(), tmp_path / "out", processor=tiny.processor).reload_difference <= 1e-6


def test_adapters_on_tied_embeddings_are_refused_with_the_cause(tmp_path, tiny_vlm):
    tiny = tiny_vlm("idefics3")
    model = tiny.load()
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = True
    model.tie_weights()
    assert model.lm_head.weight is model.get_input_embeddings().weight
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["lm_head", "q_proj"], init_lora_weights=False))
    with pytest.raises(
        ReloadError, match=r"of the largest: adapters of lm_head .*tie_word_embeddings.*modules_to_save"
    ):
        export_student(adapted, tmp_path / "out", processor=tiny.processor)
    assert not list(tmp_path.iterdir())


def test_another_image_backend_is_no_other_student(tmp_path, tiny_vlm, monkeypatch):
    """Weights are compared on the same pixels; the processors' pixels apart, in grey levels."""
    tiny = tiny_vlm("idefics3")
    values = tiny.processor.image_processor(Image.new("RGB", (8, 8)), return_tensors="pt")["pixel_values"]
    level = 1 / 255 / tiny.processor.image_processor.image_std[0]
    assert values.is_floating_point()

    def shifted(levels):
        def change(model, inputs):
            inputs["pixel_values"][0, 0, 0, 3, 3] += levels * level

        return change

    monkeypatch.setattr(export, "reload_logits", reload_here(shifted(2)))
    report = export_student(tiny.load(), tmp_path / "out", processor=tiny.processor)
    assert report.pixel_difference == pytest.approx(2, rel=0.02)
    assert report.reload_difference <= 1e-6
    monkeypatch.setattr(export, "reload_logits", reload_here(shifted(9)))
    with pytest.raises(ReloadError, match=r"pixels that differ by (8.9\d|9|9.0\d) of 255 grey levels"):
        export_student(tiny.load(), tmp_path / "again", processor=tiny.processor)
    monkeypatch.setattr(
        export, "reload_logits", reload_here(lambda m, i: i.update(pixel_values=i["pixel_values"][..., 1:]))
    )
    with pytest.raises(ReloadError, match="pixel_values of shape"):
        export_student(tiny.load(), tmp_path / "again", processor=tiny.processor)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_cannot_be_exported(tmp_path, tiny_vlm):
    tiny = tiny_vlm("llava_next")
    model = tiny.load()
    flat = FlatLlavaNextForConditionalGeneration(model.config.__class__.from_dict(model.config.to_dict()))
    with pytest.raises(UnsupportedModelError, match="mm_patch_merge_type='flat': from_pretrained packs"):
        export_student(flat, tmp_path / "o", processor=tiny.processor)
    own = type("OwnLlava", (type(model),), {})(model.config)
    with pytest.raises(UnsupportedModelError, match="no class of transformers"):
        export_student(own, tmp_path / "o", processor=tiny.processor)
    with pytest.raises(ValueError, match="give the student's processor"):
        export_student(model, tmp_path / "o")
    with pytest.raises(ValueError, match="no json"):
        export_student(model, tmp_path / "o", processor=tiny.processor, provenance={"x": object()})
    with pytest.raises(ValueError, match="exists"):
        export_student(model, tmp_path, processor=tiny.processor)
    with pytest.raises(ValueError, match=r"neither config.json nor adapter_config.json"):
        export_student(tmp_path, tmp_path / "o", processor=tiny.processor)
    with pytest.raises(ReloadError, match="does not load in a new process"):
        reload_logits(tmp_path, {"input_ids": torch.ones(1, 2).long()})


def test_the_new_process_cannot_import_this_package():
    head = _SCRIPT.split("folder, inputs")[0] + "\nimport hf_evl_ecg"
    done = subprocess.run([sys.executable, "-P", "-c", head], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "hf_evl_ecg is blocked" in done.stderr


def test_logits_that_are_not_finite_never_agree():
    fine, broken = torch.tensor([1.0, -2.0]), torch.tensor([1.0, torch.nan])
    assert relative_difference(fine, fine) == 0
    assert relative_difference(fine + torch.tensor([0.0, 0.5]), fine) == 0.25
    for pair in ((fine, broken), (broken, fine), (broken, broken), (fine, fine[:1])):
        assert relative_difference(*pair) == float("inf")
