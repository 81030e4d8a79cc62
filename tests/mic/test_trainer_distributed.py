"""MICTrainer in two processes: several data sets, streams, the best model, who writes, what is refused."""

import os
import random
import sys

import pytest
import torch
from datasets import Dataset, Features, IterableDataset, Value
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import CoSENTLoss, MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

from hf_mic import MICLoss, MICTrainer, MICTrainingArguments

WORDS = [
    "the",
    "patient",
    "heart",
    "rhythm",
    "rate",
    "is",
    "normal",
    "sinus",
    "fast",
    "slow",
    "wide",
    "narrow",
    "complex",
    "axis",
    "left",
    "right",
    "block",
]
CASES = ["several", "round_robin", "best", "stream", "gathered_stream", "dict", "resumed", "refused"]


def texts(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(2, 12))) for _ in range(count)]


def columns(count: int, names: str, seed: int = 0) -> Dataset:
    return Dataset.from_dict({name: texts(count, seed + i) for i, name in enumerate(names)})


def stream(count: int) -> IterableDataset:
    rows = columns(count, "ab")
    features = Features({"a": Value("string"), "b": Value("string")})
    return IterableDataset.from_generator(lambda: iter(rows), features=features)


def run_case(case: str, encoder: str, output: str, processes: int, checkpoint: str | None = None) -> tuple[dict, dict]:
    """Train on the data of a case; what happened, and the weights."""
    model = SentenceTransformer(modules=[Transformer(encoder), Pooling(32)], device="cpu").double()
    options = {
        "per_device_train_batch_size": 8 // processes,
        "per_device_eval_batch_size": 4,
        "num_train_epochs": 2,
        "optim": "sgd",
        "learning_rate": 0.002,
        "max_grad_norm": 0.0,
        "weight_decay": 0.0,
        "save_strategy": "no",
        "logging_steps": 1,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "gather_across_devices": case != "stream",
    }
    given: dict = {"train_dataset": {"pairs": columns(27, "ab"), "triplets": columns(44, "abc", 5)}}
    if case == "round_robin":
        options |= {"multi_dataset_batch_sampler": "round_robin", "n_dims_per_step": 1}  # all draw the same dims
    elif case == "best":
        steps = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
        options |= steps | {
            "load_best_model_at_end": True,
            "save_total_limit": 1,
            "optim": "adamw_torch",
            "learning_rate": 0.05,
        }
        given = {"train_dataset": columns(24, "ab"), "eval_dataset": columns(11, "ab", 7)}
    elif "stream" in case:
        options |= {"max_steps": 5}
        given = {"train_dataset": stream(27)}
    elif case == "dict":  # losses with other terms, of which a process may have seen one only when the first is logged
        options["gather_across_devices"] = False
        scored = columns(24, "ab", 9).add_column("score", [i / 24 for i in range(24)])
        given = {
            "train_dataset": {"pairs": columns(24, "ab"), "scored": scored},
            "loss": {
                "pairs": MICLoss(model, MultipleNegativesRankingLoss(model), [32, 16], gamma="auto"),
                "scored": CoSENTLoss(model),
            },
        }
    elif case == "resumed":
        options |= {"save_strategy": "steps", "save_steps": 7}  # within the second epoch of 5 steps
        given = {"train_dataset": columns(44, "ab")}
    elif case == "refused":
        options["gather_across_devices"] = False
        inner = MultipleNegativesRankingLoss(model, gather_across_devices=True)
        given["loss"] = MICLoss(model, inner, [32, 16], gather_across_devices=True)
    finished: list[str] = []
    args = MICTrainingArguments(output, **options)
    try:
        trainer = MICTrainer(model=model, args=args, finish_card=lambda folder: finished.append(str(folder)), **given)
    except ValueError as error:
        return {"refused": str(error)}, {}
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model()
    state, history = trainer.state, trainer.state.log_history
    about = {
        "steps": state.global_step,
        "best": state.best_model_checkpoint,
        "eval": [entry["eval_loss"] for entry in history if "eval_loss" in entry],
        "scr": [entry["scr"] for entry in history if "scr" in entry],
        "finished": finished,
        "gamma": trainer.loss["pairs"].balance.gamma if case == "dict" else None,
    }
    return about, model.state_dict()


