"""Tables, arrays, questions and benchmarks that hf_evl_ecg reads: how a valid file is made, and by what it is read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from written_records import write_normal

from fuzzing.harness import Reader
from fuzzing.mutations import LINES, STRUCTURE
from fuzzing.valid import a_file, a_json, a_picture, a_table
from hf_evl_ecg.benchmarks.questions import load_benchmark
from hf_evl_ecg.data.instructions import load_instructions
from hf_evl_ecg.data.stored import load_questions, save_questions
from hf_evl_ecg.reasoning.released import load_released
from hf_evl_ecg.records.delineations import read_delineation
from hf_evl_ecg.sources import load_code15, load_folder, load_mimic_iv_ecg, load_ptbxl, load_ptbxl_filtered, load_sph
from hf_evl_ecg.sources.zscored import read_zscored

TURNS = [{"from": "human", "value": "<image>Rhythm?"}, {"from": "gpt", "value": "sinus"}]


def _questions(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        rows = {"source": ["s", "s"], "record": ["a", "b"], "question": ["Rhythm?", "Axis?"], "answer": ["AF", None]}
        save_questions({"test": Dataset.from_dict(rows)}, folder, {})
        return next(folder.glob(name))

    return make


def _records(folder: Path) -> None:
    for name in ("a", "b"):
        write_normal(folder / name)


def _h5(folder: Path) -> None:
    import h5py

    shape = (np.arange(4096 * 12).reshape(1, 4096, 12) % 97 / 50).astype(np.float32)
    with h5py.File(folder / "exams_part0.hdf5", "w") as file:
        file["exam_id"], file["tracings"] = [7], shape
    (folder / "records").mkdir(exist_ok=True)
    with h5py.File(folder / "records" / "A1.h5", "w") as file:
        file["ecg"] = shape[0, :500].T


def _statements(folder: Path) -> None:
    a_table("scp_statements.csv", [{"": "NORM", "diagnostic_class": "NORM"}, {"": "SR", "diagnostic_class": ""}])(
        folder
    )


def _codes(folder: Path) -> None:
    a_table("code.csv", [{"Code": "1", "Description": "Normal ECG"}])(folder)
    _h5(folder)


def _machine(folder: Path) -> None:
    write_normal(folder / "files" / "p1")
    a_table(
        "machine_measurements.csv",
        [{"study_id": "5", "rr_interval": "800", "p_onset": "40", "qrs_onset": "200", "report_0": "Sinus rhythm"}],
    )(folder)


def _array(folder: Path) -> Path:
    signal = (np.arange(2 * 60 * 12).reshape(2, 60, 12) % 89 * 10).astype(np.int16)
    np.save(folder / "x.npy", signal)
    return folder / "x.npy"


def _delineated(folder: Path) -> Path:
    words = [
        (39 << 10) + 100,
        (1 << 10) + 20,
        (40 << 10) + 20,
        (59 << 10),
        0,
        500,
        (39 << 10),
        (27 << 10) + 30,
        (40 << 10) + 20,
        0,
    ]
    (folder / "1.ii").write_bytes(np.array(words, "<u2").tobytes())
    return folder / "1.ii"


def _released() -> dict[str, Any]:
    def ask(kind: str, options: list[str], answer: str) -> dict[str, Any]:
        return {"question": "?", "options": options, "answer": answer, "question_type": kind}

    loop = {"criterion_selection": ask("criterion_selection", ["Long PR", "Short PR"], "Long PR"), "ecg_grounding": [],
            "finding_identification": ask("finding_identification", ["Yes", "No"], "No"),
            "diagnostic_decision": ask("diagnostic_decision", ["Yes", "No"], "No")}  # fmt: skip
    about = {
        "id": 7,
        "data_source": "ptbxl",
        "ecg_id": "21837",
        "target_dx": "first_degree_av_block",
        "dx_label": False,
    }
    first = ask("initial_diagnostic_question", ["Yes", "No"], "No")
    return {"metadata": about, "data": {"initial_diagnostic_question": first, "reasoning": [loop]}}


def _released_file(folder: Path) -> Path:
    (folder / "records500").mkdir()
    return a_file("ptbxl.jsonl", json.dumps(_released()) + "\n" + json.dumps(_released()) + "\n")(folder)


def _benchmark(suffix: str) -> Callable[[Path], Path]:
    records = [{"id": f"r{i}", "image": f"r{i}.png", "conversations": TURNS} for i in range(3)]
    lines = "".join(f"{json.dumps(record)}\n" for record in records)
    make = a_file(f"ptb-test.{suffix}", lines if suffix == "jsonl" else json.dumps(records))
    if suffix != "parquet":
        return make

    def table(folder: Path) -> Path:
        a_picture("r.png")(folder)
        rows = [
            {
                "id": r["id"],
                "conversations": r["conversations"],
                "image": {"bytes": (folder / "r.png").read_bytes(), "path": None},
            }
            for r in records
        ]
        Dataset.from_list(rows).to_parquet(folder / "ptb-test.parquet")
        return folder / "ptb-test.parquet"

    return table


def _seen(path: Path) -> Any:
    benchmark = load_benchmark("ptb-test", path.parent)
    return [benchmark.load_image(question.place) for question in benchmark.questions if "row" in question.place]


def _instructions(path: Path) -> Any:
    return load_instructions(path, path.parent, check=False)


def _first_of(load: Callable[..., Any], **options: Any) -> Callable[[Path], Any]:
    return lambda path: load(path.parent, **options)


H5 = ("h5py",)
PTBXL = [{"ecg_id": i, "patient_id": f"{i}.0", "age": "56.0", "sex": "1", "scp_codes": "{'NORM': 100.0, 'SR': 0.0}", "strat_fold": i, "heart_axis": "MID",
          "report": "sinus", "filename_hr": f"records500/0000{i}_hr"} for i in (1, 9)]  # fmt: skip
FILTERED = "sinus_rhythm sinus_bradycardia sinus_tachycardia sinus_arrhythmia atrial_fibrillation atrial_flutter premature_atrial_contraction " \
    "first_degree_av_block left_bundle_branch_block incomplete_rbbb left_anterior_fascicular_block left_axis_deviation right_axis_deviation " \
    "t_wave_abnormal t_wave_inversion"  # fmt: skip
ZSCORED = [
    {
        "row": i,
        "ecg_id": i,
        "labels18_known": 1,
        **dict.fromkeys(FILTERED.split(), 0),
        "scp_codes": "{'SR': 0.0}",
        "strat_fold": 9,
    }
    for i in (0, 1)
]
MINE = [
    {"record": name, "patient": name, "labels": "AF|SR", "age": "51", "sex": "F", "heart_rate": "70"}
    for name in ("a", "b")
]
CODE15 = [{"exam_id": 7, "age": 50, "is_male": "True", **dict.fromkeys(("1dAVb", "RBBB", "LBBB", "SB", "ST", "AF"), "False"), "patient_id": 3,
           "normal_ecg": "True", "trace_file": "exams_part0.hdf5"}]  # fmt: skip
MIMIC = [{"subject_id": 1, "study_id": 5, "path": "files/p1"}]
SPH = [{"ECG_ID": "A1", "AHA_Code": "1;22+310", "Patient_ID": "P", "N": 5000, "Age": 40, "Sex": "M"}]

READERS = [
    Reader("PTB-XL table", a_table("ptbxl_database.csv", PTBXL, _statements), _first_of(load_ptbxl, check="none"), called=("ptb-xl:",), share=0.25),
    Reader("PTB-XL statements", lambda folder: a_table("ptbxl_database.csv", PTBXL, _statements)(folder).with_name("scp_statements.csv"), _first_of(load_ptbxl, check="none"), called=("ptb-xl:",), share=0.25),
    Reader("filtered PTB-XL table", a_table("labels.csv", ZSCORED), _first_of(load_ptbxl_filtered), called=("ptb-xl-filtered:",), share=0.25),
    Reader("filtered PTB-XL array", _array, lambda path: read_zscored({"record": "x.npy#1"}, path.parent)),
    Reader("table of one's own", a_table("records.csv", MINE, _records), _first_of(load_folder), share=0.25),
    Reader("CODE-15 table", a_table("exams.csv", CODE15, _h5), _first_of(load_code15, check="none"), packages=H5, called=("code-15:",), share=0.25),
    Reader("CODE-15 part", lambda folder: a_table("exams.csv", CODE15, _h5)(folder).with_name("exams_part0.hdf5"), _first_of(load_code15, check="signal"), packages=H5, called=("code-15:",), share=0.25),
    Reader("MIMIC-IV-ECG table", a_table("record_list.csv", MIMIC, _machine), _first_of(load_mimic_iv_ecg), called=("mimic-iv-ecg:",), share=0.25),
    Reader("MIMIC-IV-ECG measurements", lambda folder: a_table("record_list.csv", MIMIC, _machine)(folder).with_name("machine_measurements.csv"), _first_of(load_mimic_iv_ecg), called=("mimic-iv-ecg:",), share=0.25),
    Reader("SPH table", a_table("metadata.csv", SPH, _codes), _first_of(load_sph, check="none"), packages=H5, called=("sph:",), share=0.25),
    Reader("wave boundaries", _delineated, read_delineation),
    Reader("instructions json", a_json("i.json", [{"id": str(i), "image": "a.png", "conversations": TURNS} for i in range(3)]), _instructions, STRUCTURE),
    Reader("instructions jsonl", a_file("i.jsonl", "".join(json.dumps({"id": str(i), "image": "a.png", "conversations": TURNS}) + "\n" for i in range(3))), _instructions, LINES),
    Reader("questions, their index", _questions("dataset_dict.json"), lambda path: load_questions(path.parent, "test"), STRUCTURE),
    Reader("questions, their state", _questions("test/state.json"), lambda path: load_questions(path.parents[1], "test"), STRUCTURE),
    Reader("questions, their columns", _questions("test/dataset_info.json"), lambda path: load_questions(path.parents[1], "test"), STRUCTURE),
    Reader("questions, their rows", _questions("test/*.arrow"), lambda path: list(load_questions(path.parents[1], "test"))),
    Reader("benchmark json", _benchmark("json"), _seen, STRUCTURE, called=("ptb-test:",)),
    Reader("benchmark jsonl", _benchmark("jsonl"), _seen, LINES, called=("ptb-test:",)),
    Reader("benchmark parquet", _benchmark("parquet"), _seen, called=("ptb-test:", "image of row"), sound=False, share=0.25),
    Reader("reasoning jsonl", _released_file, lambda path: load_released("ptbxl", path.parent, path.parent), LINES, called=("ptbxl ", "entry of ptbxl")),
]  # fmt: skip
