"""Each field of MICTrainingArguments is checked, reachable from the command line and YAML, and changes the loss."""

import dataclasses

import pytest
import yaml
from sentence_transformers import SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss
from transformers import HfArgumentParser

from hf_mic import MICLoss, MICTrainingArguments
from hf_mic.baselines import method_loss

OWN = {field.name: field for field in dataclasses.fields(MICTrainingArguments)}
for inherited in dataclasses.fields(SentenceTransformerTrainingArguments):
    OWN.pop(inherited.name)


def arguments(**options) -> MICTrainingArguments:
    return MICTrainingArguments("out", report_to="none", use_cpu=True, **options)


def test_every_field_has_help():
    assert len(OWN) >= 20
    for name, field in OWN.items():
        text = field.metadata["help"]
        assert len(text) > 20, name
        assert text.endswith("."), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": -0.1}, "gamma=.*: must be >= 0"),
        ({"gamma": float("nan")}, "gamma=.*: must be >= 0"),
        ({"gamma_warmup_steps": -1}, "gamma_warmup_steps"),
        ({"tau": -0.1}, "tau=-0.1: must be >= 0 and finite, or 'auto'"),
        ({"tau": "automatic"}, "tau=.*: must be"),
        ({"tau": None}, "tau=.*: must be"),
        ({"var_weight": -1}, "var_weight"),
        ({"scr_weight": -1}, "scr_weight"),
        ({"sir_weight": -1}, "sir_weight"),
        ({"t": 0}, "t=0: must be > 0"),
        ({"scale": 0}, "scale=0: must be > 0"),
        ({"distill_temperature": 0}, "distill_temperature=0: must be > 0"),
        ({"distill": "mse"}, "distill='mse': must be one of"),
        ({"distill": "similarity_kl"}, "give both"),
        ({"distill_weight": 1.0}, "give both"),
        ({"cv_mode": "full"}, "cv_mode='full': must be one of"),
        ({"scope": "words"}, "scope='words': must be one of"),
        ({"n_dims_per_step": 0}, "n_dims_per_step"),
        ({"mini_batch_size": 0}, "mini_batch_size"),
        ({"matryoshka_dims": [8, 8]}, "distinct"),
        ({"matryoshka_dims": []}, "at least one"),
        ({"matryoshka_dims": [0, 8]}, ">= 1"),
        ({"reg_dims": [0]}, "reg_dims"),
        ({"layers": [-1]}, "layers"),
        ({"matryoshka_weights": [1.0]}, "one per entry of matryoshka_dims"),
        ({"matryoshka_dims": [8, 16], "matryoshka_weights": [1.0]}, "one per entry of matryoshka_dims"),
        ({"matryoshka_dims": [8, 16], "matryoshka_weights": [1.0, -1.0]}, "matryoshka_weights=.*: must be >= 0"),
        ({"layer_dims": '{"2": [8]}', "layers": [2]}, "layer_dims replaces"),
        ({"layer_dims": '{"2": [8]}', "reg_dims": [8]}, "layer_dims replaces"),
        ({"layer_dims": "2: 8"}, "layer_dims=.*: must map"),
        ({"layer_dims": "[2]"}, "layer_dims=.*: must map"),
        ({"layer_dims": {2: []}}, "layer_dims"),
        ({"layers": [2], "scope": "pooled"}, "scope='tokens'"),
    ],
)
def test_bad_values_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        arguments(**options)


@pytest.mark.parametrize(
    ("width", "expected"), [(384, [384, 256, 128, 64, 32, 16]), (768, [768, 512, 256, 128, 64, 32, 16]), (8, [8])]
)
def test_default_dims_are_the_papers_up_to_the_width(width, expected):
    assert arguments().dims_for(width) == expected


def test_dims_beyond_the_width_are_refused():
    with pytest.raises(ValueError, match=r"matryoshka_dims=64: must lie in \[1, 32\]"):
        arguments(matryoshka_dims=[64, 16]).dims_for(32)


