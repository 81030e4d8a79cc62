"""The collator labels exactly the answers, for two processors at once, and refuses what cannot be learnt."""

import copy
import logging

import numpy as np
import pytest
import torch
from PIL import Image

from hf_evl_ecg.chat import encoding
from hf_evl_ecg.chat.collator import EVLECGCollator
from hf_evl_ecg.chat.conversations import (
    ChatTemplateError,
    ExampleError,
    MissingAnswerError,
    Turn,
    chat_messages,
    read_turns,
    render_chat,
)
from hf_evl_ecg.chat.encoding import MissingImageTokensError, TruncatedImageError, encode_chats, select_tokens
from hf_evl_ecg.chat.examples import UnreadableImageError, example_key, record_name
from hf_evl_ecg.data.questions import question_dataset
from hf_evl_ecg.data.rendered import RenderedECG
from hf_evl_ecg.drawing.artefacts import AugmentConfig
from hf_evl_ecg.drawing.config import RenderConfig
from hf_evl_ecg.drawing.image_file import ImageFile
from hf_evl_ecg.sources.simulated import load_simulated

THREE_TURNS = {
    "id": "m",
    "conversations": [
        {"from": "human", "value": "<image>\nWhat is the rhythm?"},
        {"from": "gpt", "value": "atrial fibrillation"},
        {"from": "human", "value": "And the axis?"},
        {"from": "gpt", "value": "left axis, no doubt é"},
        {"from": "human", "value": "Rate?"},
        {"from": "gpt", "value": "72"},
    ],
}


def learnt(processor, batch, row=0):
    """The text of the labelled tokens, special tokens included."""
    labels = batch["labels"][row]
    return processor.tokenizer.decode(labels[labels != -100])


@pytest.fixture
def processors(tiny_vlm):
    return tiny_vlm("idefics3").processor, tiny_vlm("llava_next").processor


def test_both_models_learn_the_answer_and_its_end(processors, ecg_examples):
    student, teacher = processors
    batch = EVLECGCollator(student, teacher)(ecg_examples)
    for row, example in enumerate(ecg_examples):
        assert learnt(student, batch, row) == f" {example['answer']}<end_of_utterance>"
        assert learnt(teacher, batch["teacher"], row).split() == f"{example['answer']}</s>".split()
    assert batch["labels"].shape == batch["input_ids"].shape
    assert (batch["input_ids"] == student.image_token_id).sum(1).tolist() == [20] * 6
    assert (batch["teacher"]["input_ids"] == teacher.image_token_id).sum(1).tolist() == [14] * 6
    assert batch["pixel_values"].shape[:2] == (6, 5)
    assert batch["skipped"] == []
    assert len(set(batch["keys"])) == 6
    assert "offset_mapping" not in batch


def test_the_first_label_follows_the_generation_prompt(processors, ecg_examples):
    for processor in processors:
        batch = EVLECGCollator(processor)(ecg_examples[:1])
        ids = batch["input_ids"][0]
        first = int((batch["labels"][0] != -100).nonzero()[0])
        messages = chat_messages([Turn("What is the rhythm?", "x")])[:1]
        prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
        expected = processor(text=prompt, images=[ecg_examples[0]["image"]], return_tensors="pt")["input_ids"][0]
        assert ids[:first].tolist() == expected.tolist()


@pytest.mark.parametrize("side", ["left", "right"])
def test_every_turn_is_learnt_on_either_padding_side(processors, ecg_examples, side):
    student, teacher = processors
    example = {**THREE_TURNS, "image": ecg_examples[0]["image"]}
    batch = EVLECGCollator(student, teacher, padding_side=side)([ecg_examples[3], example])
    assert learnt(student, batch, 1) == (
        " atrial fibrillation<end_of_utterance> left axis, no doubt é<end_of_utterance> 72<end_of_utterance>"
    )
    assert learnt(student, batch, 0) == " yes<end_of_utterance>"
    assert "".join(learnt(teacher, batch["teacher"], 1).split()) == (
        "atrialfibrillation</s>leftaxis,nodoubté</s>72</s>"
    ), "a template without an end of turn: every answer learns to stop"
    padded_at = 0 if side == "left" else -1
    assert batch["attention_mask"][0, padded_at] == 0
    assert batch["labels"][0, padded_at] == -100


