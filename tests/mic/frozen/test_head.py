"""The dense head: identity at the start, orthogonal throughout if asked, loaded by plain sentence-transformers."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer

from hf_mic import MICTrainer, MICTrainingArguments
from hf_mic.frozen.head import KeepOrthogonal, add_dense_head


@pytest.mark.parametrize("normalize", [False, True])
def test_head_starts_as_the_identity_and_before_normalize(make_model, make_sentences, normalize):
    model, texts = make_model(normalize=normalize), make_sentences(5, 0)
    before = model.encode(texts, convert_to_tensor=True)
    head = add_dense_head(model)
    assert torch.allclose(model.encode(texts, convert_to_tensor=True), before, atol=1e-6)
    assert model[-2 if normalize else -1] is head


def test_training_rotates_the_head_and_it_stays_orthogonal_through_a_reload(make_model, make_sentences, tmp_path):
    model, texts = make_model(), make_sentences(32, 1)
    head = add_dense_head(model)
    args = MICTrainingArguments(
        str(tmp_path / "run"),
        max_steps=6,
        per_device_train_batch_size=8,
        learning_rate=0.0,
        learning_rate_mapping={r"\.2\.linear\.": 0.05},
        scope="pooled",
        gamma=1.0,
        matryoshka_dims=[32, 16, 8],
        report_to="none",
        use_cpu=True,
        save_strategy="no",
    )
    data = Dataset.from_dict({"anchor": texts, "positive": make_sentences(32, 2)})
    trainer = MICTrainer(model=model, args=args, train_dataset=data)
    trainer.add_callback(KeepOrthogonal(head))
    full = SentenceTransformer(modules=[model[0], model[1]], device="cpu").encode(texts, convert_to_tensor=True)
    trainer.train()

    weight = head.linear.weight.detach()
    assert (weight - torch.eye(32)).abs().max() > 0.02
    assert torch.allclose(weight @ weight.T, torch.eye(32), atol=1e-5)
    model.save_pretrained(str(tmp_path / "model"))
    again = SentenceTransformer(str(tmp_path / "model"), device="cpu").encode(texts, convert_to_tensor=True)
    assert torch.allclose(again @ again.T, full @ full.T, atol=1e-4)  # the encoder had rate 0: cosines are untouched


def test_a_free_matrix_is_refused(make_model):
    head = add_dense_head(make_model())
    with torch.no_grad():
        head.linear.weight.mul_(2)
    with pytest.raises(ValueError, match="orthogonal start"):
        KeepOrthogonal(head)


def test_a_truncated_model_is_refused(make_model):
    model = make_model()
    model.truncate_dim = 16
    with pytest.raises(ValueError, match="load it without truncate_dim"):
        add_dense_head(model)


def test_a_bfloat16_encoder_gets_a_head_that_stays_orthogonal(make_model, make_sentences, tmp_path):
    """Small steps of a rotation vanish in bfloat16, so the weight is float32; what it gives has the model's precision."""
    model = make_model(normalize=True).to(torch.bfloat16)
    head = add_dense_head(model)
    assert head.linear.weight.dtype == torch.float32
    keep = KeepOrthogonal(head)
    optimizer = torch.optim.SGD(head.parameters(), lr=1e-3)
    features = {"sentence_embedding": torch.randn(8, 32, dtype=torch.bfloat16)}
    for _ in range(5):
        out = head(dict(features))["sentence_embedding"]
        assert out.dtype == torch.bfloat16
        out.float().pow(3).sum().backward()
        optimizer.step()
        keep.on_optimizer_step(None, None, None)
    weight = head.linear.weight.detach()
    assert not torch.equal(weight, torch.eye(32))
    assert torch.allclose(weight @ weight.T, torch.eye(32), atol=1e-6)
    texts = make_sentences(4, 0)
    expected = model.encode(texts)
    model.save(str(tmp_path))
    assert np.abs(SentenceTransformer(str(tmp_path)).encode(texts) - expected).max() < 0.02
