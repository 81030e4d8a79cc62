"""Fixtures of tests and of docstring examples.

An example may use `encoder`, `student`, `processor`, `teacher` and `teacher_processor` without making them, and open the folder
`ecg-student` and the folder `records` with the record `af`: what it names is there, tiny. It runs in an empty folder of its own.
"""

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "tests"))


@pytest.fixture(scope="session")
def tiny_vlm(tmp_path_factory):
    """Function name → TinyVLM, built once per session; names are the keys of `tiny_vlms.BUILDERS`."""
    from tiny_vlms import vlm_maker

    return vlm_maker(tmp_path_factory.mktemp)


@pytest.fixture(scope="session")
def tiny_bert_path(tmp_path_factory) -> str:
    """A BERT of 4 layers and width 32 on disk, without dropout."""
    from tiny_encoders import save_tiny_bert

    return save_tiny_bert(tmp_path_factory.mktemp("tiny_bert"))


@pytest.fixture(scope="session")
def save_record():
    """Function (folder, name, ecg, comments) → path of a WFDB record of 16-bit samples."""
    import numpy as np
    import wfdb

    def save(folder, name, ecg, comments=()):
        folder.mkdir(exist_ok=True)
        layout = {"fs": ecg.fs_hz, "units": ["mV"] * 12, "sig_name": list(ecg.leads), "fmt": ["16"] * 12}
        samples = ecg.signal_mv.astype(np.float64)
        wfdb.wrsamp(name, p_signal=samples, write_dir=str(folder), comments=list(comments), **layout)
        return folder / name

    return save


def encoder(request):
    """A sentence encoder of width 32 with 4 layers."""
    from tiny_encoders import build_encoder

    return build_encoder(request.getfixturevalue("tiny_bert_path"))


NAMES = {
    "encoder": encoder,
    "student": lambda request: request.getfixturevalue("tiny_vlm")("idefics3").load(),
    "processor": lambda request: request.getfixturevalue("tiny_vlm")("idefics3").processor,
    "teacher": lambda request: request.getfixturevalue("tiny_vlm")("llava_next").load(),
    "teacher_processor": lambda request: request.getfixturevalue("tiny_vlm")("llava_next").processor,
}


def link_student(request):
    """The student's folder."""
    Path("ecg-student").symlink_to(request.getfixturevalue("tiny_vlm")("idefics3").path, target_is_directory=True)


def write_record(request):
    """A simulated WFDB record of 10 s."""
    from hf_evl_ecg.signals.simulation import simulate

    comments = ["<age>: 51", "<sex>: F", "<diagnoses>", "Rhythm: Atrial fibrillation."]
    request.getfixturevalue("save_record")(Path("records"), "af", simulate("AF", seed=0), comments)


FILES = {'"ecg-student"': link_student, '"records': write_record}


@pytest.fixture(autouse=True)
def example_surroundings(request):
    """Give a docstring example the names and files that it mentions."""
    if not isinstance(request.node, pytest.DoctestItem):
        return
    request.getfixturevalue("monkeypatch").chdir(request.getfixturevalue("tmp_path"))
    source = "".join(example.source for example in request.node.dtest.examples)
    for name in NAMES.keys() & set(re.findall(r"\w+", source)):
        request.node.dtest.globs.setdefault(name, NAMES[name](request))
    for file in FILES:
        if file in source:
            FILES[file](request)