def test_answer_groups_join_the_same_bytes(processors, ecg_examples):
    student, teacher = processors
    batch = EVLECGCollator(student, teacher)(ecg_examples)
    for row, example in enumerate(ecg_examples):
        texts = []
        for processor, labels, groups in (
            (student, batch["labels"][row], batch["groups"]["student"][row]),
            (teacher, batch["teacher"]["labels"][row], batch["groups"]["teacher"][row]),
        ):
            ids = labels[labels != -100]
            groups = groups[: len(ids)]
            merged = [processor.tokenizer.decode(ids[groups == g]).strip() for g in range(int(groups.max()) + 1)]
            texts.append(merged)
        assert texts[0][:-1] == texts[1][:-1]
        assert "".join(texts[0][:-1]) == example["answer"].replace(" ", "")
        assert texts[0][-1], texts[1][-1] == ("<end_of_utterance>", "</s>")


def test_groups_of_every_answer_of_a_conversation(processors, ecg_examples):
    """The teacher's answers begin with a space or not: that of the second answer must not end the grouping."""
    student, teacher = copy.copy(processors[0]), processors[1]
    student.chat_template = student.chat_template.replace("{{ ': ' }}", "{{ ':\\n' }}")
    student.chat_template = student.chat_template.replace("{{ 'Assistant:' }}", "{{ 'Assistant:\\n' }}")
    turns = [{**turn, "value": turn["value"].replace(" é", "")} for turn in THREE_TURNS["conversations"]]
    example = {"id": "m", "conversations": turns, "image": ecg_examples[0]["image"]}
    batch = EVLECGCollator(student, teacher)([example, ecg_examples[3]])
    assert learnt(student, batch).startswith("atrial")
    taught = batch["teacher"]["labels"][0]
    assert teacher.tokenizer.convert_ids_to_tokens(int(taught[taught != -100][0])).startswith("▁")
    texts = []
    for processor, labels, groups in (
        (student, batch["labels"][0], batch["groups"]["student"][0]),
        (teacher, batch["teacher"]["labels"][0], batch["groups"]["teacher"][0]),
    ):
        ids = labels[labels != -100]
        groups = groups[: len(ids)]
        decode = processor.tokenizer.decode
        texts.append([decode(ids[groups == g]).strip() for g in range(int(groups.max()) + 1)])
    ends = [i for i, text in enumerate(texts[0]) if text == "<end_of_utterance>"]
    assert len(ends) == 3
    assert [texts[1][i] for i in ends] == ["</s>"] * 3
    for i in ends:
        texts[0][i] = texts[1][i] = "|"
    assert texts[0] == texts[1]
    assert "".join(texts[0]).replace(" ", "") == "atrialfibrillation|leftaxis,nodoubt|72|"


def test_the_beginning_of_a_text_is_marked_once(processors, ecg_examples):
    """Templates such as Gemma 3's write the token that the tokenizer would add."""
    _, teacher = processors
    plain = EVLECGCollator(teacher)(ecg_examples)
    writes = copy.copy(teacher)
    writes.chat_template = "{{ bos_token }}" + teacher.chat_template
    written = EVLECGCollator(writes)(ecg_examples)
    bos = teacher.tokenizer.bos_token_id
    for batch in (plain, written):
        assert (batch["input_ids"] == bos).sum(1).tolist() == [1] * 6
        assert [learnt(teacher, batch, row) for row in range(6)] == [learnt(teacher, plain, row) for row in range(6)]


