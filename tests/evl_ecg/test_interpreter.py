"""An interpreter answers as the bare model does, whatever form the ECG comes in, alone, in a batch or as a stream."""

import json
import os
import re
import shutil
import warnings
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
import wfdb
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import BitsAndBytesConfig, LlamaConfig, pipeline

from hf_evl_ecg import ECG, ECGInterpreter, ECGRecordError, RenderConfig, render
from hf_evl_ecg.__main__ import main
from hf_evl_ecg.calibration import option_probabilities
from hf_evl_ecg.collator import UnreadableImageError
from hf_evl_ecg.conversations import ChatTemplateError
from hf_evl_ecg.ecg_inputs import load_picture, training_render_config
from hf_evl_ecg.evaluation import answer_items
from hf_evl_ecg.features import UnsupportedModelError
from hf_evl_ecg.generation import generate_answers
from hf_evl_ecg.interpret_report import DISCLAIMER, ECGReport, Opinion, describe_model
from hf_evl_ecg.interpreter import REPORT_QUESTION, Interpretation
from hf_evl_ecg.label_scores import LabelScorer, answers_after_image, label_question
from hf_evl_ecg.labels import LABELS
from hf_evl_ecg.model_loading import ModelLoadError, load_vlm
from hf_evl_ecg.report_page import report_page, true_scale
from hf_evl_ecg.simulate import simulate
from hf_evl_ecg.streaming import stream_answer

SMALL = RenderConfig(width_px=440, height_px=340)
RHYTHM = "What is the rhythm of this ECG?"
EVIL = "<script>alert(1)</script>"


def write_record(folder, name, ecg, comments=()):
    """A WFDB record of 16-bit samples."""
    folder.mkdir(exist_ok=True)
    wfdb.wrsamp(
        name,
        fs=ecg.fs_hz,
        units=["mV"] * 12,
        sig_name=list(ecg.leads),
        p_signal=ecg.signal_mv.astype(np.float64),
        fmt=["16"] * 12,
        write_dir=str(folder),
        comments=list(comments),
    )
    return folder / name


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Two simulated records on disk; the comments of the first are hostile and personal."""
    folder = tmp_path_factory.mktemp("records")
    comments = [EVIL, "<age>: 51", "<sex>: F", "Name: Jane Doe"]
    return [
        write_record(folder, "af", simulate("AF", seed=0), comments),
        write_record(folder, "lbbb", simulate("LBBB", seed=1)),
    ]


@pytest.fixture(scope="module", params=["llava_next", "idefics3"])
def interpreter(request, tiny_vlm):
    tiny = tiny_vlm(request.param)
    return ECGInterpreter(talkative(tiny.load()), tiny.processor, render=SMALL)


@pytest.fixture(scope="module")
def student(tmp_path_factory, tiny_vlm):
    """Folder as an export leaves it, with settings in its config."""
    tiny = tiny_vlm("idefics3")
    model = talkative(tiny.load())
    model.config.update(
        {
            "evl_ecg": {
                "method": "EVL-ECG",
                "teacher": EVIL,
                "images": {"image_width": 440, "image_height": 340, "grid": "thick", "paper": "grey", "augment": 0.5},
                "labels": ["AF", "LBBB"],
                "temperatures": {"rhythm_closed": 2.0},
            }
        }
    )
    model.generation_config.update(
        eos_token_id=tiny.processor.tokenizer.eos_token_id, pad_token_id=tiny.processor.tokenizer.pad_token_id
    )
    folder = tmp_path_factory.mktemp("exported") / "student"
    model.save_pretrained(folder)
    tiny.processor.save_pretrained(folder)
    return folder


def talkative(model):
    """Louder positions and image features, so that a tiny model does not repeat one token whatever it sees."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and ("self_attn" in name or "mlp" in name):
                parameter.normal_(0, 2.0 / parameter.shape[-1] ** 0.5, generator=generator)
    return model


