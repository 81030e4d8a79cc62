"""Reading questions back: what ``hf-evl-ecg prepare`` writes."""

import pytest
from datasets import DatasetDict

from hf_evl_ecg.data import stored
from hf_evl_ecg.data.questions import question_dataset
from hf_evl_ecg.data.stored import load_questions, save_questions
from hf_evl_ecg.qa.grading import task_name
from hf_evl_ecg.qa.items import class_list_question
from hf_evl_ecg.qa.labels import PTBXL_SUPERCLASSES
from hf_evl_ecg.sources.simulated import load_simulated


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("questions") / "data"
    rows, _ = load_simulated(2, classes=["NORM", "LBBB"])
    DatasetDict({"train": question_dataset(rows, formats=["closed"], tasks=["rhythm"])}).save_to_disk(str(path))
    return path


def test_records_are_limited_evenly_with_all_their_questions(folder):
    everything, half = load_questions(folder, "train"), load_questions(folder, "train", 2)
    assert len(set(everything["record"])) == 4
    assert set(half["record"]) == {"NORM/0", "NORM/3"}
    assert len(half) == sum(record in set(half["record"]) for record in everything["record"])
    assert len(load_questions(folder, "train", 9)) == len(everything)


def test_what_is_not_there_is_named(folder, tmp_path):
    with pytest.raises(ValueError, match=r"split='holdout': .* has \['train'\]"):
        load_questions(folder, "holdout")
    with pytest.raises(ValueError, match="is no folder"):
        load_questions(tmp_path / "absent", "train")
    with pytest.raises(ValueError, match="holds no whole question dataset"):
        load_questions(tmp_path, "train")


class Killed(BaseException):
    """What no handler of errors catches."""


def test_a_kill_at_any_moment_leaves_one_dataset_or_none(tmp_path, monkeypatch):
    """Records move between splits when a set is made anew: splits of two sets would train on what is tested."""
    rows, _ = load_simulated(2, classes=["NORM", "LBBB"])
    asked = question_dataset(rows, formats=["closed"], tasks=["rhythm"])
    names = list(dict.fromkeys(asked["record"]))

    def divided(train):
        return {
            split: asked.filter(lambda item, own=own: item["record"] in own, load_from_cache_file=False)
            for split, own in (("train", train), ("test", set(names) - train))
        }

    former, new = divided(set(names[:2])), {**divided(set(names[2:])), "validation": asked}
    seen = set()
    for step in range(30):
        folder = tmp_path / str(step)
        save_questions(former, folder, {"report.md": "former"})
        left = iter(range(step))

        def stopped(name, real):
            def call(*given, **named):
                if next(left, None) is None:
                    raise Killed(name)
                return real(*given, **named)

            return call

        with monkeypatch.context() as patch:
            for module, name in ((stored.os, "replace"), (stored.shutil, "rmtree"), (stored.Path, "unlink")):
                patch.setattr(module, name, stopped(name, getattr(module, name)))
            try:
                save_questions(new, folder, {"report.md": "new"})
            except Killed:
                pass
            else:
                seen.add("whole")
        if not (folder / stored.INDEX).is_file():
            with pytest.raises(ValueError, match="holds no whole question dataset"):
                load_questions(folder, "test")
            seen.add("none")
            continue
        found = {split: set(load_questions(folder, split)["record"]) for split in ("train", "test")}
        wanted = former if found["train"] == set(names[:2]) else new
        assert found == {split: set(wanted[split]["record"]) for split in ("train", "test")}
        seen.add("former" if wanted is former else "new")
        if wanted is new:
            assert (folder / "report.md").read_text() == "new"
    assert {"former", "none", "new", "whole"} <= seen
    save_questions(former, folder, {})
    with pytest.raises(ValueError, match=r"split='validation': .* has \['test', 'train'\]"):
        load_questions(folder, "validation")


def test_several_lists_of_classes_are_asked_where_all_of_a_list_are_known():
    rows, _ = load_simulated(1, classes=["LBBB"])
    lists = [
        ["NORM", "MI", "STTC", "CD", "HYP"],
        ["LBBB", "RBBB"],
        ["AF", "LBBB"],
    ]  # MI is not known of a simulated record
    asked = question_dataset(rows, formats=["fill"], tasks=["rhythm"], classes=lists)
    found = [(item["options"], item["answer"]) for item in asked if item["options"]]
    text = "left bundle branch block"
    assert found == [([text, "right bundle branch block"], text), (["atrial fibrillation", text], text)]
    one = question_dataset(rows, formats=["fill"], tasks=["rhythm"], classes=lists[1])
    assert [item["options"] for item in one if item["options"]] == [[text, "right bundle branch block"]]


def test_the_superclasses_are_a_task_beside_other_lists():
    assert task_name(class_list_question("r", PTBXL_SUPERCLASSES, ["MI"])) == "diagnosis_superclasses"
    assert task_name(class_list_question("r", ["MI", "AF"], ["MI"])) == "diagnosis_classes"
