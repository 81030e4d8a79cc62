"""Likelihoods of answers equal those of a forward pass over prompt and answer alone; generation is the same in a batch."""

import pytest
import torch

from hf_evl_ecg.chat.collator import EVLECGCollator
from hf_evl_ecg.inference.generation import generate_answers
from hf_evl_ecg.inference.likelihood import answer_token_ids, label_likelihoods, option_log_likelihoods

NAMES = ["llava_next", "idefics3", "qwen2_vl", "qwen3_vl", "internvl"]


@pytest.mark.parametrize("name", NAMES)
def test_likelihoods_of_a_padded_batch(name, tiny_vlm, hand_made_inputs):
    """Equal to a forward pass over prompt and answer of each sample alone, for each candidate."""
    model = tiny_vlm(name).load()
    inputs, labels = hand_made_inputs(name, model)
    candidates = [[100], [101, 70, 80], [90, 61]]
    found = label_likelihoods(model, {**inputs, "labels": labels}, candidates, 1)
    for row in range(2):
        start = int((labels[row] != -100).nonzero()[0])
        for column, candidate in enumerate(candidates):
            ids = torch.cat([inputs["input_ids"][row, :start], torch.tensor(candidate)]).unsqueeze(0)
            own = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            for key, value in inputs.items():
                if key.startswith(("pixel", "image")):
                    own[key] = value.chunk(2)[row]
            if "mm_token_type_ids" in inputs:
                own["mm_token_type_ids"] = (ids == model.config.image_token_id).int()
            log_probs = model(**own).logits[0, start - 1 : -1].log_softmax(-1)
            expected = log_probs[torch.arange(len(candidate)), torch.tensor(candidate)].sum()
            torch.testing.assert_close(found[row, column], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_reading_the_prompt_once_changes_no_likelihood(name, tiny_vlm, hand_made_inputs):
    model = tiny_vlm(name).load()
    inputs, labels = hand_made_inputs(name, model)
    batch = {**inputs, "labels": labels}
    options = [[[70], [71, 72, 73], [74, 75]], [[80, 81], [82]]]
    sums = option_log_likelihoods(model, batch, options, pad_token_id=1)
    assert sums.isfinite().tolist() == [[True, True, True], [True, True, False]]
    assert sums[1, 2] == -torch.inf
    for row, own in enumerate(options):
        slow = label_likelihoods(model, batch, own, 1)[row]
        torch.testing.assert_close(sums[row, : len(own)], slow, atol=2e-5, rtol=1e-5)
    assert sums[0, :3].std() > 0.1, "options must differ for this to prove anything"
    with pytest.raises(ValueError, match="1 lists of options for 2 samples"):
        option_log_likelihoods(model, batch, options[:1], 1)


def test_likelihoods_and_generation_against_the_model(tiny_vlm, ecg_examples):
    tiny = tiny_vlm("idefics3")
    model, processor = tiny.load(), tiny.processor
    collator = EVLECGCollator(processor)
    batch = collator(ecg_examples)
    answers = ["yes", "left bundle branch block"]
    ids = answer_token_ids(processor, answers)
    found = label_likelihoods(model, batch, ids, processor.tokenizer.pad_token_id)
    for column, answer in enumerate(answers):
        for row in range(2):
            own = collator([{**ecg_examples[row], "answer": answer}])
            own = {k: v for k, v in own.items() if k not in ("keys", "skipped")}
            count = int((own["labels"] != -100).sum())
            expected = -model(**own).loss.item() * count
            assert found[row, column].item() == pytest.approx(expected, rel=1e-4)
    together = generate_answers(model, batch, processor.tokenizer, max_new_tokens=6)
    one_by_one = [
        generate_answers(model, collator([e]), processor.tokenizer, max_new_tokens=6)[0] for e in ecg_examples
    ]
    assert together == one_by_one
    with pytest.raises(ValueError, match="none may be empty"):
        answer_token_ids(processor, ["yes", " "])
