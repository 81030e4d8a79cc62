r"""Run a teacher over the training questions once and keep what it says, for hf-evl-ecg distil --teacher_cache.

One GPU:

    hf-evl-ecg cache --teacher outputs/pulse_native --data outputs/questions --output_dir outputs/cache \
        --batch_size 8 --num_workers 8 --visual_pool 4

Several GPUs; every process writes its own shards into one folder:

    accelerate launch --num_processes 8 -m hf_evl_ecg cache --teacher outputs/pulse_native --data outputs/questions \
        --output_dir outputs/cache

Started again after a kill it goes on where it stopped. Image options must be those of distil, and images must not change from
epoch to epoch (--image_seed other than -1). --layers, --tokens (all serves every one), --visual_pool, --positions and
--visual_weights must suit distil's --teacher_layer, --hidden_tokens, --teacher_visual_pool, --ot_position_weight and --visual_weights; --top_k
is needed for --lambda_uld and bounds its --uld_top_k, and --lambda_kl needs as many as the vocabulary has.
An example takes (tokens x layers + visual tokens) x width x 2 bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from hf_evl_ecg.arguments import check_at_least
from hf_evl_ecg.command_line.options import ImageOptions
from hf_evl_ecg.command_line.parser import parse_arguments

if TYPE_CHECKING:  # --help must not wait for torch
    from hf_evl_ecg.chat.collator import EVLECGCollator
    from hf_evl_ecg.data.rendered import RenderedECG

__all__ = ["CacheArguments", "command", "fingerprint", "main"]


@dataclass
class CacheArguments:
    """Which teacher, which questions, what to keep."""

    teacher: str = field(metadata={"help": "The teacher: a folder or a name on the Hub."})
    data: str = field(metadata={"help": "Question dataset from hf-evl-ecg prepare."})
    output_dir: str = field(metadata={"help": "Folder of the cache."})
    split: str = field(default="train", metadata={"help": "Split to cache."})
    train_records: int | None = field(
        default=None, metadata={"help": "Cache only this many records, as hf-evl-ecg distil does."}
    )
    teacher_dtype: str = field(default="auto", metadata={"help": "Precision of the teacher's weights."})
    layers: list[int] = field(default_factory=lambda: [-1], metadata={"help": "Hidden states to keep."})
    tokens: str = field(default="all", metadata={"help": "Tokens they cover: all, visual or answer."})
    visual_pool: int = field(default=1, metadata={"help": "Average this many consecutive visual tokens into one."})
    positions: bool = field(default=False, metadata={"help": "Keep where on the image each visual token lies."})
    visual_weights: str = field(
        default="uniform",
        metadata={
            "help": "Keep weights of the visual tokens: uniform (none), ink, teacher_contrast or teacher_attention."
        },
    )
    top_k: int = field(default=64, metadata={"help": "Answer log-probabilities to keep per token; 0: none."})
    dtype: str = field(default="bfloat16", metadata={"help": "Precision of what is kept: bfloat16, float16, float32."})
    system_prompt: str | None = field(default=None, metadata={"help": "System message of the teacher's chats."})
    max_length: int | None = field(default=None, metadata={"help": "Longest teacher input in tokens."})
    unanswered: Literal["refuse", "use", "drop"] = field(
        default="refuse",
        metadata={
            "help": "Questions without an answer: refuse: bad examples; use: cache them too; drop: leave them out."
        },
    )
    batch_size: int = field(default=8, metadata={"help": "Examples per forward pass."})
    shard_size: int = field(default=256, metadata={"help": "Examples per shard: what a kill can cost."})
    num_workers: int = field(default=0, metadata={"help": "Processes that draw and preprocess images."})


def command(arguments: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Run the command line."""
    main(*parse_arguments(arguments, CacheArguments, ImageOptions, description=__doc__, prog=prog))


