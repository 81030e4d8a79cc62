"""The public contract: names, arguments with their defaults, shapes and results that others build on."""

import inspect
import math

import numpy as np
import pytest
import torch


def signature(function) -> dict[str, object]:
    """Argument names with their defaults (``inspect.Parameter.empty`` where there is none)."""
    return {name: p.default for name, p in inspect.signature(function).parameters.items() if name != "self"}


def check(function, positional: list[str], keyword: dict[str, object], defaults: dict[str, object] | None = None):
    """The positional arguments come first and in order; each keyword argument has its default. More may follow."""
    given, kinds = signature(function), inspect.signature(function).parameters
    assert list(given)[: len(positional)] == positional
    assert all(kinds[name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for name in positional)
    assert {name: given[name] for name in keyword} == keyword
    assert {name: given[name] for name in defaults or {}} == (defaults or {})


def test_mic_names_come_from_the_package():
    import hf_mic
    from hf_mic.losses import MICLoss
    from hf_mic.trainer import MICTrainer
    from hf_mic.training_args import MICTrainingArguments

    assert hf_mic.MICLoss is MICLoss
    assert hf_mic.MICTrainer is MICTrainer
    assert hf_mic.MICTrainingArguments is MICTrainingArguments


def test_soft_collapse_loss():
    from hf_mic.functional import soft_collapse_loss

    check(soft_collapse_loss, ["hidden_states", "attention_mask", "dims"], {"tau": 0.1, "var_weight": 1.0, "eps": 1e-5})
    hidden = torch.tensor([[[2.0, 2.0], [-2.0, -2.0]]])  # prefix and residual are copies, so C = 1
    value = soft_collapse_loss(hidden, torch.ones(1, 2), [1])
    assert value.shape == (1,)
    assert value.item() == pytest.approx(0.9**2, abs=1e-4)  # L_corr = (1 - tau)^2; the variance floor is met
    assert soft_collapse_loss(torch.randn(2, 5, 8), torch.ones(2, 5), [2, 4, 6]).shape == (3,)


def test_spectral_isotropy_loss():
    from hf_mic.functional import spectral_isotropy_loss

    check(spectral_isotropy_loss, ["embeddings", "dims"], {"t": 2.0, "eps": 1e-8, "cv_mode": "diagonal"})
    corners = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    expected = 0.5 * math.log((2 * math.exp(-4) + math.exp(-8)) / 3)  # each corner: two at right angles, one opposite
    value = spectral_isotropy_loss(corners, [2])
    assert value.shape == (1,)
    assert value.item() == pytest.approx(expected, abs=1e-5)


def test_mic_loss_arguments():
    from hf_mic import MICLoss

    check(
        MICLoss.__init__,
        ["model", "loss", "matryoshka_dims"],
        {
            "matryoshka_weights": None,
            "layers": None,
            "reg_dims": None,
            "gamma": 0.1,
            "tau": 0.1,
            "var_weight": 1.0,
            "t": 2.0,
            "cv_mode": "diagonal",
            "scope": "tokens",
            "distill": None,
            "distill_weight": 0.0,
            "gather_across_devices": False,
        },
    )


@pytest.mark.parametrize(("distill", "terms"), [(None, {"matryoshka", "scr", "sir"}), ("similarity_kl", {"matryoshka", "scr", "sir", "distill"})])  # fmt: skip
def test_mic_loss_returns_weighted_terms(distill, terms):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    from hf_mic import MICLoss

    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "[PAD]": 1, "one": 2, "two": 3, "three": 4}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    torch.manual_seed(0)
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=8)], device="cpu")
    columns = [model.preprocess(["one", "two", "three"]) for _ in range(2)]
    values = []
    for gamma in (0.1, 0.2):
        loss = MICLoss(model, MultipleNegativesRankingLoss(model), [4, 8], scope="pooled", gamma=gamma,
                       distill=distill, distill_weight=0.5 if distill else 0.0)  # fmt: skip
        values.append(loss([dict(column) for column in columns], None))
    assert set(values[0]) == terms
    for term, factor in (("matryoshka", 1), ("scr", 2), ("sir", 2)):
        assert values[1][term].item() == pytest.approx(factor * values[0][term].item(), rel=1e-4), term


def test_ecg_names_come_from_the_package():
    import hf_evl_ecg

    names = [
        "ECG",
        "ECGRecordError",
        "read_record",
        "RenderConfig",
        "render",
        "EVLECGConfig",
        "EVLECGLoss",
        "EVLECGTrainer",
    ]
    assert set(names) <= set(hf_evl_ecg.__all__)
    assert all(getattr(hf_evl_ecg, name).__name__ == name for name in names)
    assert issubclass(hf_evl_ecg.ECGRecordError, ValueError)


