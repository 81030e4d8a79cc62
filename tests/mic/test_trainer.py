"""MICTrainer end to end on tiny encoders: defaults, accumulation, warm-up, interruption, checkpoints, pushes."""

import random
import shutil
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import CoSENTLoss, MultipleNegativesRankingLoss
from torch import nn
from transformers import TrainerCallback
from transformers.trainer_utils import HPSearchBackend, get_last_checkpoint

import hf_mic.balance
import hf_mic.checkpoints
from hf_mic import MICLoss, MICTrainer, MICTrainingArguments


@pytest.fixture
def pairs(make_sentences):
    return Dataset.from_dict({"anchor": make_sentences(24, 0), "positive": make_sentences(24, 1)})


@pytest.fixture
def scored(make_sentences):
    scores = [i / 24 for i in range(24)]
    return Dataset.from_dict({"sentence1": make_sentences(24, 2), "sentence2": make_sentences(24, 3), "score": scores})


def arguments(folder, **options) -> MICTrainingArguments:
    defaults = {
        "per_device_train_batch_size": 4,
        "num_train_epochs": 1,
        "learning_rate": 1e-3,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return MICTrainingArguments(str(folder), **defaults | options)


def weights(model) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def with_dropout(model):
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.2
    for layer in model[0].auto_model.encoder.layer:
        layer.attention.self.dropout_prob = 0.2
    return model


# ---- defaults -------------------------------------------------------------------------------------------------------


def test_a_run_needs_only_a_model_and_data(make_model, pairs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer = MICTrainer(model=make_model(), train_dataset=pairs)
    assert type(trainer.args) is MICTrainingArguments
    assert isinstance(trainer.loss, MICLoss)
    assert type(trainer.loss.loss.loss) is MultipleNegativesRankingLoss
    assert list(trainer.loss.loss.matryoshka_dims) == [32, 16]


def test_training_moves_the_model_and_logs_each_term(make_model, pairs, tmp_path):
    model = make_model()
    before = weights(model)
    options = {"distill": "similarity_kl", "distill_weight": 0.5, "num_train_epochs": 6}
    trainer = MICTrainer(model=model, args=arguments(tmp_path, **options), train_dataset=pairs)
    trainer.train()
    moved = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert len(moved) > 0.9 * len(before)
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(logs) == 36
    for entry in logs:
        total = entry["matryoshka"] + entry["scr"] + entry["sir"] + entry["distill"]
        assert entry["loss"] == pytest.approx(total, abs=2e-3)
        assert entry["scr"] > 0
    assert sum(e["matryoshka"] for e in logs[-6:]) < 0.7 * sum(e["matryoshka"] for e in logs[:6])


def test_scores_choose_cosent(make_model, scored, tmp_path):
    trainer = MICTrainer(model=make_model(), args=arguments(tmp_path), train_dataset=scored)
    assert type(trainer.loss.loss.loss) is CoSENTLoss
    trainer.train()
    assert trainer.state.log_history[0]["matryoshka"] > 0


def test_several_data_sets_of_one_sort_share_a_loss(make_model, pairs, tmp_path):
    data = {"first": pairs, "second": pairs.select(range(8))}
    trainer = MICTrainer(model=make_model(), args=arguments(tmp_path), train_dataset=data)
    assert isinstance(trainer.loss, MICLoss)


def test_several_sorts_get_a_loss_each(make_model, pairs, scored, tmp_path):
    data = {"pairs": pairs, "sts": scored}
    trainer = MICTrainer(model=make_model(), args=arguments(tmp_path), train_dataset=data, eval_dataset={"sts": scored})
    assert {name: type(loss.loss.loss) for name, loss in trainer.loss.items()} == {
        "pairs": MultipleNegativesRankingLoss,
        "sts": CoSENTLoss,
    }
    trainer.train()
    assert trainer.state.global_step == 12
    with pytest.raises(ValueError, match="Some data sets have scores"):
        MICTrainer(model=make_model(), args=arguments(tmp_path), train_dataset=pairs, eval_dataset=scored)


def test_a_given_loss_or_dict_of_losses_is_used(make_model, pairs, scored, tmp_path):
    model = make_model()
    losses = {
        "pairs": MICLoss(model, MultipleNegativesRankingLoss(model), [32, 8], layers=[3]),
        "sts": CoSENTLoss(model),
    }
    data = {"pairs": pairs, "sts": scored}
    options = {"gamma_warmup_steps": 4}
    trainer = MICTrainer(model=model, args=arguments(tmp_path, **options), train_dataset=data, loss=losses)
    assert trainer.loss == losses
    trainer.train()
    assert losses["pairs"].gamma_scale == 1.0
    logged = [entry["matryoshka"] for entry in trainer.state.log_history if "matryoshka" in entry]
    assert len(logged) == 6  # the steps with pairs, of 12; not 0 / 0 for the others
    assert all(value > 0 for value in logged)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a", "b"]}, "at least two text columns"),
        ({"a": ["x"], "score": [1.0]}, "exactly two texts"),
        ({"a": ["x"], "b": ["y"], "c": ["z"], "label": [1]}, "exactly two texts"),
        ({"a": ["x"], "b": ["y"], "label": ["same"]}, "must hold numbers"),
        ({"a": ["x"], "b": ["y"], "label": [1], "score": [1.0]}, "several label columns"),
        ({"a": [], "b": []}, "no rows"),
    ],
)
def test_unfit_columns_are_refused_at_construction(make_model, tmp_path, columns, message):
    with pytest.raises(ValueError, match=message):
        MICTrainer(model=make_model(), args=arguments(tmp_path), train_dataset=Dataset.from_dict(columns))


