"""The functions behind the page: uploads are paired, limited, kept apart and deleted; texts are escaped."""

import ast
import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import wfdb
from huggingface_hub import SpaceCard
from packaging.specifiers import SpecifierSet
from PIL import Image

from hf_evl_ecg.app import parts as html
from hf_evl_ecg.app import uploads
from hf_evl_ecg.chat.examples import UnreadableImageError
from hf_evl_ecg.commands.app import AppArguments
from hf_evl_ecg.interpret.doubts import answer_conflicts
from hf_evl_ecg.records.header import ECGRecordError
from hf_evl_ecg.signals.ecg import ECG, STANDARD_LEADS, crop
from hf_evl_ecg.signals.simulation import LABELS, simulate

FOLDER = Path(__file__).resolve().parents[3] / "examples" / "evl_ecg"
EVIL = "<script>alert(1)</script> {{value}} ${1+1}"


@pytest.fixture
def arrive(tmp_path):
    """Put files where uploads arrive, each in a folder of its own, as gradio does."""
    folder = tmp_path / "uploads"
    folder.mkdir()

    def put(**files: bytes) -> list[Path]:
        paths = []
        for number, (name, content) in enumerate(files.items()):
            path = folder / f"hash{number}" / name.replace("__", ".")
            path.parent.mkdir()
            path.write_bytes(content)
            paths.append(path)
        return paths

    put.folder = folder
    return put


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """Header and samples of a simulated record called r."""
    folder = tmp_path_factory.mktemp("record")
    signal = simulate("AF", seed=1, fs_hz=100.0).signal_mv.astype(np.float64)
    names = {"sig_name": list(STANDARD_LEADS), "units": ["mV"] * 12, "fmt": ["16"] * 12}
    wfdb.wrsamp("r", fs=100, p_signal=signal, write_dir=str(folder), **names)
    return SimpleNamespace(signal=signal, hea=(folder / "r.hea").read_bytes(), dat=(folder / "r.dat").read_bytes())


def left(folder: Path) -> list[Path]:
    return list(folder.rglob("*"))


# ---- pairing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "main"),
    [
        (["r.hea", "r.dat"], "r.hea"),
        (["r.mat", "r.hea"], "r.hea"),
        (["s0010_re.dat", "s0010_re.xyz", "s0010_re.hea"], "s0010_re.hea"),
        (["b.dat", "r.hea", "a.dat"], "r.hea"),
        (["scan.PNG"], "scan.PNG"),
    ],
)
def test_a_record_or_a_picture_is_found(names, main):
    assert uploads.main_file(names) == main


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ([], "got nothing"),
        (["r.hea"], r"r\.hea came without its signal file; give a WFDB record \(its \.hea and its \.dat or \.mat"),
        (["r.dat"], r"r\.dat came without a header"),
        (["r.hea", "r.dat", "q.hea"], "one ECG at a time"),
        (["a.png", "b.png"], "one ECG at a time"),
        (["a.png", "r.hea", "r.dat"], "one ECG at a time"),
        (["r.hea", "r.exe"], r"r\.exe cannot be read"),
        (["r.hea", "r.dat", "r.dat"], r"r\.dat was given twice"),
    ],
)
def test_other_files_are_refused_with_what_to_give(names, reason):
    with pytest.raises(uploads.UploadError, match=reason):
        uploads.main_file(names)


# ---- reading --------------------------------------------------------------------------------------------------------


def test_a_record_is_read_and_nothing_is_left(arrive, record):
    given = uploads.read_uploads(arrive(r__hea=record.hea, r__dat=record.dat), arrive.folder, 1)
    assert given.name == "r"
    assert not given.simulated
    np.testing.assert_allclose(given.source.signal_mv, record.signal, atol=2e-3)
    assert left(arrive.folder) == []


def test_a_wrong_gain_is_replaced(arrive, record):
    given = uploads.read_uploads(arrive(r__hea=record.hea, r__dat=record.dat), arrive.folder, 1, gain_per_mv=1000)
    stored = np.frombuffer(record.dat, "<i2").reshape(-1, 12)
    np.testing.assert_allclose(given.source.signal_mv, stored / 1000, atol=1e-5)
    with pytest.raises(uploads.UploadError, match="gain_per_mv=-1"):
        uploads.read_uploads(arrive(r__hea=record.hea, r__dat=record.dat), arrive.folder, 1, gain_per_mv=-1)
    assert left(arrive.folder) == []