def test_every_form_of_an_ecg_gives_the_same_interpretation(interpreter, records, tmp_path):
    options = {"max_new_tokens": 12, "labels": ["AF", "NORM"]}
    by_path = interpreter(records[0], RHYTHM, **options)
    ecg = load_picture(records[0]).ecg
    picture = render(ecg, SMALL)
    picture.save(tmp_path / "af.png")
    header = records[0].with_suffix(".hea")
    for form in (str(records[0]), header, ecg, picture, tmp_path / "af.png", picture.convert("RGBA")):
        other = interpreter(form, RHYTHM, **options)
        assert other.answer == by_path.answer
        assert other.label_scores == pytest.approx(by_path.label_scores, abs=1e-6)
        assert other.image.mode == "RGB"
        assert np.array_equal(other.image, picture)
    assert isinstance(by_path, Interpretation)
    assert by_path.question == RHYTHM
    assert list(by_path.seconds) == ["read", "render", "generate", "score"]
    assert all(seconds > 0 for seconds in by_path.seconds.values())
    elsewhere = interpreter(records[1], RHYTHM, max_new_tokens=12, labels=[])
    assert elsewhere.label_scores == {}
    assert not np.array_equal(elsewhere.image, by_path.image)


def test_a_batch_equals_single_calls(interpreter, records):
    questions = [RHYTHM, "Is there an axis deviation? Write a long report on this ECG, please.", "PR interval?"]
    ecgs = [records[0], records[1], simulate("NORM", seed=2)]
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


def test_a_stream_joined_is_the_answer(interpreter, records):
    answer = interpreter(records[0], RHYTHM, max_new_tokens=24, labels=[]).answer
    pieces = list(interpreter.stream(records[0], RHYTHM, max_new_tokens=24))
    assert "".join(pieces) == answer
    assert len(pieces) > 1
    assert all(pieces)


def test_label_scores_are_those_of_the_evaluation(interpreter, records):
    codes = ["AF", "NORM", "LAD", "TINV"]
    done = interpreter(records[0], labels=codes, max_new_tokens=1)
    items = [{**label_question(code), "record": code} for code in codes]
    slow = answer_items(
        interpreter.model,
        interpreter.processor,
        items,
        load_image=lambda item: done.image,
        generate=False,
        progress_bar=False,
    )
    expected = [float(option_probabilities([answer.scores])[0, 0]) for answer in slow.answers]
    assert list(done.label_scores) == codes
    assert list(done.label_scores.values()) == pytest.approx(expected, abs=1e-5)
    assert all(0 < score < 1 for score in done.label_scores.values())
    assert max(expected) - min(expected) > 1e-3
    backwards = interpreter(records[0], labels=[*codes[::-1], "AF"], max_new_tokens=1).label_scores
    assert list(backwards) == codes[::-1]
    assert backwards == pytest.approx(done.label_scores, abs=1e-6)


@pytest.mark.parametrize("name", ["llava_next", "idefics3", "qwen2_vl", "qwen3_vl", "internvl"])
def test_one_reading_of_an_image_serves_all_questions(name, tiny_vlm, hand_made_inputs):
    model = tiny_vlm(name).load()
    inputs, labels = hand_made_inputs(name, model, extra_padding=2)
    token = model.config.image_token_id
    questions = [[70, 71, 72], [70, 73], [70, 80, 81, 82, 83], [90, 91]]  # the last begins otherwise
    answers = [[[100, 101], [102]], [[103], [104, 105, 106]], [[107], [108]], [[109], [110]]]
    found = answers_after_image(model, {**inputs, "labels": labels}, token, questions, answers, 1)
    assert found.shape == (2, 4, 2)
    for row in range(2):
        head = int((inputs["input_ids"][row] == token).nonzero()[-1]) + 1
        for i, question in enumerate(questions):
            for j, answer in enumerate(answers[i]):
                assert found[row, i, j].item() == pytest.approx(
                    whole_forward(model, inputs, row, head, question, answer), abs=2e-5
                )
    assert found.std() > 0.01