def test_a_static_model_in_token_scope_is_refused(static_model, pairs, tmp_path):
    with pytest.raises(ValueError, match='scope="pooled"'):
        MICTrainer(model=static_model, args=arguments(tmp_path), train_dataset=pairs)
    options = {"scope": "pooled", "learning_rate": 0.1}
    before = weights(static_model)
    MICTrainer(model=static_model, args=arguments(tmp_path, **options), train_dataset=pairs).train()
    assert any(not torch.equal(value, before[name]) for name, value in static_model.state_dict().items())


# ---- optimisation ---------------------------------------------------------------------------------------------------


def test_accumulation_over_n_steps_takes_the_mean_gradient(make_model, pairs, tmp_path):
    """One SGD step over 3 micro-batches of 4, against gradients of the micro-batches by hand."""
    data = pairs.select(range(12))
    options = {
        "gradient_accumulation_steps": 3,
        "optim": "sgd",
        "learning_rate": 0.1,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "weight_decay": 0.0,
    }
    model = make_model()
    trainer = MICTrainer(model=model, args=arguments(tmp_path, **options), train_dataset=data)
    reference = make_model()
    loss = MICLoss(reference, MultipleNegativesRankingLoss(reference), [32, 16])
    for columns in trainer.get_train_dataloader():
        features, labels = trainer.collect_features(columns)
        (torch.stack(list(loss(features, labels).values())).sum() / 3).backward()
    trainer.train()
    assert trainer.state.global_step == 1
    trained = dict(model.named_parameters())
    moved = 0.0
    for name, parameter in reference.named_parameters():
        step = torch.zeros_like(parameter) if parameter.grad is None else 0.1 * parameter.grad
        torch.testing.assert_close(trained[name], parameter - step, rtol=1e-4, atol=1e-6)
        moved = max(moved, step.abs().max().item())
    assert moved > 1e-3


class GammaRecorder(TrainerCallback):
    def __init__(self, loss):
        self.loss, self.scales = loss, []

    def on_step_end(self, args, state, control, **kwargs):
        self.scales.append(self.loss.gamma_scale)


@pytest.mark.parametrize(("warmup", "expected"), [(4, [0, 0.25, 0.5, 0.75, 1, 1]), (0.5, [0, 1 / 3, 2 / 3, 1, 1, 1])])
def test_gamma_rises_linearly(make_model, pairs, tmp_path, warmup, expected):
    trainer = MICTrainer(model=make_model(), args=arguments(tmp_path, gamma_warmup_steps=warmup), train_dataset=pairs)
    recorder = GammaRecorder(trainer.loss)
    trainer.add_callback(recorder)
    trainer.train()
    assert recorder.scales == pytest.approx(expected)
    scr = [entry["scr"] for entry in trainer.state.log_history if "scr" in entry]
    assert scr[0] == 0
    assert scr[1] > 0