def test_a_reader_is_told_what_is_odd(arrive, record):
    flat = record.hea.replace(b"V6", b"V9").replace(b"V5", b"V6").replace(b"V9", b"V5")
    assert uploads.read_uploads(arrive(r__hea=flat, r__dat=record.dat), arrive.folder, 1).notes == ()
    samples = np.frombuffer(record.dat, "<i2").reshape(-1, 12).copy()
    samples[:, 6] = 0
    given = uploads.read_uploads(arrive(r__hea=record.hea, r__dat=samples.tobytes()), arrive.folder, 1)
    assert any("V1" in note for note in given.notes)
    silent = record.hea.replace(b"/mV", b"/nV")
    given = uploads.read_uploads(arrive(r__hea=silent, r__dat=record.dat), arrive.folder, 1)
    assert given.notes
    assert not any(str(arrive.folder) in note for note in given.notes)


def test_a_picture_is_read_and_nothing_is_left(arrive, tmp_path):
    Image.new("RGB", (60, 40), (250, 200, 200)).save(tmp_path / "scan.png")
    given = uploads.read_uploads(arrive(scan__png=(tmp_path / "scan.png").read_bytes()), arrive.folder, 1)
    assert (given.name, given.source.size, given.source.getpixel((0, 0))) == ("scan.png", (60, 40), (250, 200, 200))
    assert left(arrive.folder) == []


def test_a_large_picture_is_reduced_before_it_is_kept(arrive, tmp_path):
    """6 KB of one-bit PNG with 7,000 × 7,100 pixels were kept as 149 MB, by each visitor for an hour."""
    Image.effect_noise((3600, 2500), 60).save(tmp_path / "scan.jpg", quality=30)
    given = uploads.read_uploads(arrive(scan__jpg=(tmp_path / "scan.jpg").read_bytes()), arrive.folder, 20)
    assert given.source.size == (2400, 1667)
    assert given.notes == ("Reduced from 3600 × 2500 to 2400 × 1667 pixels before it was shown and read.",)
    assert "Reduced from 3600" in html.ecg_figure(given)
    Image.new("1", (7000, 7100), 1).save(tmp_path / "bomb.png")
    content = (tmp_path / "bomb.png").read_bytes()
    assert len(content) < 20_000
    with pytest.raises(uploads.UploadError, match=r"7000 × 7100 pixels are stated in [\d,]+ bytes"):
        uploads.read_uploads(arrive(bomb__png=content), arrive.folder, 1)


@pytest.mark.parametrize(
    ("change", "cause", "reason"),
    [
        (lambda hea, dat: {"r__hea": hea, "r__dat": dat[:100]}, ECGRecordError, "r.dat has 100 bytes"),
        (lambda hea, dat: {"r__hea": b"\x00\x01", "r__dat": dat}, ECGRecordError, r"r\.hea: "),
        (lambda hea, dat: {"r__hea": hea.replace(b"r.dat", b"../x.dat"), "x__dat": dat}, ECGRecordError, "x.dat"),
        (lambda hea, dat: {"r__hea": hea.replace(b"r.dat", b"/etc/passwd"), "r__dat": dat}, ECGRecordError, "passwd"),
        (lambda hea, dat: {"scan__png": dat}, UnreadableImageError, "no image"),
    ],
)
def test_bad_files_give_the_typed_error_without_folders(arrive, record, change, cause, reason):
    with pytest.raises(uploads.UploadError, match=reason) as caught:
        uploads.read_uploads(arrive(**change(record.hea, record.dat)), arrive.folder, 1)
    assert isinstance(caught.value.__cause__, cause)
    assert str(arrive.folder) not in str(caught.value)
    assert left(arrive.folder) == []


@pytest.mark.parametrize(
    "names", [("q.hea", "q.dat"), ("r (1).hea", "r (1).dat"), ("R.HEA", "R.DAT"), ("r.hea", "x.DAT")]
)
def test_a_pair_under_other_names_fits_together(arrive, record, names):
    given = uploads.read_uploads(arrive(**dict(zip(names, (record.hea, record.dat), strict=True))), arrive.folder, 1)
    np.testing.assert_allclose(given.source.signal_mv, record.signal, atol=2e-3)
    assert given.notes == (f"{names[1]} was read as r.dat, which {names[0]} names.",)
    assert left(arrive.folder) == []


