"""A checkpoint that was trained on flat tiles is read as such wherever a model is loaded, or refused."""

import ast

import numpy as np
import pytest
import torch
from llava_source import Source, plain_tokenizer
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from hf_evl_ecg import ECGInterpreter, EVLECGConfig, RenderConfig
from hf_evl_ecg.app import page
from hf_evl_ecg.app.desk import Limits
from hf_evl_ecg.commands.cache import fingerprint
from hf_evl_ecg.commands.distil import DistillArguments, _load_teacher
from hf_evl_ecg.data.rendered import RenderedECG
from hf_evl_ecg.distillation.teacher import OnlineTeacher
from hf_evl_ecg.hub.export import export_student, load_student
from hf_evl_ecg.llava.convert import convert_llava
from hf_evl_ecg.models.flat_tiles import FlatLlavaNextForConditionalGeneration
from hf_evl_ecg.models.loading import ModelLoadError, load_model, load_processor, load_vlm
from hf_evl_ecg.models.native import UnsupportedModelError
from hf_evl_ecg.qa.prompts import pulse_prompt

SIZE = (40, 56)  # two by two tiles and the overview: 5 x 4 tokens; "spatial_unpad" has 4 + 3 rows of 4 and a newline
TILES = 5


@pytest.fixture(scope="module")
def flat(tiny_vlm, tmp_path_factory):
    """A source whose tiles are read one after the other, and its folder of the native class."""
    folder = tmp_path_factory.mktemp("flat")
    source = Source(folder, plain_tokenizer(tiny_vlm("llava_next")), merge="flat")
    return source, convert_llava(source.folder, folder / "native")


def distil(folder, tmp_path, monkeypatch):
    script = DistillArguments("unused", "unused", teacher=str(folder), method="evl_ecg")
    return _load_teacher(script, EVLECGConfig(str(tmp_path), report_to="none"), RenderedECG(RenderConfig()))


def interpreter(folder, tmp_path, monkeypatch):
    found = ECGInterpreter.from_pretrained(folder, device="cpu", render=RenderConfig())
    return found.model, found.processor


def app(folder, tmp_path, monkeypatch):
    """What the served page would ask."""
    shown = {}

    class Page:
        def queue(self, **options):
            return self

        def launch(self, **options):
            pass

    monkeypatch.setattr(page, "build_page", lambda interpreters, *others: shown.update(interpreters) or Page())
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    page.serve({"Model": str(folder)}, Limits(), device="cpu")
    return shown["Model"].model, shown["Model"].processor


def student(folder, tmp_path, monkeypatch):
    return load_student(folder), load_processor(folder)


def saved_again(folder, tmp_path, monkeypatch):
    """As a checkpoint of a training leaves it."""
    for part in load_model(str(folder)):
        part.save_pretrained(tmp_path / "again")
    return load_model(str(tmp_path / "again"))


def adapters(folder, tmp_path, monkeypatch):
    """Untrained adapters, which change nothing, with a processor beside them."""
    model, processor = load_model(str(folder))
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(tmp_path / "lora")
    processor.save_pretrained(tmp_path / "lora")
    assert type(load_student(tmp_path / "lora").get_base_model()) is FlatLlavaNextForConditionalGeneration
    return load_model(str(tmp_path / "lora"))


PLACES = {
    "evaluate, cache, answer, teach": lambda folder, *_: load_model(str(folder)),
    "in 4 bits or not": lambda folder, *_: load_vlm(folder, device="cpu"),
    "distil": distil,
    "interpreter": interpreter,
    "app": app,
    "export": student,
    "saved again": saved_again,
    "adapters": adapters,
}


@pytest.mark.parametrize("place", PLACES)
def test_every_place_reads_flat_tiles_as_the_source_does(flat, place, tmp_path, monkeypatch):
    source, folder = flat
    model, processor = PLACES[place](folder, tmp_path, monkeypatch)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8))
    inputs = processor(images=[image], text=[pulse_prompt("What is the rhythm?")], return_tensors="pt")
    ids = inputs["input_ids"][0]
    assert (ids == processor.image_token_id).sum() == TILES * 4
    expected = source.logits(ids, inputs["pixel_values"][0], SIZE, processor.image_token_id)
    with torch.no_grad():
        found = model.eval()(**inputs).logits[0, :, : expected.shape[1]]
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


def test_nothing_but_the_loader_names_auto_classes(repo_root):
    """They choose by the type of the configuration, which is the same for both packings."""
    # Publishing looks at names of weights only; planning makes models without weights, flat ones by their own class.
    allowed = {"models/loading.py", "hub/publish.py", "planning/networks.py"}
    package = repo_root / "hf_evl_ecg"
    found = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == "transformers"
        if {alias.name for alias in node.names} & {"AutoModelForImageTextToText", "AutoProcessor"}
    }
    assert found == allowed


def test_a_flat_model_that_was_loaded_otherwise_is_refused(flat):
    _, folder = flat
    model, processor = AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    for use in (lambda: ECGInterpreter(model, processor), lambda: OnlineTeacher(model)):
        with pytest.raises(
            UnsupportedModelError, match=r"mm_patch_merge_type=.flat.; load it .* hf_evl_ecg.models.load_model"
        ):
            use()


def test_both_packings_have_processors_of_their_own(flat):
    """A cache of one packing must not stand in for the other."""
    _, folder = flat
    draw = RenderedECG(RenderConfig())
    prints = [fingerprint(make(folder), draw, None, None) for make in (load_processor, AutoProcessor.from_pretrained)]
    assert prints[0] != prints[1]
    assert prints[0] == fingerprint(load_processor(folder), draw, None, None)


def test_a_flat_student_is_not_exported(flat, tmp_path):
    with pytest.raises(UnsupportedModelError, match="mm_patch_merge_type='flat': from_pretrained packs"):
        export_student(flat[1], tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_unknown_packings_are_refused(flat, tmp_path):
    config = flat[1] / "config.json"
    for file in flat[1].iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(config.read_text().replace('"flat"', '"spatial"'))
    for load in (lambda: load_model(str(tmp_path)), lambda: load_vlm(tmp_path, device="cpu")):
        with pytest.raises(ModelLoadError, match="mm_patch_merge_type='spatial': allowed are 'flat', 'spatial_unpad'"):
            load()