def test_evaluation_takes_the_whole_gamma(make_model, pairs, tmp_path):
    """A rate of 0 keeps the model, so that evaluations differ by nothing but the warm-up, which they leave out."""
    options = {"gamma_warmup_steps": 6, "learning_rate": 0.0, "eval_strategy": "steps", "eval_steps": 1}
    trainer = MICTrainer(
        model=make_model(),
        args=arguments(tmp_path, **options),
        train_dataset=pairs,
        eval_dataset=pairs.select(range(8)),
    )
    trainer.train()
    evaluated = [entry["eval_scr"] for entry in trainer.state.log_history if "eval_scr" in entry]
    assert len(evaluated) == 6
    assert len(set(evaluated)) == 1
    assert evaluated[0] > 0


def test_shares_are_logged_and_a_small_one_warns_once(make_model, pairs, tmp_path, caplog):
    options = {"gamma": 1e-6, "distill": "similarity_kl", "distill_weight": 1.0, "logging_steps": 2}
    trainer = MICTrainer(model=make_model(), args=arguments(tmp_path, **options), train_dataset=pairs)
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "scr_share" in entry]
    assert [entry["step"] for entry in logged] == [2, 4, 6]
    assert all(entry["sir_share"] < 0.01 < entry["distill_share"] for entry in logged)
    warned = [record.getMessage() for record in caplog.records if "hardly changes the model" in record.getMessage()]
    assert len(warned) == 2
    assert warned[0].startswith("step 2: the gradient of scr is")


