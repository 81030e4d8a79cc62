"""How a model's ECGs were drawn is kept with it, taken from there, and not contradicted."""

import json

import pytest

from hf_evl_ecg.command_line.options import ImageOptions, PageOptions
from hf_evl_ecg.drawing.config import RenderConfig
from hf_evl_ecg.drawing.trained_pages import PAGES_FILE, PagesError, read_pages, stored_pages, write_pages

SMALL = RenderConfig(width_px=448, height_px=224, grid="thick", footer=False, palette="grey")


def test_pages_come_from_the_file_or_the_config_of_an_export(tmp_path):
    assert read_pages(tmp_path) is None
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "evl_ecg": {"images": SMALL.to_dict()}}))
    assert read_pages(tmp_path) == SMALL
    write_pages(tmp_path, RenderConfig(width_px=640))
    assert read_pages(tmp_path) == RenderConfig(width_px=640)
    assert stored_pages({}) is None
    assert stored_pages({"images": {"image_width": 640, "augment": 0.5}}) == RenderConfig(width_px=640)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no json"),
        ('["red"]', r"images=\['red'\]: a mapping is needed"),
        ('{"colour": "red"}', r"field='colour': allowed are"),
        ('{"width_px": -1}', "width_px=-1"),
    ],
)
def test_damaged_pages_are_named(tmp_path, text, message):
    (tmp_path / PAGES_FILE).write_text(text)
    with pytest.raises(PagesError, match=message) as caught:
        read_pages(tmp_path)
    assert PAGES_FILE in str(caught.value)


def test_pages_of_training_are_taken_and_others_refused(tmp_path, capsys):
    folder = str(tmp_path)
    assert PageOptions(image_width=640).config(folder).width_px == 640  # the model says nothing
    write_pages(folder, SMALL)
    assert PageOptions().config(folder) == SMALL
    assert PageOptions().renderer(folder).config == SMALL
    assert "drawn as in its training, 448 x 224 px" in capsys.readouterr().out
    same = PageOptions(448, 224, grid="thick", footer=False, paper="grey")
    assert same.renderer(folder).config == SMALL
    assert capsys.readouterr().out == ""
    other = ImageOptions(448, 224, grid="full", footer=False, paper="red", augment=0.5)
    with pytest.raises(
        PagesError, match="other pages than are asked for: grid full against thick, paper red against grey"
    ):
        other.training_renderer(folder)
    assert ImageOptions(augment=0.5).training_renderer(folder).config == SMALL


def test_results_say_how_the_pages_of_each_model_were_drawn(tmp_path):
    for name, config in (("a", SMALL), ("b", SMALL), ("c", RenderConfig(width_px=640))):
        (tmp_path / name).mkdir()
        write_pages(tmp_path / name, config)
    a, b, c = (str(tmp_path / name) for name in "abc")
    assert PageOptions().described([a, b]) == {"images": SMALL.to_dict()}
    assert set(PageOptions().described([a, c])["images_of"]) == {a, c}


@pytest.mark.parametrize(
    "content",
    [
        b"\xe5",
        b"[" * 3000,
        b"1" * 5000,
        b'"' + b"x" * 5000 + b'"',
        b'{"width_px": "' + b"x" * 5000 + b'"}',
        b'{"trace_mm": 1' + b"0" * 400 + b"}",
        b'{"layout": {"name": "x", "rows": [["I"]], "duration_s": 1e308}}',
    ],
)
def test_a_damaged_description_is_one_error_with_its_name(tmp_path, content):
    (tmp_path / PAGES_FILE).write_bytes(content)
    with pytest.raises(PagesError, match=rf"^{tmp_path / PAGES_FILE}") as caught:
        read_pages(tmp_path)
    assert len(str(caught.value)) < 1000
