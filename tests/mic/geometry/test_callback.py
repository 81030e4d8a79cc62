"""GeometryCallback inside real trainer runs: what is logged, when, by whom, and that training does not notice."""

import json

import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from transformers import TrainerCallback

from hf_mic.geometry.callback import GeometryCallback
from hf_mic.geometry.diagnostics import geometry_report

DIMS = [8, 32]

TWO_PROCESSES = """
import json, os, sys
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from hf_mic.geometry.callback import GeometryCallback
from two_processes import leave

folder, output, texts = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
model = SentenceTransformer(folder, device="cpu")
data = Dataset.from_dict({"anchor": texts, "positive": texts[::-1]})
args = SentenceTransformerTrainingArguments(
    output, max_steps=4, per_device_train_batch_size=4, use_cpu=True, ddp_backend="gloo", logging_steps=2,
    eval_strategy="steps", eval_steps=4, report_to="none", save_strategy="no", disable_tqdm=True,
)
trainer = SentenceTransformerTrainer(
    model, args, train_dataset=data, eval_dataset=data, loss=MultipleNegativesRankingLoss(model)
)
trainer.add_callback(GeometryCallback(texts, [8, 32], trainer=trainer, every_n_steps=2))
trainer.train()
rank = os.environ["RANK"]
with open(f"{output}/log{rank}.json", "w") as file:
    json.dump(trainer.state.log_history, file)
leave()
"""


class Reporter(TrainerCallback):
    """Stands for TensorBoard and the like: sees what on_log delivers."""

    def __init__(self):
        self.seen = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.seen.append((state.global_step, dict(logs)))


@pytest.fixture
def make_trainer(make_model, make_sentences, tmp_path):
    def build(model=None, evaluations=1, **settings):
        model = model or make_model()
        data = Dataset.from_dict({"anchor": make_sentences(32, 1), "positive": make_sentences(32, 2)})
        evaluated = data.select(range(8)) if evaluations == 1 else {f"e{i}": data for i in range(evaluations)}
        args = SentenceTransformerTrainingArguments(
            str(tmp_path),
            **{
                "max_steps": 4,
                "per_device_train_batch_size": 4,
                "learning_rate": 1e-3,
                "use_cpu": True,
                "report_to": "none",
                "save_strategy": "no",
                "logging_steps": 1,
                "disable_tqdm": True,
                **settings,
            },
        )
        loss = MultipleNegativesRankingLoss(model)
        return SentenceTransformerTrainer(model, args, train_dataset=data, eval_dataset=evaluated, loss=loss)

    return build


@pytest.fixture
def texts(make_sentences):
    return make_sentences(40, 9)


def measured_steps(history):
    return [entry["step"] for entry in history if any(key.startswith("geometry/") for key in entry)]


def test_each_evaluation_logs_the_geometry_of_the_current_model(make_trainer, texts):
    trainer = make_trainer(eval_strategy="steps", eval_steps=2)
    reporter = Reporter()
    trainer.add_callback(reporter)
    trainer.add_callback(GeometryCallback(texts, DIMS, trainer=trainer, pairs=[(0, 1), (2, 3)]))
    trainer.train()
    assert measured_steps(trainer.state.log_history) == [2, 4]
    first, last = (entry for entry in trainer.state.log_history if "geometry/eigen_cv@32" in entry)
    assert first["geometry/eigen_cv@32"] != last["geometry/eigen_cv@32"]
    expected = {
        f"geometry/{name}@{row['dim']}": value
        for row in geometry_report(trainer.model.encode(texts), DIMS, [(0, 1), (2, 3)])
        for name, value in row.items()
        if name not in ("dim", "n", "knn_k") and value is not None
    }
    logged = {key: value for key, value in last.items() if key.startswith("geometry/")}
    assert logged == pytest.approx(expected, abs=1e-6)
    assert "geometry/alignment@8" in logged
    assert "geometry/residual_r2@32" not in logged  # no residual at full width
    assert (4, {**logged, "epoch": last["epoch"]}) in reporter.seen


def test_training_is_bit_identical_with_and_without(make_model, make_trainer, texts):
    histories, weights = [], []
    for watched in (False, True):
        model = make_model()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.2
        trainer = make_trainer(model, eval_strategy="steps", eval_steps=2)
        if watched:
            trainer.add_callback(GeometryCallback(texts, DIMS, trainer=trainer, every_n_steps=1))
        trainer.train()
        histories.append(trainer.state.log_history)
        weights.append(model.state_dict())
    assert measured_steps(histories[1]) == [1, 2, 3, 4]
    losses = [[(e["step"], e["loss"]) for e in history if "loss" in e] for history in histories]
    assert [step for step, _ in losses[0]] == [1, 2, 3, 4]
    assert losses[0] == losses[1]
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_gradients_and_modes_are_left_alone(make_model, make_trainer, texts):
    model = make_model()
    trainer = make_trainer(model)
    callback = GeometryCallback(texts, DIMS, trainer=trainer)
    model.train()
    frozen = model[0].model.encoder.layer[0]
    frozen.eval()
    modes = {name: module.training for name, module in model.named_modules()}
    model.encode(texts[:2])
    assert not model.training  # encode alone switches to eval
    for name, module in model.named_modules():
        module.training = modes[name]
    callback.on_evaluate(trainer.args, trainer.state, trainer.control)
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert all(parameter.grad is None for parameter in model.parameters())

    frozen.forward = lambda *args, **kwargs: (_ for _ in ()).throw(RuntimeError("broken layer"))
    trainer.state.global_step = 1
    with pytest.raises(RuntimeError, match="broken layer"):
        callback.on_evaluate(trainer.args, trainer.state, trainer.control)
    assert {name: module.training for name, module in model.named_modules()} == modes


