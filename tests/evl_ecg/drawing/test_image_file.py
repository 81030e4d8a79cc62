"""Pictures of files: what is opened, and what is not even tried."""

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError, features

from hf_evl_ecg.chat.examples import UnreadableImageError
from hf_evl_ecg.drawing.image_file import FORMATS, ImageFile, open_picture
from hf_evl_ecg.interpret.pictures import load_picture

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("name", FORMATS)
def test_formats_of_pages_are_opened(tmp_path, name):
    if name == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow before 11.3 reads no AVIF")
    Image.new("RGB", (40, 36), "red").save(tmp_path / "page", format=name)
    with open_picture(tmp_path / "page") as picture:
        assert (picture.format, picture.size) == ("JPEG" if name == "MPO" else name, (40, 36))


def test_postscript_is_not_opened_whatever_it_is_called(tmp_path):
    """Pillow would start Ghostscript with it."""
    (tmp_path / "x.png").write_bytes(POSTSCRIPT)
    with Image.open(tmp_path / "x.png") as opened:
        assert opened.format == "EPS"
    with pytest.raises(UnidentifiedImageError):
        open_picture(tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"x\.png: is no whole picture \(cannot identify image file"):
        ImageFile(tmp_path)({"image": "x.png"})
    with pytest.raises(UnreadableImageError, match="no image"):
        load_picture(tmp_path / "x.png")


@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        ("PNG", lambda data: data[:60] + b"\xff" + data[61:]),  # "broken data stream", which names no file
        ("JPEG", lambda data: data[: len(data) // 2]),
        ("GIF", lambda data: data[:6] + b"\xff\xff\xff\xff" + data[10:]),  # 65,535 x 65,535 pixels: no OSError
        ("PPM", lambda data: data.replace(b"40 36", b"i5 36", 1)),  # "invalid literal for int()"
        ("WEBP", lambda data: data[:20] + b"\0" * 12 + data[32:]),
    ],
)
def test_damaged_pictures_are_one_error_with_their_name(tmp_path, kind, damage):
    noise = Image.effect_noise((40, 36), 90).convert("L" if kind == "GIF" else "RGB")
    noise.save(tmp_path / "page", format=kind)
    (tmp_path / "page").write_bytes(damage((tmp_path / "page").read_bytes()))
    with pytest.raises(ValueError, match=rf"{tmp_path}/page: is no whole picture \(.*allowed are PNG, JPEG") as caught:
        ImageFile(tmp_path)({"image": "page"})
    assert type(caught.value) is ValueError


def test_a_picture_that_is_not_there_keeps_its_own_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        ImageFile(tmp_path)({"image": "absent.png"})


def test_room_is_not_taken_for_pixels_that_no_file_of_that_size_has(tmp_path):
    """A size in the header of a WebP of 2 kB made Pillow take 680 MB before it found that there is no such picture."""
    path = tmp_path / "page.webp"
    Image.effect_noise((64, 48), 90).convert("RGB").save(path)
    data = path.read_bytes()
    path.write_bytes(data[:26] + (11840).to_bytes(2, "little") + (9245).to_bytes(2, "little") + data[30:])
    with pytest.raises(ValueError, match=r"11840 × 9245 pixels are stated in \d+ bytes: it is damaged"):
        ImageFile(tmp_path)({"image": "page.webp"})
    with pytest.raises(UnreadableImageError, match="11840 × 9245 pixels"):
        load_picture(path)


@pytest.mark.parametrize(
    ("kind", "options"), [("TIFF", {"compression": "group4"}), ("PNG", {}), ("WEBP", {"lossless": True})]
)
def test_large_pages_of_few_bytes_are_opened(tmp_path, kind, options):
    """A page of A4 at 600 dpi with lines 1 mm apart and twelve noisy traces, in black and white."""
    page = np.full((7016, 4960), 255, np.uint8)
    page[::24], page[:, ::24] = 0, 0
    heights = np.random.default_rng(0).integers(-40, 40, (12, 4960)) + 500 * np.arange(1, 13)[:, None]
    page[heights, np.arange(4960)] = 0
    Image.fromarray(page).convert("1").convert("1" if kind == "TIFF" else "L").save(
        tmp_path / "page", format=kind, **options
    )
    with open_picture(tmp_path / "page") as picture:
        assert picture.size == (4960, 7016)