def whole_forward(model, inputs, row, head, question, answer):
    """Mean log-likelihood of an answer by one forward pass over everything; the other sample repeats this one's text."""
    words = torch.tensor([question + answer]).expand(2, -1)
    size = inputs["input_ids"].shape
    tails = {"input_ids": words, "attention_mask": torch.ones_like(words), "mm_token_type_ids": torch.zeros_like(words)}
    heads = {n: v[[row, row], :head] for n, v in inputs.items() if v.shape == size}
    rest = {n: v for n, v in inputs.items() if v.shape != size}
    if rest["pixel_values"].shape[0] == 2:
        rest = {n: v[[row, row]] for n, v in rest.items()}
    else:  # patches of both images in one list
        half = rest["pixel_values"].shape[0] // 2
        rest["pixel_values"] = rest["pixel_values"][row * half : (row + 1) * half].repeat(
            2, 1, *[1] * (rest["pixel_values"].ndim - 2)
        )
    with torch.no_grad():
        logits = model(**{n: torch.cat([v, tails[n].to(v.dtype)], 1) for n, v in heads.items()}, **rest).logits
    scores = logits[0, -len(answer) - 1 : -1].float().log_softmax(-1)
    return scores.gather(1, torch.tensor(answer)[:, None]).mean().item()


def test_every_label_has_a_question():
    questions = {code: label_question(code) for code in LABELS}
    assert len({item["question"] for item in questions.values()}) == len(LABELS)
    assert questions["LAD"]["task"] == "axis"
    assert questions["PACE"]["task"] == "rhythm"


def test_temperatures_soften_their_own_task(interpreter, records):
    batch = interpreter._encode([load_picture(records[0], SMALL)], [RHYTHM])
    plain = LabelScorer(interpreter.model, interpreter.processor)(batch, ["AF", "LBBB"])[0]
    warm = LabelScorer(interpreter.model, interpreter.processor, temperatures={"rhythm_closed": 2.0})
    softened = warm(batch, ["AF", "LBBB"])[0]
    logit = np.log(plain["AF"] / (1 - plain["AF"]))
    assert softened["AF"] == pytest.approx(1 / (1 + np.exp(-logit / 2)), abs=1e-6)
    assert softened["LBBB"] == pytest.approx(plain["LBBB"], abs=1e-7)
    with pytest.raises(ValueError, match="above 0"):
        LabelScorer(interpreter.model, interpreter.processor, temperatures={"rhythm_closed": 0.0})


def test_a_template_with_the_question_first_is_refused(tiny_vlm, records):
    tiny = tiny_vlm("idefics3")
    processor = type(tiny.processor).from_pretrained(tiny.path)
    processor.chat_template = (
        "{% for m in messages %}{% for c in m['content'] if c['type'] == 'text' %}{{ c['text'] }}{% endfor %}"
        "{% for c in m['content'] if c['type'] == 'image' %}{{ '<image>' }}{% endfor %}<end_of_utterance>\n{% endfor %}"
    )
    odd = ECGInterpreter(tiny.load(), processor, render=SMALL)
    with pytest.raises(ChatTemplateError, match="question before its image"):
        odd(records[0], max_new_tokens=1)
    odd(records[0], max_new_tokens=1, labels=[])


def test_settings_come_from_the_exported_config(student, records):
    interpreter = ECGInterpreter.from_pretrained(student)
    grey = RenderConfig(width_px=440, height_px=340, grid="thick", palette="grey")
    assert interpreter.render == grey
    assert interpreter.labels == ("AF", "LBBB")
    assert interpreter.temperatures == {"rhythm_closed": 2.0}
    assert np.array_equal(interpreter(records[0], max_new_tokens=1).image, render(load_picture(records[0]).ecg, grey))
    own = ECGInterpreter.from_pretrained(student, render=SMALL, labels=["NORM"], temperatures={}, dtype=torch.bfloat16)
    assert (own.render, own.labels, own.temperatures) == (SMALL, ("NORM",), {})
    assert own.model.dtype == torch.bfloat16
    assert set(own(records[0], max_new_tokens=2).label_scores) == {"NORM"}
    assert training_render_config({}) == RenderConfig()
    assert training_render_config({"images": {"width_px": 600}}).width_px == 600
    with pytest.raises(ValueError, match=r"unknown fields.*'colour'"):
        training_render_config({"images": {"colour": "red"}})


