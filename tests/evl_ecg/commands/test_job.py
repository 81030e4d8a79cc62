"""job: records from the Hub, every stage of a study, and the student back to the Hub, on models of tiny size."""

import json
import sys
from pathlib import Path

import pytest
import yaml
from huggingface_hub import HfApi

from hf_evl_ecg.commands import convert
from hf_evl_ecg.hub import export, publish
from hf_evl_ecg.signals.simulation import simulate

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from ecg_work import make_work, reload_here, run
from hub_server import go_online, running_hub

CARD = "---\nlicense: apache-2.0\n---\n# A student made by a job\n"


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    return make_work(tmp_path_factory.mktemp("ecg"))


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(publish, "reload_logits", reload_here)
    monkeypatch.setattr(export, "reload_logits", reload_here)
    with running_hub() as running:
        go_online(monkeypatch, running)
        yield running


@pytest.fixture
def records(work, tmp_path, save_record) -> Path:
    """What a data set repository holds: waveforms with a table, the study and the card."""
    folder = tmp_path / "records"
    (folder / "own").mkdir(parents=True)
    lines = ["record,labels,split"]
    for seed, (label, split) in enumerate([("NORM", "train"), ("LBBB", "train"), ("NORM", "test"), ("LBBB", "test")]):
        save_record(folder / "own", f"r{seed}", simulate(label, seed=seed))
        lines.append(f"r{seed},{label},{split}")
    (folder / "own" / "records.csv").write_text("\n".join(lines) + "\n")
    training = {
        "per_device_train_batch_size": 2,
        "use_cpu": True,
        "disable_tqdm": True,
        "save_strategy": "no",
        "max_steps": 2,
    }
    study = {
        "study": "of_a_job",
        "images": {"image_width": 448, "image_height": 224, "grid": "thick", "footer": False},
        "questions": {
            "folder": "own",
            "simulated_train": 2,
            "simulated_test": 1,
            "formats": ["closed"],
            "tasks": ["diagnosis"],
        },
        "teacher": str(work / "teacher"),
        "student": {"student": str(work / "student_init"), **training},
        "methods": {"sft": {"sft_only": True}},
        "evaluate": {"max_new_tokens": 4, "n_bootstrap": 20, "progress_bar": False},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    (folder / "README.md").write_text(CARD)
    return folder


def test_from_a_repository_of_records_to_one_of_the_student(hub, records, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_write")
    api = HfApi()
    api.create_repo("ann/records", repo_type="dataset")
    api.upload_folder(repo_id="ann/records", repo_type="dataset", folder_path=records)
    monkeypatch.chdir(tmp_path)
    given = ["study.yaml", "--records", "ann/records", "--card", "README.md", "--student", "sft_0"]
    given += ["--repo_id", "ann/student", "--output_dir", tmp_path / "job"]
    push = run("job", *given)
    assert push.repo_id == "ann/student"
    files = api.list_repo_files("ann/student")
    assert {"config.json", "model.safetensors", "README.md", "results/of_a_job.json"} <= set(files)
    assert not [name for name in files if name.endswith((".bin", ".pt"))]
    report = json.loads((tmp_path / "job" / "of_a_job.json").read_text())["config"]["questions_report"]
    assert {source["source"]: source["n_rows"] for source in report["sources"]}["own"] == 4, "those of the repository"
    commits = len(api.list_repo_commits("ann/student"))
    capsys.readouterr()
    run("job", *given)  # as after an interruption at the very end
    printed = capsys.readouterr().out
    assert "[questions] is done already" in printed
    assert "[sft_0] is done already" in printed
    assert len(api.list_repo_commits("ann/student")) == commits, "nothing new, no commit"


def test_a_teacher_is_converted_once_and_taken(records, work, tmp_path, monkeypatch):
    converted = []

    def instead(args):
        converted.append(args.source)
        Path(args.destination).mkdir(parents=True)
        for path in (work / "teacher").iterdir():
            if path.is_file():
                Path(args.destination, path.name).write_bytes(path.read_bytes())

    monkeypatch.setattr(convert, "main", instead)
    monkeypatch.setattr(export, "reload_logits", reload_here)
    monkeypatch.setattr(publish, "reload_logits", reload_here)
    given = [
        records / "study.yaml",
        "--data_dir",
        records,
        "--card",
        "README.md",
        "--student",
        "sft_0",
        "--smoke",
        "--dry_run",
    ]
    given += ["--repo_id", "ann/student", "--output_dir", tmp_path / "job", "--convert", "PULSE"]
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        preview = run("job", *given)
        assert "model.safetensors" in preview.files
    assert converted == ["PULSE"]
    rows = json.loads((tmp_path / "job" / "of_a_job.json").read_text())["rows"]
    assert "teacher" in {row["method"] for row in rows}


def test_what_is_refused_before_anything_runs(records, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = ["--data_dir", records, "--repo_id", "a/b", "--output_dir", tmp_path / "job"]
    for more, message in (
        (["study.yaml", "--card", "README.md", "--student", "evl_ecg_0"], "is not in the study, sft_0 are"),
        (
            ["study.yaml", "--card", "absent.md", "--student", "sft_0"],
            "absent.md: is neither here nor among the records",
        ),
        (["absent.yaml", "--card", "README.md", "--student", "sft_0"], "absent.yaml: is neither here nor"),
        (["study.yaml", "--card", "README.md", "--student", "sft_0", "--records", "a/c"], "one of them is allowed"),
    ):
        with pytest.raises(ValueError, match=message):
            run("job", *more, *given)
    assert not (tmp_path / "job").exists()