def main(args: CacheArguments, images: ImageOptions) -> int:
    """Write what is not in the cache yet.

    Returns:
        How many examples this process wrote.

    Raises:
        CacheMismatchError: The folder holds a cache of another teacher, processor, layout or page.
        ValueError: Images that are drawn anew each time.
    """
    from accelerate import PartialState
    from torch.utils.data import DataLoader
    from tqdm.auto import tqdm

    from hf_evl_ecg.chat.collator import EVLECGCollator
    from hf_evl_ecg.chat.examples import example_key
    from hf_evl_ecg.data.stored import load_questions
    from hf_evl_ecg.distillation.cache_files import CacheLayout
    from hf_evl_ecg.distillation.cache_writer import TeacherCacheWriter
    from hf_evl_ecg.distillation.collation import drop_unanswered
    from hf_evl_ecg.distillation.teacher import OnlineTeacher
    from hf_evl_ecg.models.answer_attention import attend_eagerly
    from hf_evl_ecg.models.fingerprints import model_fingerprint
    from hf_evl_ecg.models.loading import load_model

    # What takes no time comes first: loading a teacher takes minutes.
    for name in ("batch_size", "shard_size"):
        check_at_least(name, getattr(args, name), 1)
    layout = CacheLayout(
        layers=tuple(args.layers),
        tokens=args.tokens,
        visual_pool=args.visual_pool,
        positions=args.positions,
        visual_weights=args.visual_weights,
        top_k=args.top_k,
        dtype=args.dtype,
    )
    draw = images.training_renderer(args.teacher)  # with the artefacts that the student will see
    draw.fingerprint()
    questions = load_questions(args.data, args.split, args.train_records)
    state = PartialState()
    model, processor = load_model(args.teacher, args.teacher_dtype, str(state.device))
    if args.visual_weights == "teacher_attention":
        attend_eagerly(model)
    made_from = fingerprint(processor, draw, args.system_prompt, args.max_length)
    teacher = OnlineTeacher(model)
    made_from["teacher"] = model_fingerprint(model)
    with state.main_process_first():  # the first one writes the header, the others compare theirs with it
        writer = TeacherCacheWriter(
            args.output_dir,
            teacher,
            layout,
            fingerprint=made_from,
            shard_size=args.shard_size,
            rank=state.process_index,
        )
    # Each process takes every n-th question, so that all have about the same of each source.
    own = questions.select(range(state.process_index, len(questions), state.num_processes))
    if args.unanswered == "drop":
        own = drop_unanswered(own)
    unanswered: Literal["refuse", "use"] = "use" if args.unanswered == "use" else "refuse"
    todo = own.select([i for i, item in enumerate(own) if example_key(item, unanswered="use") not in writer.done])
    collator = EVLECGCollator(
        processor,
        load_image=draw,
        system_prompt=args.system_prompt,
        max_length=args.max_length,
        ink=args.visual_weights == "ink",
        unanswered=unanswered,
    )
    loader = DataLoader(todo, args.batch_size, collate_fn=_TeacherBatches(collator), num_workers=args.num_workers)
    written = writer.write(tqdm(loader, desc="cache", delay=3.0, disable=not state.is_main_process)) if len(todo) else 0
    state.wait_for_everyone()
    print(f"{written} examples written, {len(own) - len(todo)} were there: {args.output_dir}")
    for reason in writer.skipped:
        print(f"left out: {reason}")
    return written


def fingerprint(processor: Any, draw: RenderedECG, system_prompt: str | None, max_length: int | None) -> dict[str, Any]:
    """What a teacher's features depend on beside its weights and the questions."""
    from hf_evl_ecg.models.fingerprints import processor_fingerprint

    return {
        "processor": processor_fingerprint(processor),
        "images": draw.fingerprint(),
        "system_prompt": system_prompt,
        "max_length": max_length,
    }


class _TeacherBatches:
    """Examples → a batch as a teacher reads it; picklable, for loader workers."""

    def __init__(self, collator: EVLECGCollator) -> None:
        self.collator = collator

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Inputs and labels under "teacher", with the keys of the examples."""
        from torch import Tensor

        batch = self.collator(examples)
        return {
            "teacher": {name: value for name, value in batch.items() if isinstance(value, Tensor) and name != "ink"},
            **({"ink": batch["ink"]} if "ink" in batch else {}),
            "keys": batch["keys"],
            "skipped": batch["skipped"],
        }