def test_messages_and_conversations_and_question_answer_agree(processors, ecg_examples):
    student, _ = processors
    image = ecg_examples[0]["image"]
    forms = [
        {"id": "1", "image": image, "question": "Rhythm?", "answer": "yes"},
        {
            "id": "1",
            "image": image,
            "messages": [
                {"role": "system", "content": "You are a cardiologist."},
                {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Rhythm?"}]},
                {"role": "assistant", "content": "yes"},
            ],
        },
        {
            "id": "1",
            "image": image,
            "conversations": [{"from": "human", "value": "Rhythm?\n<image>"}, {"from": "gpt", "value": "yes"}],
        },
    ]
    batches = [EVLECGCollator(student)([form]) for form in forms]
    for other in batches[1:]:
        assert other["input_ids"].tolist() == batches[0]["input_ids"].tolist()
        assert other["keys"] == batches[0]["keys"]


def test_generation_tags_make_no_difference(processors):
    _, teacher = processors
    messages = chat_messages([Turn("a?", "b c"), Turn("d?", "e")])
    tagged = render_chat(teacher, messages)
    plain_template = teacher.chat_template.replace("{% generation %}", "").replace("{% endgeneration %}", "")

    class Plain:
        tokenizer = teacher.tokenizer

        def apply_chat_template(self, chat, **kwargs):
            return teacher.apply_chat_template(chat, chat_template=plain_template, **kwargs)

    assert render_chat(Plain(), messages) == tagged
    assert [tagged.text[s:e] for s, e in tagged.spans] == [" b c</s>", " e</s>"]


def test_templates_that_trim_or_think(processors):
    student, _ = processors

    class With:
        tokenizer = student.tokenizer

        def __init__(self, template):
            self.template = template

        def apply_chat_template(self, chat, **kwargs):
            return student.apply_chat_template(chat, chat_template=self.template, **kwargs)

    trims = "{% for m in messages %}{{ m.role }}: {{ m.content[-1].text | trim }}<end_of_utterance>{% endfor %}"
    trims += "{% if add_generation_prompt %}assistant: {% endif %}"
    chat = render_chat(With(trims), chat_messages([Turn(" q ", " a ")], images=0))
    assert [chat.text[s:e] for s, e in chat.spans] == ["a<end_of_utterance>"]
    thinks = trims.replace("{{ m.content[-1].text", "{% if loop.last %}<think></think>{% endif %}{{ m.content[-1].text")
    chat = render_chat(With(thinks), chat_messages([Turn("q", "a"), Turn("q", "b")], images=0))
    assert [chat.text[s:e] for s, e in chat.spans] == ["a<end_of_utterance>", "b<end_of_utterance>"]
    with pytest.raises(ChatTemplateError, match="unchanged"):
        render_chat(With(trims.replace("trim", "upper")), chat_messages([Turn("q", "aB")], images=0))
    with pytest.raises(ChatTemplateError, match="0 of 1 answers"):
        render_chat(With("{{ messages[0].content[-1].text }}"), chat_messages([Turn("q", "a")], images=0))


def test_long_answers_are_cut_and_images_never(processors, ecg_examples):
    student, teacher = processors
    example = {**ecg_examples[0], "answer": "sinus rhythm " * 30}
    full = EVLECGCollator(student)([example])
    length = full["input_ids"].shape[1]
    cut = EVLECGCollator(student, max_length=length - 20)([example])
    assert cut["input_ids"].tolist() == [full["input_ids"][0, : length - 20].tolist()]
    assert cut["labels"].tolist() == [full["labels"][0, : length - 20].tolist()]
    mixed = EVLECGCollator(student, max_length=length - 20, padding_side="left")([ecg_examples[3], example])
    assert mixed["input_ids"][1].tolist() == cut["input_ids"][0].tolist()
    assert learnt(student, mixed, 0) == " yes<end_of_utterance>"
    with pytest.raises(TruncatedImageError, match=r"record 'r0'.*max_length=12 would cut .* of 20 image tokens"):
        EVLECGCollator(student, max_length=12).check(ecg_examples[:1])
    question = int((full["labels"][0] != -100).nonzero()[0])
    with pytest.raises(TruncatedImageError, match="leaves nothing of the answer"):
        EVLECGCollator(student, max_length=question).check([example])
    with pytest.raises(TruncatedImageError, match="of 14 image tokens"):
        EVLECGCollator(student, teacher, teacher_max_length=9).check(ecg_examples[:1])


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"answer": ""}, MissingAnswerError, "record 'r0': turn 1 has an empty answer"),
        ({"answer": None}, MissingAnswerError, "empty answer"),
        ({"question": " "}, MissingAnswerError, "empty question"),
        ({"conversations": THREE_TURNS["conversations"][:1]}, MissingAnswerError, "must alternate"),
        ({"conversations": []}, MissingAnswerError, "must alternate"),
        ({"image": None}, UnreadableImageError, "NoneType: a PIL image or a file name"),
        ({"image": "x.png"}, UnreadableImageError, "a file name needs a folder"),
        ({"question": "a <fake_token> <image>", "answer": "<image> b"}, None, None),
        ({"messages": [{"role": "tool", "content": "x"}]}, MissingAnswerError, r"\['tool'\]"),
    ],
)
def test_bad_examples_are_named(processors, ecg_examples, change, error, text):
    student, _ = processors
    example = {**ecg_examples[0], **change}
    collator = EVLECGCollator(student)
    if error is None:
        assert learnt(student, collator.check([example])) == " b<end_of_utterance>"
        return
    with pytest.raises(error, match=text):
        collator.check([example])
    with pytest.raises(error, match=text):
        EVLECGCollator(student, on_bad_example="stop")([example])


