"""The whole way: chains about one's own records and the released files, with either history, through the command line."""

import json

import numpy as np
import pytest
import wfdb

from hf_evl_ecg.__main__ import main as command
from hf_evl_ecg.command_line.benchmark_options import BenchmarkArguments
from hf_evl_ecg.reasoning import answer_chains, build_chain, load_released, simulated_truth
from hf_evl_ecg.results import read_results
from hf_evl_ecg.signals import STANDARD_LEADS, simulate

PAGE = ["--image_width", "448", "--image_height", "224", "--no_footer"]
FURTHER = "Further findings are required to confirm the diagnosis"


@pytest.fixture
def student_folder(tiny_vlm, tmp_path):
    tiny, folder = tiny_vlm("idefics3"), tmp_path / "student"
    tiny.load().save_pretrained(folder)
    tiny.processor.save_pretrained(folder)
    return folder


def ask(kind, options, answer):
    answer_idx = [options.index(a) for a in answer] if isinstance(answer, list) else options.index(answer)
    return {
        "question": f"{kind}?",
        "options": options,
        "answer": answer,
        "answer_idx": answer_idx,
        "question_type": kind,
    }


def entry(number, **about):
    """One line of the released files, made by hand."""
    criteria = ["Wide QRS", "Long PR", "Short PR", "Low voltage", "Tall T"]
    loop = {
        "criterion_selection": ask("criterion_selection", criteria, "Long PR"),
        "finding_identification": ask("finding_identification", ["Yes", "No"], "Yes"),
        "ecg_grounding": [
            ask("lead_grounding", ["Lead I", "Lead II", "Lead V1"], ["Lead I", "Lead II"]),
            ask("measurement_grounding", ["[200ms - 210ms]", "Above 240ms"], ["Above 240ms"]),
        ],
        "diagnostic_decision": ask("diagnostic_decision", ["Yes", "No", FURTHER], "Yes"),
    }
    metadata = {"id": number, "target_dx": "first_degree_av_block", "dx_label": True, "path_idx": 0, **about}
    first = ask("initial_diagnostic_question", ["Yes", "No"], "Yes")
    return {"metadata": metadata, "data": {"initial_diagnostic_question": first, "reasoning": [loop]}}


@pytest.fixture
def released(tmp_path):
    """A folder of files and one of records, PTB-XL's and MIMIC-IV-ECG's."""
    places = {
        "ptbxl": ("records500/21000/21837_hr", {"data_source": "ptbxl", "ecg_id": "21837"}),
        "mimic_iv_ecg": (
            "files/p1972/p19729398/s41084804/41084804",
            {"data_source": "mimic_iv_ecg", "ecg_id": "41084804", "subject_id": "19729398"},
        ),
    }
    for source, (place, about) in places.items():
        folder = (tmp_path / source / place).parent
        folder.mkdir(parents=True)
        wfdb.wrsamp(
            place.rsplit("/", 1)[-1],
            fs=500,
            units=["mV"] * 12,
            sig_name=list(STANDARD_LEADS),
            p_signal=simulate("I-AVB", seed=1).signal_mv.astype(np.float64),
            write_dir=str(folder),
        )
        (tmp_path / f"{source}.jsonl").write_text("".join(json.dumps(entry(n, **about)) + "\n" for n in range(2)))
    return tmp_path


@pytest.mark.parametrize("source", ["ptbxl", "mimic_iv_ecg"])
def test_the_released_form_is_read(released, source):
    chain = load_released(source, released, released / source)[0]
    assert [(step.stage, step.answer_text) for step in (chain.initial, *chain.steps)] == [
        ("initial", "Yes"),
        ("criterion", "Long PR"),
        ("finding", "Yes"),
        ("lead", "Lead I, Lead II"),
        ("measurement", "Above 240ms"),
        ("decision", "Yes"),
    ]
    assert (chain.diagnosis, chain.present) == ("first_degree_av_block", True)
    from hf_evl_ecg.data.rendered import RenderedECG

    assert RenderedECG()(chain.place).size[0] > 100


def test_other_files_are_refused(released):
    with pytest.raises(ValueError, match="a folder files in it is needed"):
        load_released("mimic_iv_ecg", released, released / "ptbxl")
    with pytest.raises(ValueError, match=r"no ptbxl\.jsonl in it"):
        load_released("ptbxl", released / "mimic_iv_ecg", released / "ptbxl")
    with pytest.raises(ValueError, match="source='cpsc'"):
        load_released("cpsc", released, released)
    older = entry(5, data_source="ptbxl", ecg_id="1")
    older["data"]["path_1"] = older["data"].pop("reasoning")
    (released / "ptbxl.jsonl").write_text(json.dumps(older))
    with pytest.raises(
        ValueError, match=r"ptbxl 5 is not of the released form, version 0.0.2 \(KeyError: 'reasoning'\)"
    ):
        load_released("ptbxl", released, released / "ptbxl")


