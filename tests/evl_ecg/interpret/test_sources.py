"""What the interpreter, its command and the app take beside WFDB and pictures: clinical files, pages, archives."""

import json
import zipfile

import clinical_files as files
import numpy as np
import pytest
from PIL import Image
from written_records import write

from hf_evl_ecg.__main__ import main
from hf_evl_ecg.app import uploads
from hf_evl_ecg.chat.examples import UnreadableImageError
from hf_evl_ecg.interpret.pictures import load_picture, read_source
from hf_evl_ecg.records.header import ECGRecordError
from hf_evl_ecg.signals.ecg import ECG, STANDARD_LEADS


def page(path, *colours):
    pytest.importorskip("pypdfium2", reason="needs the extra clinical (pypdfium2)")
    first, *rest = (Image.new("RGB", (300, 200), colour) for colour in colours)
    first.save(path, "PDF", resolution=200, save_all=True, append_images=rest)
    return path


def photograph(path):
    heif = pytest.importorskip("pillow_heif", reason="needs the extra clinical (pillow-heif)")
    heif.from_pillow(Image.new("RGB", (300, 200), "red")).save(path)
    return path


def pack(path, *members):
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            archive.write(member, member.name)
    return path


def test_pages_and_photographs_are_pictures(tmp_path):
    for path in (page(tmp_path / "a", "red"), photograph(tmp_path / "b")):
        image = read_source(path)
        assert image.mode == "RGB"
        assert image.getpixel((100, 100))[0] > 240 > 20 > image.getpixel((100, 100))[1]
        found = load_picture(path)
        assert (found.name, found.ecg) == (str(path), None)
    two = page(tmp_path / "c.pdf", "red", "blue")
    assert read_source(two, page=2).getpixel((100, 100))[2] > 240
    with pytest.raises(ECGRecordError, match="one of 2, not chosen"):
        load_picture(two)


def test_a_picture_without_a_suffix_is_a_picture(tmp_path):
    Image.new("RGB", (300, 200), "red").save(tmp_path / "scan", "PNG")
    assert read_source(tmp_path / "scan").size == (300, 200)
    assert read_source(pack(tmp_path / "a.zip", tmp_path / "scan")).size == (300, 200)


def test_samples_that_look_like_a_picture_are_samples(tmp_path):
    """A signal file may begin with any bytes, those of a bitmap too."""
    record = write(tmp_path)
    data = record.with_suffix(".dat")
    data.write_bytes(b"BM" + data.read_bytes()[2:])
    edited = record.with_suffix(".hea")
    edited.write_text(
        "\n".join(" ".join([*line.split()[:6], "0", *line.split()[7:]]) for line in edited.read_text().splitlines())
    )
    with pytest.warns():
        assert isinstance(read_source(data), ECG)


def test_options_are_for_what_they_fit(tmp_path):
    Image.new("RGB", (300, 200), "red").save(tmp_path / "a.png")
    record = write(tmp_path)
    with pytest.raises(ValueError, match=r"is a picture \(gain_per_mv and missing are for records\)"):
        read_source(tmp_path / "a.png", gain_per_mv=200)
    for path in (tmp_path / "a.png", record):
        with pytest.raises(ValueError, match="is no PDF"):
            read_source(path, page=2)


def test_small_pages_are_refused_by_their_own_name(tmp_path):
    Image.new("RGB", (10, 10)).save(tmp_path / "a.png")
    with pytest.raises(UnreadableImageError, match=r"a\.zip"):
        read_source(pack(tmp_path / "a.zip", tmp_path / "a.png"))


@files.NEEDS
def test_the_interpreter_takes_a_clinical_file(interpreter, tmp_path):
    found = interpreter(files.write_dicom(tmp_path / "scan"), "What is the rhythm?", labels=["AF"], max_new_tokens=1)
    assert found.image.size == (interpreter.render.width_px, interpreter.render.height_px)
    assert 0 < found.label_scores["AF"] < 1


@files.NEEDS
def test_the_command_names_no_patient(ecg_student, tmp_path, capsys):
    for kind, path in (("GE MUSE XML", files.write_muse(tmp_path / "scan")), ("zip", None)):
        path = path or pack(tmp_path / "a.zip", tmp_path / "scan")
        words = [
            "--labels",
            "AF",
            "--max_new_tokens",
            "1",
            "--device",
            "cpu",
            "--json",
            tmp_path / "a.json",
            "--html",
            tmp_path / "a.html",
        ]
        assert main(["interpret", str(path), "--model", str(ecg_student), *map(str, words)]) == 0, kind
        made = capsys.readouterr().out + (tmp_path / "a.json").read_text() + (tmp_path / "a.html").read_text()
        # Of a page, whose numbers may be any, what no coordinate is.
        assert [
            word for word in (files.NAME, files.NAME.upper(), files.GIVEN, files.NUMBER, files.BORN) if word in made
        ] == []
        assert json.loads((tmp_path / "a.json").read_text())


# ---- the app --------------------------------------------------------------------------------------------------------


@pytest.fixture
def upload(tmp_path):
    folder = tmp_path / "uploads"

    def give(*paths, **options):
        folder.mkdir(exist_ok=True)
        given = []
        for number, path in enumerate(paths):
            (folder / str(number)).mkdir()
            given.append(folder / str(number) / path.name)
            given[-1].write_bytes(path.read_bytes())
        try:
            return uploads.read_uploads(given, folder, 20, **options)
        finally:
            assert list(folder.rglob("*")) == []

    return give


@files.NEEDS
@pytest.mark.parametrize("kind", files.WRITERS)
def test_the_app_takes_clinical_files(kind, tmp_path, upload):
    given = upload(files.WRITERS[kind](tmp_path / "scan"))
    assert given.source.leads == STANDARD_LEADS
    shown = f"{given} {given.notes} {dict(given.source.metadata)}"
    assert [word for word in files.IDENTITY if word in shown] == []
    assert ("calibration pulse" in shown) == (kind == "Philips Sierra XML")


@files.NEEDS
def test_the_app_takes_archives_pages_and_described_numbers(tmp_path, upload):
    record = write(tmp_path)
    archive = pack(tmp_path / "a.zip", record.with_suffix(".hea"), record.with_suffix(".dat"))
    assert isinstance(upload(archive).source, ECG)
    assert upload(pack(tmp_path / "b.zip", files.write_muse(tmp_path / "scan"))).source.fs_hz == 500
    for path in (page(tmp_path / "p", "red"), photograph(tmp_path / "h")):
        assert upload(path).source.mode == "RGB"
    np.save(tmp_path / "n.npy", files.counts() + 1)
    (tmp_path / "n.npy.json").write_text('{"fs_hz": 500, "unit": "uV"}')
    assert upload(tmp_path / "n.npy", tmp_path / "n.npy.json").source.fs_hz == 500


def test_the_app_refuses_the_rest_and_says_what_is_read(tmp_path, upload):
    (tmp_path / "r.exe").write_bytes(b"MZ" + bytes(100))
    with pytest.raises(uploads.UploadError, match=r"r\.exe: record is .*DICOM, HL7 aECG, GE MUSE"):
        upload(tmp_path / "r.exe")
    np.save(tmp_path / "n.npy", files.counts() + 1)
    with pytest.raises(uploads.UploadError, match=r"n\.npy: description of the NumPy file is 'missing'"):
        upload(tmp_path / "n.npy")
    record = write(tmp_path)
    broken = pack(tmp_path / "a.zip", record.with_suffix(".hea"))
    with pytest.raises(uploads.UploadError, match=r"^a\.zip:r\."):
        upload(broken)