def test_a_system_prompt_changes_what_is_asked(student, records):
    asked = [ECGInterpreter.from_pretrained(student, system_prompt=text) for text in (None, "You are a cardiologist.")]
    ids = [each._encode([load_picture(records[0], SMALL)], [RHYTHM])["input_ids"] for each in asked]
    assert ids[1].shape[1] > ids[0].shape[1]
    scores = [each(records[0], max_new_tokens=1).label_scores["LBBB"] for each in asked]
    assert abs(scores[0] - scores[1]) > 1e-5


def test_the_pipeline_of_transformers_answers_the_same(student, records):
    interpreter = ECGInterpreter.from_pretrained(student)
    expected = interpreter(records[0], RHYTHM, max_new_tokens=12, labels=[])
    ask = pipeline("image-text-to-text", model=str(student), device="cpu")
    content = [{"type": "image", "image": expected.image}, {"type": "text", "text": RHYTHM}]
    found = ask(text=[{"role": "user", "content": content}], max_new_tokens=12, return_full_text=False)
    assert found[0]["generated_text"].strip() == expected.answer
    assert expected.answer


def test_a_closed_stream_ends_generation(interpreter, records):
    batch = interpreter._encode([load_picture(records[0], SMALL)], [RHYTHM])
    steps = []
    handle = interpreter.model.register_forward_pre_hook(lambda *_: steps.append(1))
    try:
        stream = stream_answer(interpreter.model, batch, interpreter.processor.tokenizer, max_new_tokens=200)
        next(stream)
        stream.close()
    finally:
        handle.remove()
    assert 0 < len(steps) < 200
    two = interpreter._encode([load_picture(record, SMALL) for record in records], [RHYTHM] * 2)
    with pytest.raises(ValueError, match="2 samples"):
        stream_answer(interpreter.model, two, interpreter.processor.tokenizer)


def test_an_error_while_streaming_reaches_the_reader(interpreter, records, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(interpreter.model, "generate", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(interpreter.stream(records[0]))


def test_half_characters_wait_for_their_other_half(tiny_vlm, monkeypatch):
    tiny = tiny_vlm("idefics3")
    tokenizer = tiny.processor.tokenizer
    text = " Größe ≥ 2 – naïve 🫀\n ok "
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]

    def speak(model, batch, tokenizer, *, streamer, **_):
        for token in ([0], *([i] for i in ids)):
            streamer.put(torch.tensor(token))

    monkeypatch.setattr("hf_evl_ecg.streaming.generate_ids", speak)
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
    for name in ("no.png", "half.png", "absent.jpg"):
        with pytest.raises(UnreadableImageError, match=name):
            interpreter(tmp_path / name)
        with pytest.raises(UnreadableImageError, match=name):
            interpreter.stream(tmp_path / name)
    with pytest.raises(TypeError, match="an ECG as int"):
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
    with pytest.raises(ValueError, match="at least 1"):
        interpreter.stream(ecg, max_new_tokens=0)


def test_bad_models(tmp_path, student, tiny_vlm, monkeypatch):
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
    with pytest.raises(ModelLoadError, match="quantization='3bit'; allowed"):
        load_vlm(student, quantization="3bit")
    with pytest.raises(ModelLoadError, match="needs a CUDA device"):
        load_vlm(student, quantization="4bit", device="cpu")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelLoadError, match="pip install bitsandbytes"):
        load_vlm(student, quantization="8bit", device="cuda")
    tiny = tiny_vlm("qwen2_vl")
    with pytest.raises(ChatTemplateError, match="no processor for images"):
        ECGInterpreter(tiny.load(), tiny.processor)


def test_damaged_models(tmp_path, student):
    def damaged(name, change):
        folder = shutil.copytree(student, tmp_path / name)
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
    stripe = Image.new("RGB", (30, 20), "white")
    stripe.paste("black", (0, 0, 30, 5))
    exif = Image.Exif()
    exif[0x0112] = 3  # taken upside down
    stripe.save(tmp_path / "turned.png", exif=exif)
    upright = np.asarray(load_picture(tmp_path / "turned.png").image)
    assert upright[0].min() == 255
    assert upright[-1].max() == 0
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    clear.save(tmp_path / "clear.png")
    assert np.asarray(load_picture(tmp_path / "clear.png").image).min() == 255


