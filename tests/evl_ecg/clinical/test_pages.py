"""One page of a PDF, a photograph of a phone: as pictures, within limits."""

import sys

import numpy as np
import pytest
from PIL import Image

from hf_evl_ecg.clinical import pages
from hf_evl_ecg.clinical.content import recognise
from hf_evl_ecg.clinical.pages import open_page
from hf_evl_ecg.records.header import ECGRecordError
from hf_evl_ecg.records.reader import read_record

A4_LANDSCAPE_PX = (2339, 1654)


def drawing(colour="red"):
    image = Image.new("RGB", A4_LANDSCAPE_PX, "white")
    image.paste(colour, (0, 0, 1000, 800))
    return image


@pytest.fixture
def pdf(tmp_path):
    pytest.importorskip("pypdfium2", reason="needs the extra clinical (pypdfium2)")

    def write(*colours, resolution=200):
        first, *rest = map(drawing, colours)
        first.save(tmp_path / "a", "PDF", resolution=resolution, save_all=True, append_images=rest)
        return tmp_path / "a"

    return write


@pytest.fixture
def heic(tmp_path):
    heif = pytest.importorskip("pillow_heif", reason="needs the extra clinical (pillow-heif)")

    def write(image, **options):
        heif.from_pillow(image).save(tmp_path / "b", quality=95, **options)
        return tmp_path / "b"

    return write


def colour(image, x, y):
    return tuple(int(v) // 64 for v in image.getpixel((x, y)))


def test_the_only_page_is_read_at_200_dots_per_inch(pdf):
    path = pdf("red")
    assert recognise(path) == "PDF"
    image = open_page(path, "PDF")
    assert image.mode == "RGB"
    assert np.abs(np.subtract(image.size, A4_LANDSCAPE_PX)).max() <= 1
    assert colour(image, 500, 400) == (3, 0, 0)
    assert colour(image, 2000, 1500) == (3, 3, 3)


def test_a_page_of_several_is_chosen(pdf):
    path = pdf("red", "blue")
    assert colour(open_page(path, "PDF", page=2), 500, 400) == (0, 0, 3)
    for page, found in ((None, "one of 2, not chosen"), (3, 3), (0, 0)):
        with pytest.raises(ECGRecordError) as caught:
            open_page(path, "PDF", page=page)
        assert (caught.value.field, caught.value.value) == ("page", found)
        assert caught.value.allowed == "1 to 2: the page with the ECG (--page N, page=N)"


def test_a_photograph_is_read_upright(heic):
    path = heic(drawing())
    assert recognise(path) == "HEIC"
    image = open_page(path, "HEIC")
    assert (image.mode, image.size) == ("RGB", A4_LANDSCAPE_PX)
    assert colour(image, 500, 400) == (3, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter when it is shown
    turned = open_page(heic(drawing(), exif=exif.tobytes()), "HEIC")
    from hf_evl_ecg.drawing.image_file import upright_rgb

    assert upright_rgb(turned).size == turned.size == A4_LANDSCAPE_PX[::-1]
    assert np.asarray(turned).mean() == pytest.approx(np.asarray(drawing()).mean(), rel=0.01)


def test_limits_of_pages(pdf, heic, monkeypatch):
    given = (("PDF", pdf("red")), ("HEIC", heic(drawing())))
    monkeypatch.setattr(pages, "MAX_PIXELS", 1_000_000)
    for kind, path in given:
        with pytest.raises(ECGRecordError, match=r"picture is '2339 x 165\d pixels'"):
            open_page(path, kind)
    monkeypatch.setattr(pages, "MAX_BYTES", 100)
    for kind, path in given:
        with pytest.raises(ECGRecordError, match="file size"):
            open_page(path, kind)


@pytest.mark.parametrize("kind", ["PDF", "HEIC"])
def test_damaged_pages_are_refused(kind, pdf, heic):
    path = pdf("red") if kind == "PDF" else heic(drawing())
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ECGRecordError, match=f"{kind} content is 'damaged"):
        open_page(path, kind)


@pytest.mark.parametrize(("kind", "missing"), [("PDF", "pypdfium2"), ("HEIC", "pillow_heif")])
def test_without_the_extra_the_message_says_what_to_install(kind, missing, pdf, heic, monkeypatch):
    path = pdf("red") if kind == "PDF" else heic(drawing())
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ECGRecordError, match=rf"{missing} is not installed .*hf-mic-evl-ecg\[clinical\]"):
        open_page(path, kind)


def test_a_page_is_no_recording(pdf):
    with pytest.raises(ECGRecordError, match="format is 'PDF'; allowed: a recording; pages are pictures"):
        read_record(pdf("red"))