def test_a_bad_record_in_a_long_run_is_left_out(processors, ecg_examples, caplog):
    student, teacher = processors
    collator = EVLECGCollator(student, teacher)
    bad = {**ecg_examples[1], "answer": ""}
    with caplog.at_level(logging.WARNING):
        batch = collator([ecg_examples[0], bad, ecg_examples[2]])
    assert batch["input_ids"].shape[0] == batch["teacher"]["input_ids"].shape[0] == 2
    assert len(batch["keys"]) == 2
    assert batch["skipped"] == ["record 'r1': turn 1 has an empty answer; remove the turn or fill it in."]
    assert "skipped record 'r1'" in caplog.text
    again = collator([bad])
    assert again["keys"] == batch["keys"][-1:], "an empty batch repeats the last good example"
    with pytest.raises(ExampleError, match="no usable example"):
        EVLECGCollator(student)([bad])


def test_too_long_an_example_does_not_take_the_batch_with_it(processors, ecg_examples):
    student, _ = processors
    length = EVLECGCollator(student)(ecg_examples[:1])["input_ids"].shape[1]
    wordy = {**ecg_examples[1], "question": "What is the rhythm? " * 20}
    batch = EVLECGCollator(student, max_length=length)([ecg_examples[0], wordy, ecg_examples[3]])
    assert batch["input_ids"].shape[0] == 2
    assert "record 'r1'" in batch["skipped"][0]


def test_of_two_questions_about_one_record_only_the_bad_one_is_left_out(processors, ecg_examples):
    student, _ = processors
    length = EVLECGCollator(student)(ecg_examples[:1])["input_ids"].shape[1]
    wordy = {**ecg_examples[0], "question": "What is the rhythm? " * 20}
    collator = EVLECGCollator(student, max_length=length)
    batch = collator([wordy, ecg_examples[0], wordy])
    assert batch["keys"] == [example_key(ecg_examples[0])]
    assert len(batch["skipped"]) == 2


def test_what_a_processor_or_template_cannot_take_is_left_out(processors, ecg_examples):
    """No image at all, and an answer that the template alters: the record is named, the rest is learnt."""
    student, teacher = processors
    student = copy.copy(student)
    student.chat_template = student.chat_template.replace(
        "{{ line['text'] }}", "{{ line['text'].split('</think>')[-1] }}"
    ).replace(
        "<|im_start|>{%", "{{ raise_exception('no chat') if 'forbidden' in messages[0]['content'][-1]['text'] }}{%"
    )
    flat = {**ecg_examples[1], "image": np.zeros(7)}  # what a load_image of one's own may return
    thinks = {**ecg_examples[2], "answer": "so </think> yes"}
    forbidden = {**ecg_examples[4], "question": "forbidden"}
    collator = EVLECGCollator(student, teacher, load_image=lambda example: example["image"])
    batch = collator([flat, ecg_examples[0], thinks, forbidden, ecg_examples[3]])
    assert batch["keys"] == [example_key(ecg_examples[i]) for i in (0, 3)]
    reasons = sorted(batch["skipped"])
    assert "record 'r1': a processor fails" in reasons[0]
    assert "record 'r2': the chat template" in reasons[1]
    assert "record 'r4': the chat template" in reasons[2]
    assert "no chat" in reasons[2]
    with pytest.raises(ExampleError, match="record 'r1': a processor fails"):
        collator.check([ecg_examples[0], flat])


def test_a_failure_of_the_whole_batch_is_not_blamed_on_an_example(processors, ecg_examples, monkeypatch):
    collator = EVLECGCollator(processors[0])
    encode = collator._encode

    def fails_together(prepared):
        if len(prepared) > 1:
            raise ValueError("together")
        return encode(prepared)

    monkeypatch.setattr(collator, "_encode", fails_together)
    with pytest.raises(ValueError, match="together"):
        collator(ecg_examples)


def test_the_test_before_training_gives_a_first_good_example(processors, ecg_examples):
    """So a loader worker whose first batch is all bad has something to repeat."""
    collator = EVLECGCollator(processors[0])
    collator.check(ecg_examples[:2])
    batch = collator([{**ecg_examples[3], "answer": ""}])
    assert batch["keys"] == [example_key(ecg_examples[1])]
    assert len(batch["skipped"]) == 1


