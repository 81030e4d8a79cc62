"""What the tests of verbs and studies share: run a verb as its command line does, small models, distances between weights."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import torch
from safetensors.torch import load_file

STUDIES = Path(__file__).resolve().parent.parent / "studies" / "evl_ecg"
PAGE = ["--image_width", 448, "--image_height", 224, "--grid", "thick", "--footer", False]
TRAIN = ["--use_cpu", "--report_to", "none", "--disable_tqdm", "True", "--per_device_train_batch_size", 3]
TRAIN += ["--save_strategy", "no", "--logging_steps", 1, "--train_records", 4, "--lr_scheduler_type", "constant"]


def study_module(name: str) -> ModuleType:
    """A file of studies/evl_ecg as a module; those it imports lie beside it."""
    if str(STUDIES) not in sys.path:
        sys.path.append(str(STUDIES))
    return importlib.import_module(name)


def run(verb: str | ModuleType, *given: object):
    """Call a verb with the words of a command line, and return what its ``main`` returns."""
    module = importlib.import_module(f"hf_evl_ecg.commands.{verb}") if isinstance(verb, str) else verb
    returned = []
    work = module.main
    try:
        module.main = lambda *arguments: returned.append(work(*arguments))
        module.command([str(word) for word in given])
    finally:
        module.main = work
    return returned[0]


def make_work(folder: Path) -> Path:
    """Questions, a teacher that was trained for two steps, and a student with random weights."""
    classes = ["NORM", "LBBB"]
    asked = ["--formats", "closed", "fill", "--tasks", "diagnosis", "heart_rate", "--classes", *classes]
    simulated = ["--simulated_train", 2, "--simulated_validation", 1, "--simulated_test", 2]
    run("prepare", *simulated, "--simulated_classes", *classes, *asked, "--output_dir", folder / "questions")
    tiny = ["--vision_width", 16, "--vision_layers", 1, "--text_layers", 1, "--data", folder / "questions"]
    for kind, width in (("teacher", 24), ("student", 16)):
        given = ["--kind", kind, *tiny, "--text_width", width, "--output_dir", folder / f"{kind}_init"]
        run(study_module("small_models"), *given)
    given = ["--model", folder / "teacher_init", "--data", folder / "questions", *PAGE, *TRAIN]
    run("teach", *given, "--max_steps", 2, "--output_dir", folder / "teacher")
    return folder


def distil(work: Path, output: Path, *more: object):
    """Distil the student of `make_work`."""
    given = ["--student", work / "student_init", "--data", work / "questions", *PAGE, *TRAIN, "--output_dir", output]
    return run("distil", *given, *more)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "model.safetensors")


def distance(a: Path, b: Path) -> float:
    """Largest difference between the weights of two folders."""
    one, other = weights(a), weights(b)
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def reload_here(folder, inputs, *, question=None, device="cpu"):
    """What the new process does, in this one."""
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model, processor = AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    content = [{"type": "image"}, {"type": "text", "text": question}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    picture = Image.fromarray(inputs["image"].numpy())
    inputs = processor(text=[prompt], images=[[picture]], return_tensors="pt")
    with torch.no_grad():
        processed = {f"processed.{name}": tensor.clone() for name, tensor in inputs.items()}
        return {"logits": model(**inputs).logits.float(), "input_ids": inputs["input_ids"], **processed}
