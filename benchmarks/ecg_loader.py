"""Examples per second from records on disk to batches of student and teacher, step by step, as ratios to the bare processors.

The path is what one worker of `hf-evl-ecg distil` does with an online teacher: read a WFDB record, draw its page, and let two processors
make tensors of pages, questions and answers, with labels, places and the groups of answer tokens. Steps are measured alone, on what the
step before has made; `texts, keys, groups` is what the collator takes beyond them. `both processors, bare` is the same text and pages
through transformers alone, which no path can spare. Steps take turns; times are CPU seconds, medians over rounds, and a ratio is the
median over rounds.

    OMP_NUM_THREADS=1 python benchmarks/ecg_loader.py
    OMP_NUM_THREADS=1 python benchmarks/ecg_loader.py --student outputs/student --width 1100 --height 850

Without names, processors are those of the small models of the studies (LLaVA-NeXT, Idefics3), which see a page in three tiles.
"""

import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from measuring import median_ratio, take_turns
from reporting import Table, options

from hf_evl_ecg.chat.collator import EVLECGCollator
from hf_evl_ecg.chat.conversations import ChatText, chat_messages, read_turns, render_chat
from hf_evl_ecg.chat.encoding import encode_chats
from hf_evl_ecg.data.load import load_ecg
from hf_evl_ecg.data.questions import conversation_dataset, question_dataset
from hf_evl_ecg.data.rendered import RenderedECG
from hf_evl_ecg.drawing.config import RenderConfig
from hf_evl_ecg.drawing.rendering import render
from hf_evl_ecg.models.loading import load_processor
from hf_evl_ecg.records.writing import write_record
from hf_evl_ecg.sources.simulated import load_simulated, read_simulated

sys.path.append(str(Path(__file__).resolve().parent.parent / "studies" / "evl_ecg"))
from small_models import IMAGE_SIZE, build_student, build_teacher, training_texts

WHOLE, BARE, REST = "whole path", "both processors, bare", "texts, keys, groups"
COLUMNS = {"step": "", "ms an example": ".2f", "% of the path": ".1f", "ratio": ".2f", "examples/s": ",.1f"}
Examples = Sequence[dict[str, Any]]


def make_examples(folder: Path, records: int, turns: int) -> list[dict[str, Any]]:
    """Conversations about records that are written to the folder, one of each."""
    rows, _ = load_simulated(-(-records // 9))
    written = []
    for row in rows:
        write_record(read_simulated(row), folder / row["record"])
        written.append(row | {"storage": "wfdb", "root": str(folder)})
    asked = question_dataset(Dataset.from_list(written, features=rows.features), per_record=turns)
    return list(conversation_dataset(asked, turns))[:records]


def make_chats(processor: Any, examples: Examples) -> list[ChatText]:
    """The chats of one processor."""
    return [render_chat(processor, chat_messages(read_turns(e, e["record"]), images=1)) for e in examples]


def steps_of(processors: Sequence[Any], config: RenderConfig, examples: Examples, size: int) -> dict[str, Callable]:
    """The whole path and each step of it, over all examples in batches of that size."""
    collate = EVLECGCollator(*processors, load_image=RenderedECG(config), on_bad_example="stop")
    ecgs = [load_ecg(example) for example in examples]
    pages = [render(ecg, config).convert("RGB") for ecg in ecgs]
    names = [example["record"] for example in examples]
    chats = [make_chats(processor, examples) for processor in processors]
    parts = [slice(start, start + size) for start in range(0, len(examples), size)]

    def encode(side: int) -> None:
        for part in parts:
            encode_chats(processors[side], chats[side][part], pages[part], records=names[part])

    def bare() -> None:
        for processor, texts in zip(processors, chats, strict=True):
            for part in parts:
                images = [[page] for page in pages[part]]
                processor(text=[c.text for c in texts[part]], images=images, padding=True, return_tensors="pt")

    return {
        WHOLE: lambda: [collate(examples[part]) for part in parts],
        "read": lambda: [load_ecg(example) for example in examples],
        "draw": lambda: [render(ecg, config).convert("RGB") for ecg in ecgs],
        "student's processor": lambda: encode(0),
        "teacher's processor": lambda: encode(1),
        BARE: bare,
    }


def main() -> None:
    """Measure and print the table."""
    parser = options(__doc__)
    parser.add_argument("--student", help="folder or name of a model whose processor is used")
    parser.add_argument("--teacher", help="the same for the teacher")
    parser.add_argument("--width", type=int, default=IMAGE_SIZE[0], help="width of a page (px)")
    parser.add_argument("--height", type=int, default=IMAGE_SIZE[1], help="height of a page (px)")
    parser.add_argument("--records", type=int, default=36)
    parser.add_argument("--turns", type=int, default=4, help="questions about a record")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    table = Table(__file__, args.output, COLUMNS, ("torch", "transformers", "wfdb", "pillow"))
    with tempfile.TemporaryDirectory() as folder:
        examples = make_examples(Path(folder), args.records, args.turns)
        texts = list(training_texts(examples))
        student = load_processor(args.student) if args.student else build_student(texts)[1]
        teacher = load_processor(args.teacher) if args.teacher else build_teacher(texts)[1]
        config = RenderConfig(width_px=args.width, height_px=args.height)
        taken = take_turns(steps_of((student, teacher), config, examples, args.batch_size), args.rounds)
    whole, bare = taken.pop(WHOLE), taken.pop(BARE)
    rest = [total - sum(parts) for total, *parts in zip(whole, *taken.values(), strict=True)]
    for name, times in {WHOLE: whole, **taken, REST: rest, BARE: bare}.items():
        each, share = statistics.median(times) / len(examples), 100 * median_ratio(times, whole)
        table.add(name, 1e3 * each, share, median_ratio(times, bare), 1 / each)


if __name__ == "__main__":
    main()
