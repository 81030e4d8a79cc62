"""What is taken from a collated batch fits the model's forward pass and ends where the answer begins."""

import torch

from hf_evl_ecg.chat.batches import first_answer, model_inputs, prompt_inputs
from hf_evl_ecg.chat.collator import EVLECGCollator


def test_inputs_are_arguments_of_the_forward_pass(tiny_vlm, ecg_examples):
    student, teacher = tiny_vlm("idefics3"), tiny_vlm("llava_next")
    batch = EVLECGCollator(student.processor, teacher.processor)(ecg_examples[:2])
    assert {"labels", "teacher", "groups", "keys", "skipped"} <= set(batch)
    assert student.load()(**model_inputs(batch)).logits.shape[:2] == batch["input_ids"].shape


def test_prompts_end_where_the_answer_begins(tiny_vlm, ecg_examples):
    processor = tiny_vlm("idefics3").processor
    prompt = prompt_inputs(EVLECGCollator(processor)(ecg_examples), processor.tokenizer.pad_token_id)
    assert len(prompt["input_ids"]) == len(ecg_examples)
    for row in prompt["input_ids"]:
        assert processor.tokenizer.decode(row, skip_special_tokens=False).endswith("Assistant:")
    assert prompt["attention_mask"][:, -1].all(), "padding stands on the left"


def test_the_first_of_several_answers():
    labels = torch.tensor(
        [[-100, 1, 2, -100, 3, 4, 5], [-100, -100, -100, -100, -100, -100, -100], [9, -100, 8, -100, -100, -100, -100]]
    )
    assert first_answer(labels).tolist() == [[1, 2], [-100, -100], [9, -100]]
