"""Features of two models as the losses see them, of samples of different lengths."""

import pytest
import torch

from hf_evl_ecg.tokens import AnswerGroups, TokenFeatures


@pytest.fixture
def make_features():
    """Function (dim, vocabulary, lengths, answers, seed …) → TokenFeatures; the answer ends each sample."""

    def make(dim, vocab, lengths=(9, 6, 8), answers=(3, 2, 3), *, seed=0, extra=0, junk=0.0, dtype=torch.float32):
        gen = torch.Generator().manual_seed(seed)
        rows = [
            (torch.randn(n, dim, generator=gen), torch.randn(a, vocab, generator=gen))
            for n, a in zip(lengths, answers, strict=True)
        ]
        width, most = max(lengths) + extra, max(answers) + extra
        hidden = torch.full((len(rows), width, dim), junk)
        logits = torch.full((len(rows), most, vocab), junk)
        mask = torch.zeros(len(rows), width, dtype=torch.bool)
        answer_mask = torch.zeros(len(rows), most, dtype=torch.bool)
        answer_index = torch.full((len(rows), most), -1)
        answer_ids = torch.full((len(rows), most), -100)
        for i, (states, own) in enumerate(rows):
            n, a = len(states), len(own)
            hidden[i, :n], logits[i, :a] = states, own
            mask[i, :n], answer_mask[i, :a] = True, True
            answer_index[i, :a] = torch.arange(n - a, n)
            answer_ids[i, :a] = torch.randint(vocab, (a,), generator=gen)
        return TokenFeatures(
            hidden=hidden.to(dtype),
            mask=mask,
            visual=None,
            visual_mask=None,
            answer_logits=logits.to(dtype),
            answer_ids=answer_ids,
            answer_mask=answer_mask,
            answer_index=answer_index,
        )

    return make


@pytest.fixture
def groups():
    """The teacher's answers of 3, 2 and 3 tokens with a student's of 4, 2 and 2: some cut differently, some alone."""
    return AnswerGroups(
        torch.tensor([[0, 1, 2], [0, 1, -1], [0, 0, -1]]),
        torch.tensor([[0, 0, 1, 2], [0, 1, -1, -1], [0, -1, -1, -1]]),
    )