def test_several_evaluation_sets_are_measured_once(make_trainer, texts):
    trainer = make_trainer(evaluations=2, eval_strategy="steps", eval_steps=2)
    trainer.add_callback(GeometryCallback(texts, DIMS, trainer=trainer, every_n_steps=4))
    trainer.train()
    assert sum("eval_e1_loss" in entry for entry in trainer.state.log_history) == 2
    assert measured_steps(trainer.state.log_history) == [2, 4]


def test_steps_without_evaluation_and_a_choice_of_measures(make_trainer, texts):
    trainer = make_trainer(eval_strategy="steps", eval_steps=1)
    callback = GeometryCallback(
        texts, [8], trainer=trainer, at_evaluation=False, every_n_steps=3, measures=["eigen_cv", "knn_overlap"]
    )
    trainer.add_callback(callback)
    trainer.train()
    assert measured_steps(trainer.state.log_history) == [3]
    entry = next(entry for entry in trainer.state.log_history if "geometry/eigen_cv@8" in entry)
    assert set(entry) == {"geometry/eigen_cv@8", "geometry/knn_overlap@8", "epoch", "step"}
    trainer.train()  # a second run counts from its own start
    assert measured_steps(trainer.state.log_history) == [3]


def test_prompt_reaches_the_encoder(make_trainer, texts):
    trainer = make_trainer()
    callback = GeometryCallback(texts, DIMS, trainer=trainer, prompt="heart rhythm : ", measures=["mean_cosine"])
    callback.on_evaluate(trainer.args, trainer.state, trainer.control)
    embeddings = trainer.model.encode(texts, prompt="heart rhythm : ")
    expected = geometry_report(embeddings, [8])[0]["mean_cosine"]
    assert trainer.state.log_history[0]["geometry/mean_cosine@8"] == pytest.approx(expected, abs=1e-6)
    assert expected != pytest.approx(geometry_report(trainer.model.encode(texts), [8])[0]["mean_cosine"], abs=1e-4)


def test_diverged_model_warns_and_trains_on(make_trainer, texts, caplog):
    trainer = make_trainer()
    callback = GeometryCallback(texts, DIMS, trainer=trainer)
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(float("nan"))
    callback.on_evaluate(trainer.args, trainer.state, trainer.control)
    assert trainer.state.log_history == []
    assert "not finite" in caplog.text


def test_two_processes_only_the_first_logs(tiny_bert_path, make_sentences, run_in_two_processes, tmp_path):
    """Different log histories on the ranks must not change who takes part in gathering the loss."""
    script = tmp_path / "run.py"
    script.write_text(TWO_PROCESSES)
    run_in_two_processes(script, tiny_bert_path, tmp_path, json.dumps(make_sentences(16, 3)))
    first, second = (json.loads((tmp_path / f"log{rank}.json").read_text()) for rank in (0, 1))
    assert measured_steps(first) == [2, 4]
    assert measured_steps(second) == []
    losses = [[(e["step"], e["loss"]) for e in history if "loss" in e] for history in (first, second)]
    assert [step for step, _ in losses[0]] == [2, 4]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"texts": "one string"}, "list of at least two"),
        ({"texts": ["one"]}, "list of at least two"),
        ({"texts": [1, 2]}, "strings"),
        ({"dims": [8, 33]}, "between 1 and 32"),
        ({"dims": []}, "must be distinct"),
        ({"every_n_steps": 0}, "every_n_steps"),
        ({"at_evaluation": False}, "nothing would be measured"),
        ({"measures": ["isotropy"]}, r"unknown measures \['isotropy'\]; choose from effective_rank"),
        ({"measures": []}, "empty list; choose from"),
        ({"pairs": [(0, 40)]}, "pairs must index rows"),
        ({"k": 0}, "k=0: must be at least 1"),
    ],
)
def test_bad_settings_are_refused_before_training(make_trainer, texts, change, message):
    settings = {"texts": texts, "dims": DIMS, "trainer": make_trainer(), **change}
    with pytest.raises(ValueError, match=message):
        GeometryCallback(settings.pop("texts"), settings.pop("dims"), **settings)


def test_other_models_are_refused(make_trainer, texts):
    trainer = make_trainer()
    trainer.model = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match="SentenceTransformer, got Linear"):
        GeometryCallback(texts, DIMS, trainer=trainer)