def test_the_command_line(student, records, tmp_path, capsys):
    out = tmp_path / "new" / "af.html"
    arguments = ["interpret", str(records[0]), "--model", str(student), "--teacher", str(student)]
    arguments += [
        "--question",
        RHYTHM,
        "--max_new_tokens",
        "6",
        "--json",
        str(tmp_path / "af.json"),
        "--html",
        str(out),
    ]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "atrial fibrillation" in printed
    assert DISCLAIMER in printed
    data = json.loads((tmp_path / "af.json").read_text())
    interpreter = ECGInterpreter.from_pretrained(student)
    expected = interpreter(records[0], RHYTHM, max_new_tokens=6)
    assert [o["answer"] for o in data["opinions"]] == [expected.answer] * 2
    assert data["opinions"][0]["label_scores"] == pytest.approx(expected.label_scores, abs=1e-6)
    assert data["record"]["record"] == "af"
    assert data["record"]["fs_hz"] == 500
    assert data["opinions"][0]["model"]["name"] == "student"
    assert data["opinions"][0]["seconds"]["read"] > 0
    page = out.read_text()
    for text in (page, json.dumps(data)):
        assert str(records[0].parent) not in text
        assert "Jane Doe" not in text
        assert "female" not in text
    assert EVIL not in page
    assert EVIL.replace("<", "&lt;").replace(">", "&gt;") in page, "the teacher's name is shown, harmless"