def test_two_files_under_other_names_are_told_apart_by_their_names(arrive, tmp_path):
    signal = simulate("AF", seed=1, fs_hz=100.0).signal_mv.astype(np.float64)
    lines = ["r 12 100 1000"]
    for name, leads in (("a", STANDARD_LEADS[:6]), ("b", STANDARD_LEADS[6:])):
        columns = [STANDARD_LEADS.index(lead) for lead in leads]
        wfdb.wrsamp(name, fs=100, units=["mV"] * 6, sig_name=list(leads), p_signal=signal[:, columns], fmt=["16"] * 6,
                    write_dir=str(tmp_path))  # fmt: skip
        lines += (tmp_path / f"{name}.hea").read_text().splitlines()[1:7]
    files = {"r.hea": "\n".join(lines).encode(), "B (3).DAT": (tmp_path / "b.dat").read_bytes()}
    given = uploads.read_uploads(arrive(**files, **{"z.dat": (tmp_path / "a.dat").read_bytes()}), arrive.folder, 1)
    np.testing.assert_allclose(given.source.signal_mv, signal, atol=2e-3)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["r.hea", "q.mat"], r"r\.hea names r\.dat, and q\.mat was given; give a WFDB record"),
        (["r.hea", "p.dat", "q.dat"], r"r\.hea names r\.dat, and p\.dat, q\.dat was given"),
    ],
)
def test_files_that_do_not_fit_are_named_with_what_is_wanted(arrive, record, names, reason):
    with pytest.raises(uploads.UploadError, match=reason):
        uploads.read_uploads(
            arrive(**dict(zip(names, (record.hea, record.dat, record.dat), strict=False))), arrive.folder, 1
        )
    assert left(arrive.folder) == []


def test_size_is_limited_over_all_files(arrive, record, monkeypatch, tmp_path):
    size = len(record.hea) + len(record.dat)
    limit = (size - 1) / 1e6
    with pytest.raises(uploads.UploadError, match=f"at most {limit:g} MB"):
        uploads.read_uploads(arrive(r__hea=record.hea, r__dat=record.dat), arrive.folder, limit)
    assert left(arrive.folder) == []
    uploads.read_uploads(arrive(r__hea=record.hea, r__dat=record.dat), arrive.folder, size / 1e6)
    monkeypatch.setattr(uploads, "MAX_PIXELS", 60 * 40 - 1)
    Image.new("L", (60, 40)).save(tmp_path / "large.png")
    with pytest.raises(uploads.UploadError, match="60 × 40 pixels"):
        uploads.read_uploads(arrive(large__png=(tmp_path / "large.png").read_bytes()), arrive.folder, 1)


def test_a_small_file_of_many_samples_is_refused_before_it_is_decoded(arrive, tmp_path, monkeypatch):
    """Silence in FLAC."""
    names = {"sig_name": list(STANDARD_LEADS), "units": ["mV"] * 12, "fmt": ["516"] * 12}
    flat = np.zeros((2000, 12))
    wfdb.wrsamp("f", fs=100, p_signal=flat, adc_gain=[200.0] * 12, baseline=[0] * 12, write_dir=str(tmp_path), **names)
    files = {f"{path.stem}__{path.suffix[1:]}": path.read_bytes() for path in tmp_path.glob("f*.*")}
    assert sum(map(len, files.values())) < 10_000
    monkeypatch.setattr(uploads, "MAX_SAMPLES", 23_999)
    with pytest.raises(uploads.UploadError, match=r"f\.hea has 24,000 samples; at most"):
        uploads.read_uploads(arrive(**files), arrive.folder, 1)
    assert left(arrive.folder) == []


def test_nothing_outside_the_upload_folder_is_read_or_deleted(arrive, record, tmp_path):
    secret = tmp_path / "secret.dat"
    secret.write_bytes(record.dat)
    inside = arrive(r__hea=record.hea)
    link = arrive.folder / "r.dat"
    link.symlink_to(secret)
    dotted = arrive.folder / ".." / "secret.dat"
    for path in (secret, link, dotted, arrive.folder / "absent.dat", arrive.folder):
        with pytest.raises(uploads.UploadError, match="not an uploaded file") as caught:
            uploads.read_uploads([*inside, path], arrive.folder, 1)
        assert str(tmp_path) not in str(caught.value)
    assert secret.read_bytes() == record.dat
    assert inside[0].exists()