def test_a_step_stands_behind_the_right_answers_or_the_models_own(tiny_vlm, monkeypatch):
    """The diagnosis asked outright is no part of what stands before a step; the options of earlier steps are not either."""
    tiny, seen = tiny_vlm("idefics3"), []
    chain = build_chain("first_degree_av_block", simulated_truth("I-AVB/1"), "I-AVB/1", {"record": "I-AVB/1"})

    def answer_items(model, processor, items, **options):
        seen.append([item["question"] for item in items])
        said = [Answer(item["record"], f" said {len(seen)} ") for item in items]
        return Evaluation(list(items), said)

    from hf_evl_ecg.inference.evaluation import Evaluation
    from hf_evl_ecg.qa.groups import Answer
    from hf_evl_ecg.reasoning import asking

    monkeypatch.setattr(asking, "answer_items", answer_items)
    found = answer_chains(None, tiny.processor, [chain], load_image=None)
    assert len(seen) == 1, "all steps at once"
    first, criterion, finding = seen[0][:3]
    assert "Question:" not in first + criterion
    right = chain.steps[0].answer_text
    assert finding.startswith(
        f"Question: {chain.steps[0].question}\nAnswer: {right}\n\nQuestion: {chain.steps[1].question}"
    )
    assert all(text.count(option) == 0 for option in set(chain.steps[0].options) - {right} for text in seen[0][2:4])
    assert chain.initial.question not in "".join(seen[0][1:])
    seen.clear()
    found = answer_chains(None, tiny.processor, [chain], load_image=None, history="own")
    assert [len(turn) for turn in seen] == [1] * (1 + len(chain.steps)), "one turn after the other"
    assert f"Answer: said 2\n\nQuestion: {chain.steps[1].question}" in seen[2][0]
    assert "said 1" not in "".join(text for turn in seen for text in turn)
    assert found[0].texts == tuple(f"said {turn}" for turn in range(2, 2 + len(chain.steps)))
    with pytest.raises(ValueError, match="history='none': allowed are 'truth', 'own'"):
        answer_chains(None, None, [chain], load_image=None, history="none")


def evaluate(student, data, output, *options):
    words = ["--models", f"mine={student}", "--data", data, "--output_dir", output, "--max_new_tokens", 3, *options]
    return command(["evaluate", *map(str, words)])


def test_own_records_from_the_command_line(student_folder, tmp_path, capsys):
    given = [
        "--simulated_train",
        1,
        "--simulated_test",
        1,
        "--simulated_classes",
        "I-AVB",
        "NORM",
        "--formats",
        "closed",
    ]
    command(["prepare", *map(str, given), "--tasks", "diagnosis", "--output_dir", str(tmp_path / "questions")])
    for options, task in ([], "reasoning"), (["--history", "own"], "reasoning-own"):
        capsys.readouterr()
        words = ["--benchmarks", "reasoning", *PAGE, "--n_bootstrap", 20, "--records", 1, *options]
        assert evaluate(student_folder, tmp_path / "questions", tmp_path / "out", *words) == 0, capsys.readouterr().err
        found = read_results(tmp_path / "out" / "ecg_reasoning.json")
        rows = {row["metric"]: row["value"] for row in found["rows"] if row["task"] == task}
        assert {"completion", "depth", "progress", "final_accuracy", "unparsed"} <= set(rows)
        assert (tmp_path / "out" / f"answers_mine_{task}.jsonl").is_file()
        text = (tmp_path / "out" / "ecg_reasoning.md").read_text()
        assert f"| {task} | unparsed | mine |" in text
        assert text in capsys.readouterr().out


def test_released_files_from_the_command_line(student_folder, released, tmp_path, capsys):
    words = ["--benchmarks", "reasoning-ptbxl", "--record_dir", released / "ptbxl", *PAGE, "--n_bootstrap", 20]
    assert evaluate(student_folder, released, tmp_path / "out", *words, "--study", "mine") == 0, capsys.readouterr().err
    rows = {row["metric"]: row for row in read_results(tmp_path / "out" / "mine.json")["rows"]}
    assert (rows["completion"]["n"], rows["unparsed"]["n"]) == (2, 12)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["reasoning", "--compare", "sft"], "compare=['sft'] (differences are for one's own questions)"),
        (["reasoning", "--no_likelihoods", "--image_dir", "a"], "image_dir='a' (it is for tasks of ECGBench)"),
        (
            ["reasoning-ptbxl", "--record_dir", "r", "--split", "train"],
            "split='train' (the released files are a test set)",
        ),
        (
            ["ptb-test", "--no_generate", "--records", "5"],
            "generate=False (benchmarks are answered in words), records=5",
        ),
        (["ptb-test", "--grid", "thick", "--min_per_class", "3"], "min_per_class=3"),
        (["ptb-test", "--grid", "thick"], "grid='thick' (its images are drawn already)"),
        (["ptb-test", "--history", "own"], "history='own' (it is for reasoning tasks)"),
        (["ptb-test", "--judge_timeout", "5"], "judge_timeout: without effect, as there is no judge"),
        (["reasoning", "ptb-test"], "commands of their own"),
        (["reasoning", "--record_dir", "r"], "a folder of records is needed for reasoning-ptbxl"),
        (["reasoning-ptbxl"], "a folder of records is needed for reasoning-ptbxl"),
        (["reasoning-cpsc", "--record_dir", "r"], "benchmark='reasoning-cpsc'"),
    ],
)
def test_options_without_effect_are_refused(words, message, tmp_path, capsys):
    assert evaluate(tmp_path, tmp_path, tmp_path / "out", "--benchmarks", *words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_every_option_of_evaluate_acts_or_is_refused_with_benchmarks():
    """A new option must be thought of: it is read by score_benchmarks and score_reasoning, or named as unused."""
    import inspect
    from dataclasses import fields

    from hf_evl_ecg.command_line import benchmark_options
    from hf_evl_ecg.commands import evaluate as verb

    helper = inspect.getsource(verb._answering)
    for function, unused in (
        (verb.score_benchmarks, benchmark_options._ECGBENCH),
        (verb.score_reasoning, benchmark_options._CHAINS),
    ):
        source = inspect.getsource(function) + helper
        for kind, name in ((verb.EvaluateArguments, "args"), (BenchmarkArguments, "benchmark")):
            for option in fields(kind):
                read = f"{name}.{option.name}" in source or f'"{option.name}"' in helper
                assert read != (option.name in unused), f"{function.__name__}: {option.name}"