def test_a_resumed_run_keeps_the_gamma_it_had_measured(make_model, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(hf_mic.balance, "AUTO_STEPS", 3)
    options = {"gamma": "auto", "num_train_epochs": 2, "save_strategy": "steps", "save_steps": 4, "logging_steps": 100}

    def trainer(folder, model):
        return MICTrainer(model=model, args=arguments(tmp_path / folder, **options), train_dataset=pairs)

    whole = make_model()
    first = trainer("whole", whole)
    first.train()
    gammas = [entry["gamma"] for entry in first.state.log_history if "gamma" in entry]
    assert gammas
    assert len(set(gammas)) == 1
    interrupted = trainer("parts", make_model())
    interrupted.add_callback(Interrupt(6))
    with pytest.raises(KeyboardInterrupt):
        interrupted.train()
    resumed = make_model()
    again = trainer("parts", resumed)
    again.train(resume_from_checkpoint=True)
    assert again.loss.balance.gamma == gammas[0]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


# ---- interruption ---------------------------------------------------------------------------------------------------


class Interrupt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("several", [False, True])
def test_a_resumed_run_equals_an_uninterrupted_one(make_model, pairs, scored, tmp_path, several):
    """Dropout, shuffling, warm-up of gamma and of the rate, Adam moments, drawn dims: all continue."""
    data = {"pairs": pairs, "sts": scored} if several else pairs
    options = {
        "num_train_epochs": 2,
        "save_strategy": "steps",
        "save_steps": 4,
        "gamma_warmup_steps": 0.5,
        "n_dims_per_step": 1,
        "warmup_steps": 0.5,
        "seed": 3,
    }

    def trainer(folder, model):
        return MICTrainer(model=model, args=arguments(tmp_path / folder, **options), train_dataset=data)

    whole = with_dropout(make_model())
    trainer("whole", whole).train()
    interrupted = trainer("parts", with_dropout(make_model()))
    interrupted.add_callback(Interrupt(10))
    with pytest.raises(KeyboardInterrupt):
        interrupted.train()
    random.seed(123)
    torch.manual_seed(123)
    resumed = with_dropout(make_model())
    again = trainer("parts", resumed)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == (24 if several else 12)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


# ---- checkpoints ----------------------------------------------------------------------------------------------------


def test_checkpoints_are_complete_and_rotated(make_model, pairs, tmp_path):
    options = {
        "save_strategy": "steps",
        "save_steps": 1,
        "save_total_limit": 2,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "load_best_model_at_end": True,
        "metric_for_best_model": "loss",
    }
    trainer = MICTrainer(
        model=make_model(),
        args=arguments(tmp_path, **options),
        train_dataset=pairs,
        eval_dataset=pairs.select(range(8)),
    )
    trainer.train()
    folders = sorted(path.name for path in tmp_path.iterdir())
    assert len(folders) == 2
    assert "checkpoint-6" in folders
    best = Path(trainer.state.best_model_checkpoint)
    assert best.parent == tmp_path
    assert best.is_dir()
    last = tmp_path / "checkpoint-6"
    assert {"optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "modules.json"} <= {
        path.name for path in last.iterdir()
    }
    assert str(tmp_path / best.name) in (last / "trainer_state.json").read_text()
    assert "_incomplete" not in (last / "trainer_state.json").read_text()
    assert SentenceTransformer(str(last)).encode("heart").shape == (32,)


@pytest.mark.parametrize("victim", ["_save_optimizer_and_scheduler", "_save_rng_state"])
def test_a_run_killed_while_saving_leaves_the_last_whole_checkpoint(make_model, pairs, tmp_path, monkeypatch, victim):
    options = {"save_strategy": "steps", "save_steps": 2}
    trainer = MICTrainer(model=make_model(), args=arguments(tmp_path, **options), train_dataset=pairs)
    original = getattr(trainer, victim)

    def killed(output_dir):
        if trainer.state.global_step == 4:
            raise KeyboardInterrupt
        original(output_dir)

    monkeypatch.setattr(trainer, victim, killed)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["_incomplete", "checkpoint-2"]
    assert (tmp_path / "_incomplete" / "checkpoint-4" / "model.safetensors").exists()
    assert Path(get_last_checkpoint(tmp_path)).name == "checkpoint-2"
    again = MICTrainer(model=make_model(), args=arguments(tmp_path, **options), train_dataset=pairs)
    again.train(resume_from_checkpoint=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]


def test_a_checkpoint_of_the_same_step_is_replaced(make_model, pairs, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 6}
    for _ in range(2):
        trainer = MICTrainer(model=make_model(), args=arguments(tmp_path, **options), train_dataset=pairs)
        trainer.train()
        assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-6"]
        assert (tmp_path / "checkpoint-6" / "modules.json").exists()
        stale = tmp_path / "checkpoint-6" / "stale"
        assert not stale.exists()
        stale.touch()


def test_pickled_arguments_are_not_written(make_model, pairs, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 3}
    trainer = MICTrainer(model=make_model(), args=arguments(tmp_path, **options), train_dataset=pairs)
    trainer.train()
    trainer.save_model()
    assert (tmp_path / "modules.json").exists()
    assert not list(tmp_path.rglob("training_args.bin"))


def test_only_the_writing_process_writes(make_model, pairs, tmp_path, monkeypatch):
    """Two processes writing README.md or the weights at once would leave either's bytes, or both's."""
    finished: list[Path] = []
    trainer = MICTrainer(model=make_model(), args=arguments(tmp_path), train_dataset=pairs, finish_card=finished.append)
    trainer.save_model()
    assert (finished, (tmp_path / "README.md").is_file()) == ([tmp_path], True)
    for path in tmp_path.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    monkeypatch.setattr(type(trainer.args), "should_save", property(lambda self: False))
    trainer.save_model()
    assert finished == [tmp_path]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("strategy", ["end", "every_save", "checkpoint", "all_checkpoints"])
def test_pushes_of_checkpoints_hold_no_training_state(make_model, pairs, tmp_path, monkeypatch, strategy):
    uploads = []

    def upload(*, folder_path, ignore_patterns=(), path_in_repo=None, repo_id, **options):
        names = {path.name for path in Path(folder_path).iterdir()}
        assert {"modules.json", "trainer_state.json"} <= names  # complete when it is uploaded
        assert repo_id == "me/model"
        uploads.append((Path(folder_path).name, path_in_repo, list(ignore_patterns)))

    monkeypatch.setattr(hf_mic.checkpoints, "upload_folder", upload)
    monkeypatch.setattr(MICTrainer, "init_hf_repo", lambda self, **_: setattr(self, "hub_model_id", "me/model"))
    options = {"save_strategy": "steps", "save_steps": 3, "push_to_hub": True, "hub_strategy": strategy}
    MICTrainer(model=make_model(), args=arguments(tmp_path, **options), train_dataset=pairs).train()
    model_pushes = [folder for folder, path, ignored in uploads if path is None and "optimizer*" in ignored]
    state_pushes = [(folder, path) for folder, path, _ in uploads if path is not None]
    both = ["checkpoint-3", "checkpoint-6"]
    assert model_pushes == ([] if strategy == "end" else both)
    assert (
        state_pushes
        == {
            "end": [],
            "every_save": [],
            "checkpoint": [(folder, "last-checkpoint") for folder in both],
            "all_checkpoints": [(folder, folder) for folder in both],
        }[strategy]
    )


def test_finish_card_sees_each_saved_model(make_model, pairs, tmp_path):
    seen = []

    def finish(folder):
        seen.append((folder.name, (folder / "README.md").exists()))

    options = {"save_strategy": "steps", "save_steps": 6}
    trainer = MICTrainer(
        model=make_model(), args=arguments(tmp_path, **options), train_dataset=pairs, finish_card=finish
    )
    trainer.train()
    trainer.save_model()
    trainer.create_model_card()
    assert seen == [("checkpoint-6", True), (tmp_path.name, True), (tmp_path.name, True)]


# ---- a search of hyper-parameters -----------------------------------------------------------------------------------


def test_each_trial_of_a_search_trains_with_its_own_values(make_model, pairs, tmp_path):
    """As transformers does it: a trial's values are set on the arguments, then a new model is made."""
    trainer = MICTrainer(
        model_init=lambda: make_model(), args=arguments(tmp_path, gamma=0.1, scale=20.0), train_dataset=pairs
    )
    trainer.hp_search_backend = HPSearchBackend.WANDB  # whose trials are plain dicts
    seen = []
    for params in ({"gamma": 0.7, "scale": 5.0}, {"gamma": 0.0, "scale": 40.0}):
        trainer._hp_search_setup(params)
        trainer.train()
        seen.append((trainer.loss.balance.gamma, trainer.loss.loss.loss.scale, trainer.loss.model is trainer.model))
    assert seen == [(0.7, 5.0, True), (0.0, 40.0, True)]
    scr = [entry["scr"] for entry in trainer.state.log_history if "scr" in entry]
    assert scr
    assert set(scr) == {0}
    trainer._hp_search_setup({"gamma": -1.0, "scale": 5.0})
    with pytest.raises(ValueError, match=r"gamma=-1.0: must be >= 0"):
        trainer.train()


def test_a_loss_that_was_given_is_kept_by_a_search(make_model, pairs, tmp_path):
    model = make_model()
    loss = MICLoss(model, MultipleNegativesRankingLoss(model), [32, 16], gamma=0.4)
    trainer = MICTrainer(model_init=lambda: make_model(), args=arguments(tmp_path), train_dataset=pairs, loss=loss)
    trainer.train()
    assert trainer.loss is loss
    assert loss.model is trainer.model


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"anchor": ["a", "b"], "positive": ["c", "d"], "rank": [1, 2]}, "column 'rank' holds int64, not texts"),
        ({"anchor": ["a", "b"], "positive": [{"t": "c"}, {"t": "d"}]}, "column 'positive' holds dicts, not texts"),
        (
            {"anchor": ["a", "b"], "positive": ["c", "d"], "id": ["q1", "q2"]},
            "column 'id' would be trained on as a text",
        ),
        ({"doc_id": ["q1", "q2"], "anchor": ["a", "b"], "positive": ["c", "d"]}, "column 'doc_id' would be"),
    ],
)
def test_columns_that_hold_no_texts_are_named_at_construction(make_model, tmp_path, columns, message):
    with pytest.raises(ValueError, match=message):
        MICTrainer(model=make_model(), args=arguments(tmp_path), train_dataset=Dataset.from_dict(columns))


def test_other_containers_and_encoders_are_refused(make_model, pairs, tmp_path):
    with pytest.raises(TypeError, match=r"train_dataset is or holds a list: give a datasets\.Dataset"):
        MICTrainer(model=make_model(), args=arguments(tmp_path), train_dataset=[pairs, pairs])
    with pytest.raises(TypeError, match="eval_dataset is or holds a list"):
        MICTrainer(model=make_model(), args=arguments(tmp_path), train_dataset=pairs, eval_dataset={"a": [pairs]})
    with pytest.raises(TypeError, match=r"MICTrainer takes a SentenceTransformer, which .* not a Linear"):
        MICTrainer(model=nn.Linear(2, 2), args=arguments(tmp_path), train_dataset=pairs)