def test_read_record(tmp_path):
    import wfdb

    from hf_evl_ecg import ECG, ECGRecordError, read_record

    leads = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
    check(read_record, ["path", "lead_order"], {}, {"lead_order": leads})
    signal = np.random.default_rng(0).normal(0, 0.2, (1000, 12))
    i, ii = signal[:, 0], signal[:, 1]
    signal[:, 2:6] = np.stack([ii - i, -(i + ii) / 2, i - ii / 2, ii - i / 2], axis=1)
    wfdb.wrsamp("r", fs=250, units=["mV"] * 12, sig_name=list(leads), p_signal=signal, fmt=["16"] * 12,
                write_dir=str(tmp_path), comments=["Age: 61"])  # fmt: skip
    ecg = read_record(tmp_path / "r")
    assert isinstance(ecg, ECG)
    assert (ecg.signal_mv.dtype, ecg.signal_mv.shape, ecg.fs_hz) == (np.float32, (1000, 12), 250)
    assert tuple(ecg.leads) == leads
    assert list(ecg.comments) == ["Age: 61"]
    assert ecg.metadata["age"] == 61
    np.testing.assert_allclose(ecg.signal_mv, signal, atol=1e-3)
    with pytest.raises(ECGRecordError):
        read_record(tmp_path / "absent")


def test_render():
    from PIL import Image

    from hf_evl_ecg import ECG, RenderConfig, render

    check(render, ["ecg", "config"], {})
    image = render(ECG(np.zeros((5000, 12), np.float32), fs_hz=500), RenderConfig(width_px=440, height_px=340))
    assert isinstance(image, Image.Image)
    assert image.size == (440, 340)


def test_sinkhorn():
    from hf_evl_ecg.ot import sinkhorn

    check(sinkhorn, ["cost", "a", "b"], {"epsilon": 0.05, "max_iter": 50, "tol": 0.0})
    cost = torch.tensor([[[0.0, 1.0, 9.0], [1.0, 0.0, 9.0]]])
    plan = sinkhorn(cost, torch.tensor([[0.5, 0.5]]), torch.tensor([[0.5, 0.5, 0.0]]))
    assert plan.shape == (1, 2, 3)
    torch.testing.assert_close(plan.sum(2), torch.tensor([[0.5, 0.5]]))
    assert plan[0, :, 2].abs().max() == 0  # zero mass = padding
    assert plan[0].diagonal().sum() > 0.999  # the cheap way


def test_ot_matching_loss():
    from hf_evl_ecg.ot import ot_matching_loss

    check(
        ot_matching_loss,
        ["teacher", "student", "teacher_mask", "student_mask"],
        {"epsilon": 0.05, "max_iter": 50},
    )
    tokens = torch.eye(4).unsqueeze(0)
    mask = torch.ones(1, 4, dtype=torch.bool)
    assert ot_matching_loss(tokens, 7 * tokens.flip(1), mask, mask).shape == ()
    assert ot_matching_loss(tokens, 7 * tokens.flip(1), mask, mask) < 1e-3  # unit-normed inside, in any order
    assert ot_matching_loss(tokens, -tokens, mask, mask) > 1


def test_relation_loss():
    from hf_evl_ecg.relations import relation_loss

    check(relation_loss, ["target", "student", "mask"], {})
    states = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0))
    distance, angle = relation_loss(states, 3 * states, torch.ones(2, 5, dtype=torch.bool))
    assert distance.shape == angle.shape == ()
    assert max(distance, angle) < 1e-6  # neither term sees scale
    assert min(relation_loss(torch.randn(2, 5, 9), states, torch.ones(2, 5, dtype=torch.bool))) > 1e-3


def test_cross_attention_aligner():
    from hf_evl_ecg.alignment import CrossAttentionAligner

    check(CrossAttentionAligner.__init__, ["student_dim", "teacher_dim", "num_heads"], {"num_heads": 8})
    aligner = CrossAttentionAligner(16, 24)
    teacher, mask = torch.randn(2, 7, 24), torch.arange(7) < torch.tensor([[7], [4]])
    aligned = aligner(torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0)), teacher, mask)
    assert aligned.shape == (2, 5, 16)
    other = torch.where(mask.unsqueeze(-1), teacher, 99.0)
    again = aligner(torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0)), other, mask)
    torch.testing.assert_close(again, aligned)  # what is masked is not read


def test_evl_ecg_objective_and_trainer():
    from transformers import Trainer, TrainingArguments

    from hf_evl_ecg import EVLECGConfig, EVLECGLoss, EVLECGTrainer

    assert issubclass(EVLECGConfig, TrainingArguments)
    assert issubclass(EVLECGTrainer, Trainer)
    config = EVLECGConfig(output_dir="unused", report_to="none")
    assert (config.alpha, config.lambda_mhca, config.lambda_ot, config.lambda_relation) == (0.5, 1.0, 1.0, 1.0)
    assert {"student_dim", "teacher_dim"} <= set(signature(EVLECGLoss.__init__))
