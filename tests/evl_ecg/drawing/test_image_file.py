"""Pictures of files: what is opened, and what is not even tried."""

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
    with pytest.raises(UnidentifiedImageError):
        ImageFile(tmp_path)({"image": "x.png"})
    with pytest.raises(UnreadableImageError, match="no image"):
        load_picture(tmp_path / "x.png")
