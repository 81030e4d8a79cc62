"""Label scores: those of the evaluation, from one reading of the image, for every architecture."""

import numpy as np
import pytest
import torch

from hf_evl_ecg import ECGInterpreter, RenderConfig
from hf_evl_ecg.chat.conversations import ChatTemplateError
from hf_evl_ecg.inference.after_image import ImageQuestion, scores_after_images
from hf_evl_ecg.inference.evaluation import answer_items
from hf_evl_ecg.inference.label_scores import LabelScorer, label_question
from hf_evl_ecg.interpret.pictures import load_picture
from hf_evl_ecg.qa.calibration import option_probabilities
from hf_evl_ecg.qa.labels import LABELS

SMALL = RenderConfig(width_px=440, height_px=340)
RHYTHM = "What is the rhythm of this ECG?"
EVIL = "<script>alert(1)</script>"


def test_label_scores_are_those_of_the_evaluation(interpreter, ecg_records):
    codes = ["AF", "NORM", "LAD", "TINV"]
    done = interpreter(ecg_records[0], labels=codes, max_new_tokens=1)
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
    assert list(done.label_scores.values()) == pytest.approx(expected, rel=1e-4, abs=0)
    assert all(0 < score < 1 for score in done.label_scores.values())
    assert max(expected) > 1.1 * min(expected)
    backwards = interpreter(ecg_records[0], labels=[*codes[::-1], "AF"], max_new_tokens=1).label_scores
    assert list(backwards) == codes[::-1]
    assert backwards == pytest.approx(done.label_scores, rel=1e-4, abs=0)


def test_gemma_shows_another_token_in_a_chat_than_the_model_reads(tiny_vlm, ecg_records):
    """The processor's image token only begins the image there; the model's own token is what is read."""
    tiny = tiny_vlm("gemma3")
    model = tiny.load()
    assert tiny.processor.image_token_id != model.config.image_token_id
    interpreter = ECGInterpreter(model, tiny.processor, render=SMALL)
    test_label_scores_are_those_of_the_evaluation(interpreter, ecg_records)


@pytest.mark.parametrize("name", ["llava_next", "idefics3", "qwen2_vl", "qwen3_vl", "internvl"])
def test_one_reading_of_an_image_serves_all_questions(name, tiny_vlm, hand_made_inputs):
    model = tiny_vlm(name).load()
    inputs, labels = hand_made_inputs(name, model, extra_padding=2)
    token = model.config.image_token_id
    questions = [[70, 71, 72], [70, 73], [70, 80, 81, 82, 83], [90, 91]]  # the last begins otherwise
    answers = [[[100, 101], [102]], [[103], [104, 105, 106]], [[107], [108]], [[109], [110]]]
    asked = [ImageQuestion(row, questions[i], answers[i]) for i in range(4) for row in range(2)]
    scores = scores_after_images(model, {**inputs, "labels": labels}, asked, 1, rows=3)
    found = torch.tensor(scores).view(4, 2, 2).transpose(0, 1)
    for row in range(2):
        head = int((inputs["input_ids"][row] == token).nonzero()[-1]) + 1
        for i, question in enumerate(questions):
            for j, answer in enumerate(answers[i]):
                assert found[row, i, j].item() == pytest.approx(
                    whole_forward(model, inputs, row, head, question, answer), abs=2e-5
                )
    assert found.std() > 0.01


def whole_forward(model, inputs, row, head, question, answer):
    """Log-likelihood of an answer by one forward pass over everything; the other sample repeats this one's text."""
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
    return scores.gather(1, torch.tensor(answer)[:, None]).sum().item()


def test_every_label_has_a_question():
    questions = {code: label_question(code) for code in LABELS}
    assert len({item["question"] for item in questions.values()}) == len(LABELS)
    assert questions["LAD"]["task"] == "axis"
    assert questions["PACE"]["task"] == "rhythm"


def test_temperatures_soften_their_own_task(interpreter, ecg_records):
    batch = interpreter._encode([load_picture(ecg_records[0], SMALL)], [RHYTHM])
    plain = LabelScorer(interpreter.model, interpreter.processor)(batch, ["AF", "LBBB"])[0]
    warm = LabelScorer(interpreter.model, interpreter.processor, temperatures={"rhythm_closed": 2.0})
    softened = warm(batch, ["AF", "LBBB"])[0]
    logit = np.log(plain["AF"] / (1 - plain["AF"]))
    assert softened["AF"] == pytest.approx(1 / (1 + np.exp(-logit / 2)), rel=1e-4, abs=0)
    assert softened["LBBB"] == pytest.approx(plain["LBBB"], rel=1e-4, abs=0)
    with pytest.raises(ValueError, match="above 0"):
        LabelScorer(interpreter.model, interpreter.processor, temperatures={"rhythm_closed": 0.0})


def test_a_template_with_the_question_first_is_refused(tiny_vlm, ecg_records):
    tiny = tiny_vlm("idefics3")
    processor = type(tiny.processor).from_pretrained(tiny.path)
    processor.chat_template = (
        "{% for m in messages %}{% for c in m['content'] if c['type'] == 'text' %}{{ c['text'] }}{% endfor %}"
        "{% for c in m['content'] if c['type'] == 'image' %}{{ '<image>' }}{% endfor %}<end_of_utterance>\n{% endfor %}"
    )
    odd = ECGInterpreter(tiny.load(), processor, render=SMALL)
    with pytest.raises(ChatTemplateError, match="question before its image"):
        odd(ecg_records[0], max_new_tokens=1)
    odd(ecg_records[0], max_new_tokens=1, labels=[])