def test_an_example_without_cached_features_is_a_bad_one(processors, ecg_examples):
    student, teacher = processors
    keys = {example_key(example) for example in ecg_examples[:3]}
    collator = EVLECGCollator(student, teacher, teacher_images=False, cached_keys=keys)
    batch = collator(ecg_examples[:4])
    assert set(batch["keys"]) == keys
    assert "record 'r3': the teacher's cache does not hold it" in batch["skipped"][0]
    with pytest.raises(ExampleError, match="cache does not hold it"):
        collator.check(ecg_examples[3:4])


def test_a_teacher_without_image_tokens_is_refused(processors, ecg_examples):
    _, teacher = processors
    deaf = type(teacher)(
        teacher.image_processor,
        teacher.tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        chat_template=teacher.chat_template.replace("<image>\\n", ""),
        num_additional_image_tokens=1,
    )
    with pytest.raises(MissingImageTokensError, match="LlavaNextProcessor put 0 '<image>' before the answer"):
        EVLECGCollator(processors[0], deaf).check(ecg_examples[:1])


def test_images_come_from_their_folder_only(tmp_path, ecg_examples):
    ecg_examples[0]["image"].save(tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "a.png").read_bytes()[:200])
    inside = tmp_path / "inside"
    inside.mkdir()
    assert ImageFile(tmp_path)({"image": "a.png"}).tobytes() == ecg_examples[0]["image"].tobytes()
    for name in ("../a.png", str(tmp_path / "a.png")):
        with pytest.raises(ValueError, match="leads out of"):
            ImageFile(inside)({"image": name})
    with pytest.raises(ValueError, match=r"broken\.png: is no whole picture"):
        ImageFile(tmp_path)({"image": "broken.png"})
    assert ImageFile()({"image": Image.new("L", (4, 4))}).mode == "RGB"


def test_unreadable_images_name_record_and_cause(processors, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    collator = EVLECGCollator(processors[0], load_image=ImageFile(tmp_path))
    with pytest.raises(
        UnreadableImageError, match=r"record '7': no image: ValueError: .*broken\.png: is no whole picture"
    ):
        collator.check([{"id": 7, "image": "broken.png", "question": "q", "answer": "a"}])


def test_select_tokens_by_hand():
    batch = {
        "input_ids": torch.tensor([[5, 6, 7, 0], [8, 9, 10, 11]]),
        "labels": torch.tensor([[-100, 6, 7, -100], [-100, -100, 10, 11]]),
        "attention_mask": torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]),
        "image_grid_thw": torch.tensor([[1, 2, 2], [1, 2, 2]]),
    }
    keep = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0]]).bool()
    left = select_tokens(batch, keep, 3, "left")
    assert left["input_ids"].tolist() == [[3, 5], [8, 9]]
    assert left["attention_mask"].tolist() == [[0, 1], [1, 1]]
    assert left["labels"].eq(-100).all()
    assert left["image_grid_thw"] is batch["image_grid_thw"]
    assert select_tokens(batch, keep, 3, "right")["input_ids"].tolist() == [[5, 3], [8, 9]]