def test_what_the_command_line_refuses(student, records, tmp_path, capsys):
    model = ["--model", str(student)]
    for arguments, message in (
        (["interpret", str(tmp_path / "absent"), *model], "absent.hea"),
        (["interpret", str(records[0]), "--model", str(tmp_path / "absent")], "no folder"),
        (["interpret", str(records[0]), *model, "--layout", "5x5"], "known are"),
        (["interpret", str(records[0]), *model, "--labels", "XX"], "unknown label"),
        (["interpret", str(records[0]), *model, "--missing", "guess"], "nan is 'guess'"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
    assert main(["explain"]) == 2
    assert main(["--help"]) == 0
    assert "interpret RECORD" in capsys.readouterr().out


def test_warnings_and_faults_of_a_record_are_told(student, tmp_path, capsys):
    ecg = simulate("NORM", seed=3)
    signal = ecg.signal_mv.copy() * 30
    signal[:, 5] = 0
    record = write_record(tmp_path / "r", "loud", ECG(signal, ecg.fs_hz))
    page = tmp_path / "loud.html"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(["interpret", str(record), "--model", str(student), "--labels", "none", "--html", str(page)]) == 0
    assert "Warning:" in capsys.readouterr().out
    text = page.read_text()
    assert text.count('class="warning"') == 2
    assert "Flat leads: aVF" in text
    assert "Label scores" not in text
    assert str(tmp_path) not in text


def opinion(answer="sinus rhythm", **scores):
    model = {"name": EVIL, "architecture": "A", "parameters": 1000, "dtype": "float32", "device": "cpu"}
    seconds = {"read": 0.0, "render": 0.0, "generate": 0.5, "score": 0.25}
    return Opinion(model, Interpretation(RHYTHM, answer, scores, Image.new("RGB", (20, 10)), seconds))


@pytest.mark.parametrize("layout", ["3x4+rhythm", "3x4", "6x2", "12x1"])
def test_the_page_is_true_to_scale(layout):
    config = true_scale(layout)
    page = config.page()
    text = report_page(ECGReport("r", [opinion()], simulate("AF", seed=0), layout=layout))
    width, height = map(
        float, re.search(r'<img style="width:([\d.]+)mm;height:([\d.]+)mm" alt="12-lead', text).groups()
    )
    assert width == pytest.approx(page.width_px / page.scale.px_per_mm, abs=1e-9)
    assert height == pytest.approx(page.height_px / page.scale.px_per_mm, abs=1e-9)
    assert page.scale.px_per_s * width / page.width_px == pytest.approx(25, abs=1e-9), "25 mm of paper per second"
    assert page.scale.px_per_mv * height / page.height_px == pytest.approx(10, abs=1e-9), "10 mm of paper per mV"
    assert width <= 297 - 16, "fits between the margins of A4 landscape"
    assert height <= 210 - 12
    assert render(simulate("AF", seed=0), config).size == (page.width_px, page.height_px)


def test_the_page_is_self_contained_and_escapes_all_text():
    evil = EVIL + "\"'&"
    report = ECGReport(
        f"{EVIL}", [opinion(evil, AF=0.25), opinion("", NORM=1.0)], simulate("AF", seed=0), warnings=[evil]
    )
    text = report_page(report)
    assert "<script" not in text
    assert "alert(1)&lt;/script&gt;&quot;&#x27;&amp;" in text
    assert not re.search(r"(?:src|href)=\"(?!data:)", text)
    assert not re.search(r"https?://", text)
    assert "default-src 'none'" in text
    assert text.count("data:image/png;base64,") == 3
    assert 'style="width:25.0%"' in text
    assert text.count('<td class="number"></td>') == 2, "a label that one model did not score stays empty"
    assert "simulated, not a patient" in text
    assert DISCLAIMER in text
    assert "(nothing)" in text


def test_a_report_on_a_picture_claims_no_scale():
    report = ECGReport("scan.png", [opinion()], created=datetime(2026, 1, 2, 3, 4, tzinfo=UTC))
    text = report_page(report)
    assert "scale is not known" in text
    assert "true to scale" not in text
    assert "2026-01-02 03:04 UTC" in text
    assert report.to_dict()["record"] == {"record": "scan.png", "source": "picture"}
    with pytest.raises(ValueError, match="0 opinions"):
        ECGReport("r", [])
    with pytest.raises(ValueError, match="known are"):
        ECGReport("r", [opinion()], layout="5x5")


def test_what_a_report_says_of_a_long_record():
    ecg = simulate("AF", seed=0, duration_s=12.0)
    report = ECGReport("r", [opinion()], ecg)
    assert report.notices() == ["Shown are the first 10 of 12 s"]
    assert report.facts()["duration_s"] == 12


def test_a_model_is_described_by_what_identifies_it(student):
    described = describe_model(ECGInterpreter.from_pretrained(student))
    assert described["name"] == "student"
    assert described["architecture"] == "Idefics3ForConditionalGeneration"
    assert described["parameters"] > 1000
    assert described["method"] == "EVL-ECG"
    assert "revision" not in described


@pytest.mark.parametrize(("settings", "expected"), [({"load_in_4bit": True}, "4bit"), ({"load_in_8bit": True}, "8bit")])
def test_a_report_tells_of_quantized_weights(settings, expected, student):
    interpreter = ECGInterpreter.from_pretrained(student)
    interpreter.model.config.quantization_config = BitsAndBytesConfig(**settings)
    described = describe_model(interpreter)
    assert described["quantization"] == expected
    report = ECGReport("r", [Opinion(described, opinion().interpretation)])
    assert f"float32, {expected} on cpu" in report_page(report)


def test_an_unknown_way_of_drawing_is_told(student, tiny_vlm, caplog):
    tiny = tiny_vlm("idefics3")
    ECGInterpreter.from_pretrained(student)
    ECGInterpreter(tiny.load(), tiny.processor, render=SMALL)
    assert "does not say how" not in caplog.text
    assert ECGInterpreter(tiny.load(), tiny.processor).render == RenderConfig()
    assert "does not say how" in caplog.text


def test_answers_are_those_of_plain_generation(interpreter, records):
    batch = interpreter._encode([load_picture(records[0], SMALL)], [RHYTHM])
    plain = generate_answers(interpreter.model, batch, interpreter.processor.tokenizer, max_new_tokens=9)[0]
    assert interpreter(records[0], RHYTHM, max_new_tokens=9, labels=[]).answer == plain


@pytest.mark.real_data
def test_a_real_record(student, data_dir, tmp_path):
    record = data_dir / "ecg" / "ludb" / "data" / "1"
    page = tmp_path / "1.html"
    arguments = ["interpret", str(record), "--model", str(student), "--gain_per_mv", "1000", "--html", str(page)]
    assert main([*arguments, "--max_new_tokens", "4"]) == 0
    text = page.read_text()
    assert "10 s at 500 Hz" in text
    assert 'class="warning"' not in text
    assert "Sinus" not in text, "what the header says about the patient stays out"
