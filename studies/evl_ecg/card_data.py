r"""What the model card of a study says beside scores: architecture and token counts, reliability, failure cases, seconds.

After a study has written its results:

    python studies/evl_ecg/card_data.py --study_dir outputs/ecg_small --method evl_ecg --seed 0 \
        --output model_cards/results/ecg_small_card.json --pictures model_cards
    hf-evl-ecg card model_cards/ecg_small.yaml

Reads the questions, the answers (answers_*.jsonl), the models and the seconds of the stages in the study's folder; no model is run.
Writes one json, and a small picture of each failure case as the model saw it. Takes seconds, on a CPU.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from card_facts import describe_model, failure_cases, read_answers, reliability_tables

from hf_evl_ecg.command_line.options import ImageOptions
from hf_evl_ecg.command_line.parser import parse_arguments
from hf_evl_ecg.data.stored import load_questions
from hf_evl_ecg.files import new_file, write_text
from hf_evl_ecg.results import current_commit


@dataclass
class CardDataArguments:
    """Which model of which study."""

    study_dir: str = field(metadata={"help": "Output folder of a study, with its results json."})
    output: str = field(metadata={"help": "The json to write."})
    method: str = field(default="evl_ecg", metadata={"help": "Method of the model that the card is about."})
    seed: int = field(default=0, metadata={"help": "Its seed."})
    pictures: str | None = field(
        default=None, metadata={"help": "Folder of the card, for pictures of failure cases; none are drawn without it."}
    )
    failures: int = field(
        default=6, metadata={"help": "At most this many failure cases about real records, and about simulated ones."}
    )
    draw_real: bool = field(
        default=True,
        metadata={
            "help": "Draw failures about real records too, as their licences must allow; else simulated ones only."
        },
    )


def command(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run the command line."""
    main(*parse_arguments(arguments, CardDataArguments, description=__doc__, prog=prog))


def main(args: CardDataArguments) -> dict[str, Any]:
    """Collect, draw, write.

    Returns:
        What was written.

    Raises:
        ValueError: The folder holds no finished study, or not this model.
    """
    study = Path(args.study_dir)
    results = read_study(study)
    config, run = results["config"], f"{args.method}_{args.seed}"
    if not (study / run / "config.json").is_file():
        raise ValueError(f"{study} has no model {run}; methods are {list(config['methods'])}.")
    images = ImageOptions(**config.get("images", {}))
    options = config.get("evaluate", {})
    split = options.get("split", "test")
    items = list(load_questions(str(study / "questions"), split, options.get("records")))
    pairs = {
        name: read_answers(study / f"answers_{folder}_{split}.jsonl", items)
        for name, folder in ((args.method, run), ("teacher", "teacher"))
    }
    teacher = (config.get("ready") or {}).get("teacher") or study / "teacher"
    page = {"image_width": images.image_width, "image_height": images.image_height}
    failures = []
    for simulated in (False, True):
        own = [pair for pair in pairs[args.method] if (pair[0]["source"] == "simulated") == simulated]
        for case in failure_cases(own, limit=args.failures):
            failures.append(case)
            item = own[case.pop("index")][0]
            if args.pictures is not None and (simulated or args.draw_real):
                name = f"{config['study']}_failure_{len(failures)}.png"
                case["image"] = draw_case(item, images, Path(args.pictures), name)
    facts = {
        "study": config["study"],
        "method": args.method,
        "seed": args.seed,
        "commit": current_commit(),
        "models": {
            "student": describe_model(study / run, **page),
            "teacher": describe_model(teacher, **page),
        },
        "stages": [
            {"stage": path.parent.name, **json.loads(path.read_text(encoding="utf-8"))}
            for path in sorted(study.glob("*/done.json"), key=lambda path: (path.stat().st_mtime, path.parent.name))
        ],
        "reliability": {name: reliability_tables(own) for name, own in pairs.items()},
        "failures": failures,
    }
    write_text(args.output, json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    print(f"Written: {args.output}, {sum('image' in case for case in failures)} pictures")
    return facts


def read_study(folder: Path) -> dict[str, Any]:
    """The results json of a finished study.

    Raises:
        ValueError: There is none, or several.
    """
    found = [path for path in folder.glob("*.json") if (folder / f"{path.stem}.md").is_file()]
    if len(found) != 1:
        raise ValueError(
            f"{folder} holds {len(found)} results; needed: STUDY.json and STUDY.md, as a study writes them."
        )
    return json.loads(found[0].read_text(encoding="utf-8"))


def draw_case(item: Mapping[str, Any], images: ImageOptions, folder: Path, name: str) -> str:
    """Draw what the model saw, with few colours so that the file stays small.

    Returns:
        The file's name.
    """
    with new_file(folder / name) as temporary:
        images.renderer()(item).quantize(32).save(temporary, "PNG", optimize=True)
    return name


if __name__ == "__main__":
    command()
