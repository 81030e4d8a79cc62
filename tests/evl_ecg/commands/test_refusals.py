"""What goes wrong ends as one line and status 2: the Hub, files, settings, models that are not there."""

import sys
from pathlib import Path

import httpx
import pytest
from huggingface_hub.errors import OfflineModeIsEnabled
from transformers import BertConfig

from hf_evl_ecg.__main__ import main
from hf_evl_ecg.hub import push
from hf_evl_ecg.hub.reload_check import ReloadError

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from ecg_work import run

PICTURES = ["--image_width", "112", "--image_height", "56"]


@pytest.fixture
def refused(capsys):
    """Run the command, which must refuse in one line; the line."""

    def call(*given: object) -> str:
        assert main([str(word) for word in given]) == 2
        err = capsys.readouterr().err
        assert err.count("error: ") >= 1
        assert "Traceback" not in err
        return err[err.index("error: ") :].strip()  # bars of progress may stand before it

    return call


@pytest.fixture(scope="module")
def questions(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("questions") / "data"
    given = ["--formats", "closed", "--tasks", "rhythm", "--simulated_classes", "AF", "NORM"]
    run("prepare", "--simulated_train", 1, "--simulated_test", 1, *given, "--output_dir", folder)
    return folder


@pytest.fixture
def card(tmp_path) -> Path:
    path = tmp_path / "card.md"
    path.write_text("---\nlicense: cc0-1.0\n---\n# Simulated ECGs\n")
    return path


@pytest.mark.parametrize(
    "failure",
    [OfflineModeIsEnabled("HF_HUB_OFFLINE=1"), httpx.ConnectError("no route to the Hub"), PermissionError("log in")],
)
def test_a_push_that_the_hub_or_the_network_refuses(failure, refused, questions, card, monkeypatch):
    def fail(*_, **__):
        raise failure

    monkeypatch.setattr(push.HfApi, "repo_exists", fail)
    text = refused("publish", "--data", questions, "--repo_id", "ann/drawn", "--card", card, *PICTURES)
    assert "None of the files was sent." in text
    assert str(failure) in text
    assert len(text.splitlines()) == 1


def test_what_the_hub_says_outside_of_a_push(refused, questions, card, monkeypatch, capsys):
    given = ("publish", "--data", questions, "--card", card, *PICTURES)
    assert "namespace/name" in refused(*given, "--repo_id", "drawn")
    assert "ann/dra wn" in refused(*given, "--repo_id", "ann/dra wn")
    publish = sys.modules["hf_evl_ecg.commands.publish"]

    def fail(error):
        def raising(*_):
            raise error

        return raising

    monkeypatch.setattr(publish, "main", fail(httpx.ReadTimeout("")))
    assert refused(*given, "--repo_id", "ann/drawn") == "error: ReadTimeout"
    monkeypatch.setattr(publish, "main", fail(RuntimeError("a fault of the program")))
    with pytest.raises(RuntimeError, match="a fault"):
        main([str(word) for word in (*given, "--repo_id", "ann/drawn")])


def test_a_student_that_does_not_load_in_a_new_process(refused, tiny_vlm, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ReloadError("outputs/student does not load in a new process")

    monkeypatch.setattr("hf_evl_ecg.hub.export.reload_logits", fail)
    # raised outside of the package here, so that only errors of the package itself become one line
    with pytest.raises(ReloadError):
        main(["export", "--model", str(tiny_vlm("idefics3").path), "--output_dir", str(tmp_path / "export")])
    monkeypatch.undo()
    monkeypatch.setattr("hf_evl_ecg.hub.reload_check._SCRIPT", "raise SystemExit('weights are missing')")
    text = refused("export", "--model", tiny_vlm("idefics3").path, "--output_dir", tmp_path / "export")
    assert "does not load in a new process" in text
    assert "weights are missing" in text


@pytest.mark.parametrize("verb", ["prepare", "card", "study", "teach"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [1", "cannot be read as YAML"),
        (b"\xff\xfe", "cannot be read as YAML"),
        ("only a sentence", "expected lines of NAME: VALUE, got str"),
    ],
)
def test_a_file_that_holds_no_settings(verb, content, message, refused, tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    text = refused(verb, path)
    assert f"{path}: {message}" in text
    assert len(text.splitlines()) == 1
    assert "No such file" in refused(verb, tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("modl: x", "unknown sections ['modl']"),
        ("study: mine", "missing sections ['methods', 'questions', 'student', 'teacher']"),
        ("{study: [1], questions: {}, teacher: t, student: {}, methods: {}}", "section study=[1]: expected a name"),
        ("{study: s, questions: 3, teacher: t, student: {}, methods: {}}", "section questions=3: expected lines"),
        ("{study: s, questions: {}, teacher: 1, student: {}, methods: {}}", "section teacher=1: expected options of"),
    ],
)
@pytest.mark.parametrize("smoke", [[], ["--smoke"]])
def test_a_study_of_wrong_sections(content, message, smoke, refused, tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(content)
    assert message in refused("study", path, *smoke)


def test_a_model_that_is_not_there_is_called_missing(refused, questions, tmp_path):
    out, gone = ("--output_dir", tmp_path / "out"), tmp_path / "gone"
    assert f"{gone} is no folder" in refused("teach", "--model", gone, "--data", questions, "--use_cpu", *out)
    assert f"{gone} is no folder" in refused(
        "distil", "--student", gone, "--sft_only", "--data", questions, "--use_cpu", *out
    )
    assert f"{gone} is no folder" in refused("cache", "--teacher", gone, "--data", questions, *out)
    assert f"{gone} is no folder" in refused("evaluate", "--models", f"a={gone}", "--data", questions, *out)
    assert f"{gone} is no folder" in refused("export", "--model", gone, *out)
    assert f"{gone} is no folder" in refused("convert", gone, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_without_images_is_named_so(refused, questions, tmp_path):
    BertConfig().save_pretrained(tmp_path / "bert")
    out = ("--output_dir", tmp_path / "out")
    for given in (("teach", "--data", questions, "--use_cpu"), ("export",)):
        text = refused(*given, "--model", tmp_path / "bert", *out)
        assert "takes no images" in text
        assert len(text) < 400


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["cache", "--tokens", "alll"], "tokens='alll': allowed are"),
        (["cache", "--visual_weights", "edges"], "visual_weights='edges': allowed are"),
        (["cache", "--dtype", "bfloat"], "dtype='bfloat': choose one of 'bfloat16'"),
        (["cache", "--top_k", "-1"], "top_k=-1: must be"),
        (["cache", "--shard_size", "0"], "shard_size=0: must be at least 1"),
        (["cache", "--batch_size", "0"], "batch_size=0: must be at least 1"),
        (["cache", "--grid", "thik"], "grid='thik'"),
        (["cache", "--augment", "0.5", "--image_seed", "-1"], "cannot be cached"),
        (["cache", "--split", "holdout"], "split='holdout'"),
        (["evaluate", "--grid", "thik"], "grid='thik'"),
    ],
)
def test_what_takes_no_time_is_checked_before_a_model_is_loaded(given, message, refused, questions, monkeypatch):
    def load(*_):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("hf_evl_ecg.models.loading.load_model", load)
    model = ["--teacher", "t"] if given[0] == "cache" else ["--models", "a=t"]
    assert message in refused(*given, *model, "--data", questions, "--output_dir", questions.parent / "out")


def test_wrong_precisions_and_devices(refused, questions, tiny_vlm, tmp_path):
    model = tiny_vlm("idefics3").path
    out = ("--data", questions, "--output_dir", tmp_path / "out")
    message = "dtype='bfloat': choose 'auto', 'float32', 'bfloat16', 'float16'"
    assert message in refused("evaluate", "--models", f"a={model}", "--dtype", "bfloat", *out)
    assert message in refused("cache", "--teacher", model, "--teacher_dtype", "bfloat", *out)
    assert "device='cdua' cannot be used" in refused("evaluate", "--models", f"a={model}", "--device", "cdua", *out)