CHANGES = {
    "matryoshka_dims": ([32, 8], lambda loss: loss.loss.matryoshka_dims),
    "matryoshka_weights": ([1.0, 0.5], lambda loss: loss.loss.matryoshka_weights),
    "n_dims_per_step": (1, lambda loss: loss.loss.n_dims_per_step),
    "scale": (10.0, lambda loss: loss.loss.loss.scale),
    "mini_batch_size": (2, lambda loss: type(loss.loss.loss)),
    "gamma": (0.7, lambda loss: loss.balance.gamma),
    "gamma_share": (0.3, lambda loss: loss.balance.measured.share),
    "layers": ([1], lambda loss: list(loss.layers)),
    "layer_dims": ({3: [4]}, lambda loss: loss.layers),
    "reg_dims": ([4], lambda loss: list(loss.layers.values())),
    "tau": ("auto", lambda loss: loss.tau),
    "var_weight": (0.0, lambda loss: loss.var_weight),
    "scr_weight": (0.5, lambda loss: loss.scr_weight),
    "sir_weight": (0.5, lambda loss: loss.sir_weight),
    "t": (3.0, lambda loss: loss.t),
    "cv_mode": ("eigen", lambda loss: loss.cv_mode),
    "scope": ("pooled", lambda loss: loss.scope),
    "distill": ("similarity_kl", lambda loss: loss.distill),
    "distill_weight": (2.0, lambda loss: loss.distill_weight),
    "distill_temperature": (0.2, lambda loss: loss.distill_temperature),
    "gather_across_devices": (True, lambda loss: (loss.gather_across_devices, loss.loss.loss.gather_across_devices)),
}
ALSO = {
    "gamma_share": {"gamma": "auto"},
    "matryoshka_weights": {"matryoshka_dims": [32, 8]},
    "mini_batch_size": {"scope": "pooled"},
    "distill": {"distill_weight": 1.0},
    "distill_weight": {"distill": "similarity_kl"},
    "distill_temperature": {"distill": "similarity_kl", "distill_weight": 1.0},
}
BASE = {"distill_weight": {"distill": "similarity_kl", "distill_weight": 1.0}, "distill": {}}


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_each_field_reaches_the_loss(make_model, name):
    model = make_model()
    value, read = CHANGES[name]
    also = ALSO.get(name, {})
    before = read(method_loss("mic", model, arguments(**BASE.get(name, also)), scored=False))
    after = read(method_loss("mic", model, arguments(**also, **{name: value}), scored=False))
    assert before != after


def test_no_field_is_left_out_of_these_tests():
    assert set(CHANGES) == set(OWN) - {"gamma_warmup_steps"}  # which is tested on a training run


def test_mini_batch_size_switches_gradient_caching_on(make_model):
    loss = method_loss("mic", make_model(), arguments(mini_batch_size=3, scope="pooled"), scored=False)
    assert isinstance(loss, MICLoss)
    assert isinstance(loss.loss.loss, CachedMultipleNegativesRankingLoss)
    assert loss.loss.loss.mini_batch_size == 3
    with pytest.raises(ValueError, match="CoSENTLoss"):
        method_loss("mic", make_model(), arguments(mini_batch_size=3, scope="pooled"), scored=True)
    with pytest.raises(ValueError, match='scope="pooled"'):
        method_loss("mic", make_model(), arguments(mini_batch_size=3), scored=False)


def test_every_process_reads_a_stream_unless_told_otherwise():
    assert MICTrainingArguments("out", report_to="none").accelerator_config.dispatch_batches is False
    given = MICTrainingArguments("out", report_to="none", accelerator_config={"dispatch_batches": True})
    assert given.accelerator_config.dispatch_batches is True


def test_gathering_drops_the_last_batch():
    assert not arguments().dataloader_drop_last
    assert arguments(gather_across_devices=True).dataloader_drop_last


def test_command_line_and_yaml_agree(tmp_path):
    line = [
        *("--output_dir", "out", "--report_to", "none", "--use_cpu", "--tau", "auto", "--gamma", "0.3"),
        *("--matryoshka_dims", "32", "8", "--layer_dims", '{"2": [4, 8]}', "--cv_mode", "eigen"),
        *("--distill", "similarity_kl", "--distill_weight", "0.5", "--gamma_warmup_steps", "0.1"),
    ]
    (from_line,) = HfArgumentParser(MICTrainingArguments).parse_args_into_dataclasses(line)
    values = {
        "output_dir": "out",
        "report_to": "none",
        "use_cpu": True,
        "tau": "auto",
        "gamma": 0.3,
        "matryoshka_dims": [32, 8],
        "layer_dims": {2: [4, 8]},
        "cv_mode": "eigen",
        "distill": "similarity_kl",
        "distill_weight": 0.5,
        "gamma_warmup_steps": 0.1,
    }
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(values))
    (from_file,) = HfArgumentParser(MICTrainingArguments).parse_yaml_file(str(file))
    for name in OWN:
        assert getattr(from_line, name) == getattr(from_file, name), name
    assert from_line.layer_dims == {2: [4, 8]}
    assert from_line.tau == "auto"
    (numeric,) = HfArgumentParser(MICTrainingArguments).parse_args_into_dataclasses(["--tau", "0.2"])
    assert numeric.tau == 0.2