@pytest.mark.real_data
def test_a_real_challenge_record_is_read(arrive, data_dir):
    header = next((data_dir / "ecg" / "cinc2021" / "training").rglob("*.hea"))
    header = next(path for path in sorted(header.parent.glob("*.hea")) if path.with_suffix(".mat").exists())
    pair = {f"{header.stem}__hea": header.read_bytes(), f"{header.stem}__mat": header.with_suffix(".mat").read_bytes()}
    given = uploads.read_uploads(arrive(**pair), arrive.folder, 20)
    assert isinstance(given.source, ECG)
    assert given.source.duration_s >= 5


# ---- simulated ------------------------------------------------------------------------------------------------------


def test_simulated_ecgs_say_so_and_what_they_are():
    for label in LABELS:
        given = uploads.simulated_ecg(label, 3)
        assert given.simulated
        assert given.source.metadata["simulated"] is True
        assert f"QRS {given.source.metadata['qrs_ms']:.0f} ms" in given.notes[0]
    assert "PR" not in uploads.simulated_ecg("AF", 0).notes[0]
    assert "simulated, not a patient" in html.ecg_figure(given)
    with pytest.raises(ValueError, match="seed=-1: must be at least 0"):
        uploads.simulated_ecg("AF", -1)


# ---- html -----------------------------------------------------------------------------------------------------------


def test_texts_from_outside_are_escaped_everywhere():
    given = uploads.GivenECG(EVIL, Image.new("RGB", (8, 8)), (EVIL,))
    words = {"record": EVIL, "question": EVIL, "answer": EVIL}
    pages = [html.message(EVIL, error=True), html.ecg_figure(given), html.scores_table({EVIL: {"AF": 0.5}})]
    pages += [html.answer_card(EVIL, EVIL, **words), html.answer_card(EVIL, EVIL, **words, seconds=1.0)]
    for page in pages:
        assert "&lt;script&gt;" in page
        assert not any(raw in page for raw in ("<script", "{{", "${"))


def test_the_figure_names_scale_and_length():
    long = simulate("NORM", seed=0, fs_hz=100.0, duration_s=30.0)
    page = html.ecg_figure(uploads.GivenECG("r", long))
    assert "30 s at 100 Hz" in page
    assert "25 mm/s, 10 mm/mV" in page
    assert "Shown are the first 10 of 30 s" in page
    assert "simulated, not a patient" not in page
    assert 'src="data:image/webp;base64,' in page
    picture = html.ecg_figure(uploads.GivenECG("scan.png", Image.new("RGB", (3000, 1500), "white")))
    assert "3000 × 1500 px" in picture
    assert 'width="2400" height="1200"' in picture
    short = html.ecg_figure(uploads.GivenECG("r", crop(long, 0.0, 5.0)))
    assert "ends after 5 s: nothing is shown of V1, V2, V3, V4, V5, V6" in short
    tall = html.ecg_figure(uploads.GivenECG("r", dataclasses.replace(long, signal_mv=long.signal_mv * 2)))
    assert "25 mm/s, 5 mm/mV" in tall
    assert "Drawn at 5 mm/mV, not at the usual 10" in tall


def test_scores_stand_side_by_side_in_the_first_models_order():
    table = html.scores_table({"Student": {"LBBB": 0.1, "AF": 0.912}, "Teacher": {"AF": 0.4, "NORM": 1.0}})
    rows = table.split("<tr>")[2:]
    assert [row.split("<th>")[1].split("<")[0] for row in rows] == [
        "atrial fibrillation",
        "left bundle branch block",
        "normal ECG",
    ]
    assert "91 %" in rows[0]
    assert "40 %" in rows[0]
    assert rows[1].endswith("<td></td></tr>") or "<td></td>" in rows[1]
    assert html.scores_table({}) == ""


# ---- the page's buttons ---------------------------------------------------------------------------------------------