def worker(encoder: str, output: str) -> None:
    rank = int(os.environ["RANK"])
    results = {case: run_case(case, encoder, f"{output}/{case}", 2) for case in CASES}
    folder = f"{output}/resumed"
    results["again"] = run_case("resumed", encoder, folder, 2, f"{folder}/checkpoint-7")
    torch.save(results, f"{output}/rank{rank}.pt")
    from two_processes import leave  # on the path of a launched process only

    leave()


@pytest.fixture(scope="module")
def two_processes(tiny_bert_path, run_in_two_processes, tmp_path_factory):
    output = tmp_path_factory.mktemp("two")
    run_in_two_processes(__file__, tiny_bert_path, output)
    return output, [torch.load(output / f"rank{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("case", ["several", "round_robin"])
def test_several_data_sets_gathered_equal_one_process(two_processes, tiny_bert_path, tmp_path, case):
    """Batches that meet in a step are of one data set, in the order of one process with the whole batch."""
    (first, weights), (second, others) = (ranks[case] for ranks in two_processes[1])
    expected, whole = run_case(case, tiny_bert_path, str(tmp_path), 1)
    assert first["steps"] == second["steps"] == expected["steps"] == (16 if case == "several" else 12)
    assert first["scr"] == pytest.approx(expected["scr"], abs=1e-4)
    assert len(set(expected["scr"])) > 4
    start = SentenceTransformer(modules=[Transformer(tiny_bert_path), Pooling(32)], device="cpu").double().state_dict()
    moved = max((whole[name] - value).abs().max().item() for name, value in start.items())
    assert moved > 1e-3
    for name, value in whole.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-9, atol=1e-9, msg=name)
        assert torch.equal(weights[name], others[name])


def test_both_processes_end_with_the_best_model(two_processes):
    output, ranks = two_processes
    (first, weights), (second, others) = (rank["best"] for rank in ranks)
    folder = output / "best"
    losses = first["eval"]
    assert losses == second["eval"]
    assert losses.index(min(losses)) < len(losses) - 1  # the best is not the last
    assert first["best"] == second["best"] == str(folder / f"checkpoint-{1 + losses.index(min(losses))}")
    saved = SentenceTransformer(first["best"], device="cpu").double().state_dict()
    for name, value in weights.items():
        assert torch.equal(value, others[name])
        assert torch.equal(value, saved[name])
    assert (folder / "modules.json").exists()
    assert not list(folder.rglob("_incomplete"))


def test_one_process_writes(two_processes):
    output, ranks = two_processes
    for case in CASES[:-1]:
        assert ranks[0][case][0]["finished"][-1] == str(output / case)
        assert ranks[1][case][0]["finished"] == []


def test_resuming_within_an_epoch_continues_its_order(two_processes):
    """The rest of the second epoch, not of the first in its place."""
    for ranks in two_processes[1]:
        (whole, weights), (rest, others) = ranks["resumed"], ranks["again"]
        assert whole["steps"] == rest["steps"] == 10
        assert rest["scr"] == whole["scr"]
        for name, value in weights.items():
            torch.testing.assert_close(others[name], value, rtol=1e-12, atol=1e-12, msg=name)


@pytest.mark.parametrize("case", ["stream", "gathered_stream"])
def test_streams_train_in_two_processes(two_processes, case):
    (first, weights), (second, others) = (ranks[case] for ranks in two_processes[1])
    assert first["steps"] == second["steps"] == 5
    assert all(torch.equal(value, others[name]) for name, value in weights.items())


def test_processes_with_losses_of_other_terms_log_together(two_processes):
    (first, weights), (second, others) = (ranks["dict"] for ranks in two_processes[1])
    assert first["steps"] == second["steps"] == 12
    assert first["scr"] == second["scr"]
    assert 6 <= len(first["scr"]) <= 12  # where no process had pairs there is nothing to log
    assert all(value > 0 for value in first["scr"][1:])  # in the first step gamma is not measured yet
    assert first["gamma"] == second["gamma"] > 0  # what one process measured counts in all
    assert all(torch.equal(value, others[name]) for name, value in weights.items())


def test_a_gathering_loss_needs_gathering_arguments(two_processes):
    for ranks in two_processes[1]:
        assert "set gather_across_devices=True" in ranks["refused"][0]["refused"]


if __name__ == "__main__":
    worker(*sys.argv[1:])