def test_processors_are_tried_before_training(processors, tiny_vlm):
    student, _ = processors
    with pytest.raises(ChatTemplateError, match="is no processor"):
        EVLECGCollator(student.tokenizer)
    silent = type(student)(student.image_processor, student.tokenizer, image_seq_len=4, chat_template="{{ 'x' }}")
    with pytest.raises(ChatTemplateError, match="0 of 1 answers"):
        EVLECGCollator(silent)
    for wrong in ({"padding_side": "up"}, {"on_bad_example": "cry"}, {"max_length": 1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            EVLECGCollator(student, **wrong)


def test_names_and_turns():
    assert [record_name(e) for e in ({"id": 3}, {"record": "a/b"}, {"image": "c.png"}, {})] == [
        "3",
        "a/b",
        "c.png",
        "<no id>",
    ]
    assert read_turns(THREE_TURNS, "m")[1] == Turn("And the axis?", "left axis, no doubt é")


def test_text_only_encoding_has_the_same_answers(processors, ecg_examples):
    student, teacher = processors
    with_images = EVLECGCollator(student, teacher)(ecg_examples)
    without = EVLECGCollator(student, teacher, teacher_images=False)(ecg_examples)
    assert "pixel_values" not in without["teacher"]
    for name in ("teacher", "student"):
        assert without["groups"][name].tolist() == with_images["groups"][name].tolist()


def test_qwen_processor_where_torchvision_is_installed(tiny_vlm, ecg_examples):
    pytest.importorskip("torchvision")
    from transformers import Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor

    tokenizer = tiny_vlm("qwen2_vl").processor
    from tiny_vlms import QWEN_TEMPLATE

    size = {"shortest_edge": 64, "longest_edge": 4096}
    processor = Qwen2VLProcessor(
        Qwen2VLImageProcessor(patch_size=4, size=size),
        tokenizer,
        Qwen2VLVideoProcessor(patch_size=4),
        chat_template=QWEN_TEMPLATE,
    )
    batch = EVLECGCollator(processor)(ecg_examples)
    assert learnt(processor, batch) == "sinus rhythm<|im_end|>"
    assert batch["mm_token_type_ids"].shape == batch["input_ids"].shape


def test_chats_without_a_batch_dimension_of_images(processors):
    student, _ = processors
    chat = render_chat(student, chat_messages([Turn("q?", "yes")], images=0))
    batch = encode_chats(student, [chat], None, records=["r"])
    assert learnt(student, batch) == " yes<end_of_utterance>"


def test_rows_are_drawn_when_they_are_needed(processors, tmp_path):
    """Simulated records → questions → pictures → both models' inputs, without a file on disk."""
    rows, _ = load_simulated(1, classes=["NORM", "AF"])
    questions = question_dataset(rows)
    images = RenderedECG(RenderConfig(dpi=40))
    batch = EVLECGCollator(*processors, load_image=images)([questions[i] for i in range(3)])
    for row in range(3):
        assert learnt(processors[0], batch, row) == f" {questions[row]['answer']}<end_of_utterance>"
    assert batch["pixel_values"].std() > 0.05, "a grid and traces, not blank paper"
    assert record_name(questions[0]) == f"{questions[0]['source']}:{questions[0]['record']}"
    assert len({example_key(questions[i]) for i in range(len(questions))}) == len(questions)
    with pytest.raises(UnreadableImageError, match=r"record 'a:\.\./x'.*allowed: a path inside"):
        EVLECGCollator(processors[0], load_image=images).check(
            [
                {
                    "source": "a",
                    "record": "../x",
                    "root": str(tmp_path),
                    "storage": "wfdb",
                    "question": "q",
                    "answer": "a",
                }
            ]
        )


def test_artefacts_follow_the_seed_and_the_record():
    rows, _ = load_simulated(1, classes=["NORM", "AF"])
    config = RenderConfig(dpi=40)

    def draw(row, **kwargs):
        return RenderedECG(config, AugmentConfig(probability=1.0), **kwargs)(rows[row]).tobytes()

    assert draw(0) == draw(0)
    assert draw(0) != draw(0, seed=1)
    assert draw(0) != RenderedECG(config)(rows[0]).tobytes()
    torch.manual_seed(0)
    first, second = draw(0, seed=None), draw(0, seed=None)
    assert first != second
    torch.manual_seed(0)
    assert draw(0, seed=None) == first
    prints = {RenderedECG().fingerprint(), RenderedECG(config).fingerprint()}
    prints |= {RenderedECG(config, AugmentConfig(), seed=s).fingerprint() for s in (0, 1)}
    assert len(prints) == 4
    assert RenderedECG(config, seed=1).fingerprint() in prints, "clean paper does not depend on the seed"
    with pytest.raises(ValueError, match="give RenderedECG a seed"):
        RenderedECG(config, AugmentConfig(), seed=None).fingerprint()


def test_a_processor_that_gives_no_image_token_is_refused():
    """Its placeholder may be in the text and swallowed by the processor; an image behind an answer would be read too late."""
    labels = torch.tensor([[-100, -100, 5]])
    encoding._check_image_tokens(torch.tensor([[True, False, False]]), labels, ["r"], "P")
    for is_image, count in (([False, False, False], "0 image tokens, 0"), ([True, False, True], "2 image tokens, 1")):
        with pytest.raises(MissingImageTokensError, match=f"P gives {count} of them behind"):
            encoding._check_image_tokens(torch.tensor([is_image]), labels, ["r"], "P")