class Answering:
    """Stands for an ECGInterpreter, whose own tests are elsewhere."""

    def __init__(self, pieces=("sinus ", "rhythm"), error=None):
        self.pieces, self.error, self.asked, self.ended = pieces, error, [], False

    def stream(self, ecg, question, *, max_new_tokens):
        self.asked.append((question, max_new_tokens))
        try:
            yield from self.pieces
            if self.error is not None:
                raise self.error
        finally:
            self.ended = True

    def __call__(self, ecg, question, *, max_new_tokens):
        image = Image.new("RGB", (30, 20))
        return SimpleNamespace(
            label_scores={"AF": 0.25}, image=image, unseen_leads=("V4", "V5"), measured=("accuracy 0.5",)
        )

    def doubts(self, question, answer, scores):
        return answer_conflicts(question, answer, scores)


@pytest.fixture
def desk(tmp_path):
    pytest.importorskip("gradio")
    from hf_evl_ecg.app.desk import Desk, Limits

    def make(**models):
        return Desk(models, {role: f"{role} model" for role in models}, str(tmp_path), Limits(max_new_tokens=7))

    return make


def asked(desk, question="?"):
    """What a desk says about a simulated ECG."""
    return desk.ask(desk.simulate("AF", 0)[1], question)


def test_an_answer_against_its_scores_is_flagged_on_its_card(desk):
    cards = [card for _, card, _ in asked(desk(Student=Answering(("atrial ", "fibrillation"))), question="What is it?")]
    assert any("Doubtful: the answer names atrial fibrillation, whose own score is 0.25" in str(card) for card in cards)
    assert any("Such answers on test records: accuracy 0.5" in str(card) for card in cards)
    cards = [card for _, card, _ in asked(desk(Student=Answering()), question="What is it?")]
    assert not any("Doubtful" in str(card) for card in cards)


def test_answers_grow_one_model_after_the_other(desk):
    student, teacher = Answering(), Answering(("no",))
    both = desk(Student=student, Teacher=teacher)
    steps = list(asked(both, question="  "))
    assert student.asked == teacher.asked == [("Write a report on this ECG.", 7)]
    texts = [step[1] for step in steps if isinstance(step[1], str)]
    assert "No answer yet" in texts[0]
    assert "sinus <span" in texts[2]
    assert "sinus rhythm</p>" in texts[-1]
    assert "The picture it read (30 × 20 px, not in full: V4, V5)" in texts[-1]
    assert not any("rhythm" in step[2] for step in steps if isinstance(step[2], str))
    tables = list(dict.fromkeys(step[3] for step in steps if step[3]))
    assert ["Teacher" in table for table in tables] == [False, True]
    assert "Answered about simulated-AF-0" in steps[-1][0]


def test_faults_become_messages_and_keep_what_is_shown(desk, tmp_path):
    failing = desk(Model=Answering(error=ValueError("no room for an answer")))
    assert "There is no ECG yet" in next(iter(failing.ask(None, "?")))[0]
    last = list(asked(failing))[-1]
    assert 'role="alert">no room for an answer' in last[0]
    full = desk(Model=Answering(error=RuntimeError("CUDA out of memory\nat some place")))
    last = list(asked(full))[-1]
    assert 'role="alert">The model failed: CUDA out of memory<' in last[0]
    path = tmp_path / "notes.txt"
    path.write_text("x")
    before = failing.simulate("AF", 0)
    last = list(failing.ask(before[1], "?"))[-1]
    files, given, figure, status, card, scores = failing.upload([str(path)], None, before[1])
    assert files is None
    assert "notes.txt: record is" in status
    assert (given, figure, card, scores) == (before[1], before[2], *last[1:])
    assert "simulated-AF-0" in figure
    assert "sinus rhythm" in card
    assert not path.exists()
    assert "seed=-2: must be at least 0" in failing.simulate("AF", -2)[3]


def test_the_servers_folders_are_in_no_message(desk, tmp_path, monkeypatch):
    from hf_evl_ecg.app import desk as desk_module

    def fail(*_, **__):
        raise PermissionError(13, "Permission denied", str(tmp_path / "deep" / "r.hea"))

    monkeypatch.setattr(desk_module, "read_uploads", fail)
    said = desk(Model=Answering()).upload(["r.hea"])[3]
    assert "The file could not be read (Permission denied: r.hea)" in said
    assert str(tmp_path) not in said


