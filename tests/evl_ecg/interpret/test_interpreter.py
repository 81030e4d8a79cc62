"""An interpreter answers as the bare model does, whatever form the ECG comes in, alone, in a batch or as a stream."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, pipeline

from hf_evl_ecg import ECGInterpreter, ECGRecordError, RenderConfig, render
from hf_evl_ecg.chat.conversations import ChatTemplateError
from hf_evl_ecg.chat.examples import UnreadableImageError
from hf_evl_ecg.drawing.image_file import ImageFile, upright_rgb
from hf_evl_ecg.inference.generation import generate_answers
from hf_evl_ecg.inference.streaming import stream_answer
from hf_evl_ecg.interpret.interpreter import Interpretation
from hf_evl_ecg.interpret.pictures import load_picture
from hf_evl_ecg.models.loading import ModelLoadError, load_vlm
from hf_evl_ecg.models.native import UnsupportedModelError
from hf_evl_ecg.qa.prompts import REPORT_QUESTION
from hf_evl_ecg.signals.ecg import crop
from hf_evl_ecg.signals.simulation import simulate

SMALL = RenderConfig(width_px=440, height_px=340)
RHYTHM = "What is the rhythm of this ECG?"
EVIL = "<script>alert(1)</script>"


def test_every_form_of_an_ecg_gives_the_same_interpretation(interpreter, ecg_records, tmp_path):
    options = {"max_new_tokens": 12, "labels": ["AF", "NORM"]}
    by_path = interpreter(ecg_records[0], RHYTHM, **options)
    ecg = load_picture(ecg_records[0]).ecg
    picture = render(ecg, SMALL)
    picture.save(tmp_path / "af.png")
    header = ecg_records[0].with_suffix(".hea")
    for form in (str(ecg_records[0]), header, ecg, picture, tmp_path / "af.png", picture.convert("RGBA")):
        other = interpreter(form, RHYTHM, **options)
        assert other.answer == by_path.answer
        assert other.label_scores == pytest.approx(by_path.label_scores, abs=1e-6)
        assert other.image.mode == "RGB"
        assert np.array_equal(other.image, picture)
    assert isinstance(by_path, Interpretation)
    assert by_path.question == RHYTHM
    assert list(by_path.seconds) == ["read", "render", "generate", "score"]
    assert all(seconds > 0 for seconds in by_path.seconds.values())
    elsewhere = interpreter(ecg_records[1], RHYTHM, max_new_tokens=12, labels=[])
    assert elsewhere.label_scores == {}
    assert not np.array_equal(elsewhere.image, by_path.image)


def test_a_batch_equals_single_calls(interpreter, ecg_records):
    questions = [RHYTHM, "Is there an axis deviation? Write a long report on this ECG, please.", "PR interval?"]
    ecgs = [ecg_records[0], ecg_records[1], simulate("NORM", seed=2)]
    alone = [interpreter(e, q, max_new_tokens=10, labels=["AF", "NORM"]) for e, q in zip(ecgs, questions, strict=True)]
    for size in (3, 2):
        batch = interpreter.batch(ecgs, questions, max_new_tokens=10, labels=["AF", "NORM"], batch_size=size)
        assert [b.answer for b in batch] == [a.answer for a in alone]
        assert [b.question for b in batch] == questions
        for one, other in zip(batch, alone, strict=True):
            assert one.label_scores == pytest.approx(other.label_scores, abs=1e-5)
    assert len({a.answer for a in alone}) > 1, "the model must hear its input, or the comparison is empty"
    shared = interpreter.batch(ecgs[:2], RHYTHM, max_new_tokens=4, labels=[])
    assert [s.question for s in shared] == [RHYTHM] * 2
    assert interpreter.batch([], max_new_tokens=4) == []
    assert interpreter.batch(ecgs[:1], max_new_tokens=1, labels=[])[0].question == REPORT_QUESTION


def test_a_stream_joined_is_the_answer(interpreter, ecg_records):
    answer = interpreter(ecg_records[0], RHYTHM, max_new_tokens=24, labels=[]).answer
    pieces = list(interpreter.stream(ecg_records[0], RHYTHM, max_new_tokens=24))
    assert "".join(pieces) == answer
    assert len(pieces) > 1
    assert all(pieces)


def test_settings_come_from_the_exported_config(ecg_student, ecg_records):
    interpreter = ECGInterpreter.from_pretrained(ecg_student)
    grey = RenderConfig(width_px=440, height_px=340, grid="thick", palette="grey")
    assert interpreter.render == grey
    assert interpreter.labels == ("AF", "LBBB")
    assert interpreter.temperatures == {"rhythm_closed": 2.0}
    assert np.array_equal(
        interpreter(ecg_records[0], max_new_tokens=1).image, render(load_picture(ecg_records[0]).ecg, grey)
    )
    own = ECGInterpreter.from_pretrained(
        ecg_student, render=SMALL, labels=["NORM"], temperatures={}, dtype=torch.bfloat16
    )
    assert (own.render, own.labels, own.temperatures) == (SMALL, ("NORM",), {})
    assert own.model.dtype == torch.bfloat16
    assert set(own(ecg_records[0], max_new_tokens=2).label_scores) == {"NORM"}


def test_a_system_prompt_changes_what_is_asked(ecg_student, ecg_records):
    asked = [
        ECGInterpreter.from_pretrained(ecg_student, system_prompt=text) for text in (None, "You are a cardiologist.")
    ]
    ids = [each._encode([load_picture(ecg_records[0], SMALL)], [RHYTHM])["input_ids"] for each in asked]
    assert ids[1].shape[1] > ids[0].shape[1]
    scores = [each(ecg_records[0], max_new_tokens=1).label_scores["LBBB"] for each in asked]
    assert abs(scores[0] - scores[1]) > 1e-5


def test_the_pipeline_of_transformers_answers_the_same(ecg_student, ecg_records):
    interpreter = ECGInterpreter.from_pretrained(ecg_student)
    expected = interpreter(ecg_records[0], RHYTHM, max_new_tokens=12, labels=[])
    ask = pipeline("image-text-to-text", model=str(ecg_student), device="cpu")
    content = [{"type": "image", "image": expected.image}, {"type": "text", "text": RHYTHM}]
    found = ask(text=[{"role": "user", "content": content}], max_new_tokens=12, return_full_text=False)
    assert found[0]["generated_text"].strip() == expected.answer
    assert expected.answer


def test_a_closed_stream_ends_generation(interpreter, ecg_records):
    batch = interpreter._encode([load_picture(ecg_records[0], SMALL)], [RHYTHM])
    steps = []
    handle = interpreter.model.register_forward_pre_hook(lambda *_: steps.append(1))
    try:
        stream = stream_answer(interpreter.model, batch, interpreter.processor.tokenizer, max_new_tokens=200)
        next(stream)
        stream.close()
    finally:
        handle.remove()
    assert 0 < len(steps) < 200
    two = interpreter._encode([load_picture(record, SMALL) for record in ecg_records], [RHYTHM] * 2)
    with pytest.raises(ValueError, match="2 samples"):
        stream_answer(interpreter.model, two, interpreter.processor.tokenizer)


def test_an_error_while_streaming_reaches_the_reader(interpreter, ecg_records, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(interpreter.model, "generate", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(interpreter.stream(ecg_records[0]))


def test_half_characters_wait_for_their_other_half(tiny_vlm, monkeypatch):
    tiny = tiny_vlm("idefics3")
    tokenizer = tiny.processor.tokenizer
    text = " Größe ≥ 2 – naïve 🫀\n ok "
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]

    def speak(model, batch, tokenizer, *, streamer, **_):
        for token in ([0], *([i] for i in ids)):
            streamer.put(torch.tensor(token))

    monkeypatch.setattr("hf_evl_ecg.inference.streaming.generate_ids", speak)
    pieces = list(stream_answer(tiny.load(), {"input_ids": torch.ones(1, 3).long()}, tokenizer))
    assert "".join(pieces) == text.strip()
    assert "\ufffd" not in "".join(pieces)
    assert len(pieces) > 10


def test_bad_ecgs(interpreter, tmp_path):
    (tmp_path / "empty.hea").write_text("")
    (tmp_path / "no.png").write_bytes(b"no picture")
    Image.new("RGB", (40, 40)).save(tmp_path / "half.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "half.png").read_bytes()[:60])
    for name in ("absent", "empty"):
        with pytest.raises(ECGRecordError, match=name):
            interpreter(tmp_path / name)
    Image.new("L", (40, 31)).save(tmp_path / "low.png")
    pages = [Image.new("L", (40, 40), grey) for grey in (0, 255)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    for name in ("no.png", "half.png", "absent.jpg", "low.png", "pages.tif"):
        with pytest.raises(UnreadableImageError, match=name):
            interpreter(tmp_path / name)
        with pytest.raises(UnreadableImageError, match=name):
            interpreter.stream(tmp_path / name)
    with pytest.raises(TypeError, match="source of type int"):
        interpreter(3)


def test_bad_questions(interpreter):
    ecg = simulate("AF", seed=0)
    for arguments, message in (
        ({"question": "  "}, "question is empty"),
        ({"labels": ["AFIB"]}, "unknown label 'AFIB'"),
        ({"labels": "AF"}, "give a list"),
        ({"max_new_tokens": 0}, "at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            interpreter(ecg, **arguments)
    with pytest.raises(ValueError, match="2 questions for 1 ECGs"):
        interpreter.batch([ecg], ["a?", "b?"])
    with pytest.raises(ValueError, match="batch_size=0"):
        interpreter.batch([ecg], batch_size=0)
    for one in (ecg, "records/af"):
        with pytest.raises(TypeError, match="give a list"):
            interpreter.batch(one)
    with pytest.raises(ValueError, match="at least 1"):
        interpreter.stream(ecg, max_new_tokens=0)


def test_bad_models(tmp_path, ecg_student, tiny_vlm, monkeypatch):
    LlamaConfig().save_pretrained(tmp_path / "text")
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / "adapter_config.json").write_text("{}")
    (tmp_path / "llava").mkdir()
    (tmp_path / "llava" / "config.json").write_text('{"model_type": "llava_llama"}')
    with pytest.raises(UnsupportedModelError, match="takes no images"):
        load_vlm(tmp_path / "text")
    for name, message in (("adapters", "adapters only"), ("llava", "llava_llama"), ("absent", "no folder")):
        with pytest.raises(ModelLoadError, match=message):
            load_vlm(tmp_path / name)
    with pytest.raises(ModelLoadError, match="cannot be loaded"):
        load_vlm("org/absent", local_files_only=True)
    with pytest.raises(ModelLoadError, match="quantization='3bit': choose one of"):
        load_vlm(ecg_student, quantization="3bit")
    with pytest.raises(ModelLoadError, match=r"device='cuda:99' cannot be used: .*; here are: cpu"):
        load_vlm(ecg_student, device="cuda:99")
    with pytest.raises(ModelLoadError, match="needs a CUDA device"):
        load_vlm(ecg_student, quantization="4bit", device="cpu")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelLoadError, match="pip install bitsandbytes"):
        load_vlm(ecg_student, quantization="8bit", device="cuda")
    tiny = tiny_vlm("qwen2_vl")
    with pytest.raises(ChatTemplateError, match="no processor for images"):
        ECGInterpreter(tiny.load(), tiny.processor)


def test_damaged_models(tmp_path, ecg_student):
    def damaged(name, change):
        folder = shutil.copytree(ecg_student, tmp_path / name)
        change(folder)
        return folder

    def drop(folder):
        weights = load_file(folder / "model.safetensors")
        weights.pop("model.text_model.norm.weight")
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    def odd(folder):
        config = json.loads((folder / "config.json").read_text())
        config["text_config"]["num_attention_heads"] = 7
        (folder / "config.json").write_text(json.dumps(config))

    with pytest.raises(ModelLoadError, match=r"lacks 1 weights.*norm\.weight"):
        load_vlm(damaged("drop", drop))
    for name, change in (
        ("cut", lambda folder: os.truncate(folder / "model.safetensors", 1000)),
        ("odd", odd),
        ("brace", lambda folder: (folder / "config.json").write_text("{")),
        ("words", lambda folder: (folder / "tokenizer.json").write_text("{}")),
        ("none", lambda folder: (folder / "model.safetensors").unlink()),
    ):
        with pytest.raises(ModelLoadError, match=f"{name} cannot be loaded"):
            load_vlm(damaged(name, change))


def test_pictures_are_upright_and_on_white(tmp_path):
    stripe = Image.new("RGB", (60, 40), "white")
    stripe.paste("black", (0, 0, 60, 10))
    exif = Image.Exif()
    exif[0x0112] = 3  # taken upside down
    stripe.save(tmp_path / "turned.png", exif=exif)
    upright = np.asarray(load_picture(tmp_path / "turned.png").image)
    assert upright[0].min() == 255
    assert upright[-1].max() == 0
    clear = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    clear.save(tmp_path / "clear.png")
    assert np.asarray(load_picture(tmp_path / "clear.png").image).min() == 255


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_scans_of_16_bits_keep_their_greys(tmp_path, name):
    """Not clipped at 255 of 65,535, which leaves a white page."""
    ramp = np.tile(np.arange(256), (64, 1))
    Image.fromarray((ramp * 257).astype(np.uint16)).save(tmp_path / name)
    expected = np.repeat(ramp[..., None], 3, axis=2)
    assert np.array_equal(np.asarray(load_picture(tmp_path / name).image), expected)
    assert np.array_equal(np.asarray(ImageFile(tmp_path)({"image": name})), expected)
    with pytest.raises(ValueError, match="pixels of mode 'F'"):
        upright_rgb(Image.new("F", (40, 40)))


def test_leads_that_the_model_does_not_see_in_full_are_named(interpreter):
    ecg = simulate("NORM", seed=1)
    assert load_picture(ecg).unseen_leads == ()
    tall = dataclasses.replace(ecg, signal_mv=ecg.signal_mv * 2.5)
    assert load_picture(tall).unseen_leads == ("V4",)
    assert load_picture(crop(tall, 0.0, 6.0)).unseen_leads == ("V4", "V5", "V6")
    assert load_picture(crop(tall, 0.0, 6.0), RenderConfig(layout="12x1", gain_mm_mv=5)).unseen_leads == ()
    found = interpreter(crop(ecg, 0.0, 6.0), RHYTHM, labels=[], max_new_tokens=1)
    assert {"V4", "V5", "V6"} <= set(found.unseen_leads)
    assert interpreter(render(ecg, SMALL), RHYTHM, labels=[], max_new_tokens=1).unseen_leads == ()


def test_a_bad_ecg_in_a_batch_is_left_out_where_wanted(interpreter, ecg_records, tmp_path):
    (tmp_path / "empty.hea").write_text("")
    ecgs = [tmp_path / "empty", ecg_records[0], tmp_path / "no.png", ecg_records[1]]
    bad = {}
    questions = ["a?", RHYTHM, "b?", RHYTHM]
    told = interpreter.batch(ecgs, questions, labels=[], max_new_tokens=4, batch_size=2, on_bad_ecg=bad.__setitem__)
    alone = interpreter.batch(ecg_records[:2], RHYTHM, labels=[], max_new_tokens=4)
    assert [one.answer for one in told] == [one.answer for one in alone]
    assert {index: type(error) for index, error in bad.items()} == {0: ECGRecordError, 2: UnreadableImageError}
    assert interpreter.batch(ecgs[:1], labels=[], on_bad_ecg=bad.__setitem__) == []
    with pytest.raises(ECGRecordError, match="empty"):
        interpreter.batch(ecgs, labels=[])


def test_an_unknown_way_of_drawing_is_told(ecg_student, tiny_vlm, caplog):
    tiny = tiny_vlm("idefics3")
    ECGInterpreter.from_pretrained(ecg_student)
    ECGInterpreter(tiny.load(), tiny.processor, render=SMALL)
    assert "does not say how" not in caplog.text
    assert ECGInterpreter(tiny.load(), tiny.processor).render == RenderConfig()
    assert "does not say how" in caplog.text


def test_answers_are_those_of_plain_generation(interpreter, ecg_records):
    batch = interpreter._encode([load_picture(ecg_records[0], SMALL)], [RHYTHM])
    plain = generate_answers(interpreter.model, batch, interpreter.processor.tokenizer, max_new_tokens=9)[0]
    assert interpreter(ecg_records[0], RHYTHM, max_new_tokens=9, labels=[]).answer == plain