def test_nothing_is_skipped(desk, tmp_path):
    """For each output that a function skips, gradio makes a component that the session keeps: 0.65 MB a visit."""
    one = desk(Student=Answering(), Teacher=Answering(error=ValueError("no")))
    shown = [one.simulate("AF", 0), one.upload([]), one.simulate("AF", -1)]
    said = [*one.ask(shown[0][1], "?"), *one.ask(None, "?")]
    assert all(isinstance(value, str | None) for outputs in shown + said for value in outputs)
    assert {len(outputs) for outputs in shown} == {7}
    assert {len(outputs) for outputs in said} == {4}


def test_another_ecg_takes_the_place_of_the_one_before(desk):
    one = desk(Model=Answering())
    first = one.simulate("AF", 0)[1]
    size = one.held.total_bytes()
    second = one.simulate("NORM", 0, first)[1]
    assert one.held.get(first) is None
    assert one.held.get(second).given.name == "simulated-NORM-0"
    assert 0.8 < one.held.total_bytes() / size < 1.2, "one ECG is held"
    refused = one.simulate("NORM", -1, second)
    assert "seed=-1" in refused[3]
    assert one.held.get(second) is not None, "what is shown stays"


def test_an_answer_that_is_given_up_ends(desk):
    model = Answering()
    asking = asked(desk(Model=model))
    for _ in range(3):
        next(asking)
    assert not model.ended
    asking.close()
    assert model.ended


def test_an_answer_ends_before_another_ecg_is_shown(tmp_path):
    """Else its last words could arrive below an ECG that it is not about."""
    pytest.importorskip("gradio")
    from hf_evl_ecg.app.desk import Limits
    from hf_evl_ecg.app.page import build_page

    page = build_page({"Model": Answering()}, {"Model": "m"}, str(tmp_path), Limits())
    events = page.get_config_file()["dependencies"]
    asking = next(event for event in events if any(target[1] == "submit" for target in event["targets"]))
    shows = [event for event in events if event["backend_fn"] and set(asking["outputs"]) & set(event["outputs"])]
    starts = {event["id"]: event["targets"] for event in events}
    ends = {tuple(event["targets"][0]): event for event in events if event["cancels"] == [asking["id"]]}
    assert len(shows) == 4  # an answer, an upload, a simulated ECG, a stop
    for event in shows:
        if event is not asking:
            end = ends[tuple(starts[event["trigger_after"]][0])]
            assert not end["backend_fn"]
            assert end["id"] < event["id"]


def test_arguments_are_checked(monkeypatch):
    monkeypatch.delenv("EVL_ECG_MODEL", raising=False)
    with pytest.raises(ValueError, match="EVL_ECG_MODEL"):
        AppArguments(model="")
    assert AppArguments(model="m").host == "127.0.0.1"
    pytest.importorskip("gradio")
    from hf_evl_ecg.commands.app import main

    with pytest.raises(ValueError, match="max_upload_mb=0"):
        main(AppArguments(model="never/loaded", max_upload_mb=0))


# ---- files of a Space -----------------------------------------------------------------------------------------------


def lines(path: Path) -> set[str]:
    return {line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")}


def test_a_space_gets_the_requirements_of_the_package_and_the_tested_gradio():
    root = FOLDER.parents[1]
    lists = {
        node.targets[0].id: set(ast.literal_eval(node.value))
        for node in ast.parse((root / "setup.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.List)
        and not any(isinstance(item, ast.Starred) for item in node.value.elts)
    }
    assert (
        lines(FOLDER / "app_requirements.txt")
        == lists["COMMON"] | lists["ECG"] | lists["CLINICAL"] | lists["PUBLISHED_DATA"]
    )
    card = SpaceCard.load(FOLDER / "app_space.md").data
    assert (card.sdk, card.app_file) == ("gradio", "app.py")
    assert f"gradio=={card.sdk_version}" in lines(root / "constraints.txt")
    assert card.sdk_version in SpecifierSet(next(iter(lists["APP"])).removeprefix("gradio"))


def test_no_version_is_fixed_twice():
    names = [line.split("==")[0] for line in lines(FOLDER.parents[1] / "constraints.txt")]
    assert len(names) == len(set(names)) > 100
