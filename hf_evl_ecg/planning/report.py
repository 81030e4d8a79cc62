"""A plan as text and as json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from .cluster import DISTRIBUTED_HERE
from .networks import ParameterCount
from .plan import Plan

__all__ = ["plan_json", "plan_text"]


def plan_json(plan: Plan) -> dict[str, Any]:
    """The plan as plain numbers, with their units in their names.

    Args:
        plan: The plan.
    """
    counted, args = plan.counted, plan.setup.args
    page = {"student": counted.student_tokens, "teacher": counted.teacher_tokens}
    text = {"student": plan.setup.student_text, "teacher": plan.setup.teacher_text}
    return {
        "parameters": {
            "student": asdict(counted.student),
            "teacher": None if counted.teacher is None else counted.teacher.total,
            "aligner": counted.criterion_parameters,
        },
        "tokens": {side: {**asdict(found), **asdict(text[side])} for side, found in page.items() if found is not None},
        "batch": {
            "per_gpu": args.per_device_train_batch_size,
            "accumulation": args.gradient_accumulation_steps,
            "per_step": args.per_device_train_batch_size * args.gradient_accumulation_steps * plan.cluster.gpus,
        },
        "memory_bytes": {**plan.memory.parts, "total": plan.memory.total, "usable": plan.cluster.usable},
        "fullest_at": plan.memory.moment,
        "fits": plan.fits,
        "flop_per_step": _flop_per_step(plan),
        "epoch": {**asdict(plan.epoch), "examples": plan.examples},
        "epochs": float(args.num_train_epochs),
        "cache": None if plan.cache is None else asdict(plan.cache),
        "switches": [asdict(switch) for switch in plan.switches],
        "assumed": asdict(plan.cluster),
        "notes": _notes(plan),
    }


def plan_text(plan: Plan) -> str:
    """The plan as tables, with all that is assumed.

    Args:
        plan: The plan.
    """
    return "\n\n".join(
        [
            _parameters(plan),
            _tokens(plan),
            _memory(plan),
            _flop(plan),
            _time(plan),
            *([_cache(plan)] if plan.cache else []),
            "Assumed\n" + "\n".join(f"  {line}" for line in _notes(plan)),
        ]
    )


_BYTES = {"GB": 1e9, "MB": 1e6, "kB": 1e3, "B": 1.0}
_FLOP = {"PFLOP": 1e15, "TFLOP": 1e12, "GFLOP": 1e9, "MFLOP": 1e6, "FLOP": 1.0}
_SECONDS = {"h": 3600.0, "min": 60.0, "s": 1.0}


def _scaled(value: float, units: Mapping[str, float]) -> str:
    """A number in the largest unit in which it is at least 1, or in the smallest.

    Example:
        >>> _scaled(5.4e9, _BYTES), _scaled(90, _SECONDS), _scaled(0, _FLOP)
        ('5.4 GB', '1.5 min', '0 FLOP')
    """
    name, size = next(((name, size) for name, size in units.items() if value >= size), list(units.items())[-1])
    return f"{value / size:.4g} {name}"


def _bytes(value: float) -> str:
    return _scaled(value, _BYTES)


def _time_of(seconds: float) -> str:
    return _scaled(seconds, _SECONDS)


def _flop_per_step(plan: Plan) -> dict[str, int]:
    """FLOP of an optimizer step on all GPUs, by part."""
    number = plan.setup.args.gradient_accumulation_steps * plan.cluster.gpus
    return {part: count * number for part, count in plan.counted.step.flop.items()}


def _table(title: str, rows: Iterable[tuple[str, ...]]) -> str:
    """A title and rows of a first column of words and further ones of figures."""
    lines = [f"  {first:<24}" + "".join(f"{cell:>14}" for cell in rest) for first, *rest in rows]
    return "\n".join([title, *(line.rstrip() for line in lines)])


def _parameters(plan: Plan) -> str:
    student, teacher = plan.counted.student, plan.counted.teacher
    rows: list[tuple[str, ...]] = [("", "student", "trained", "teacher")]
    for part, count in student.total.items():
        of_teacher = "" if teacher is None else f"{teacher.total[part]:,}"
        rows.append((part, f"{count:,}", f"{student.trained[part]:,}", of_teacher))
    sums = [f"{sum(found.values()):,}" for found in (student.total, student.trained, _total(teacher))]
    rows += [("all", *sums)]
    rows += [("aligner, projectors", f"{plan.counted.criterion_parameters:,}")]
    return _table("Parameters", rows)


def _total(count: ParameterCount | None) -> Mapping[str, int]:
    return {} if count is None else count.total


def _tokens(plan: Plan) -> str:
    sides = [("student", plan.counted.student_tokens, plan.setup.student_text)]
    if plan.counted.teacher_tokens is not None:
        sides.append(("teacher", plan.counted.teacher_tokens, plan.setup.teacher_text))
    rows = [("", "image tokens", "page in all", "text", "of it answer")]
    rows += [(side, f"{p.image:,}", f"{p.page:,}", f"{t.text:,}", f"{t.answer:,}") for side, p, t in sides]
    return _table("Tokens of an example", rows)


def _memory(plan: Plan) -> str:
    rows = [(part, _bytes(held)) for part, held in plan.memory.parts.items() if held]
    rows += [("all", _bytes(plan.memory.total)), ("usable", _bytes(plan.cluster.usable))]
    text = _table(f"Memory of each of {plan.cluster.gpus} GPUs, fullest at: {plan.memory.moment}", rows)
    if plan.fits:
        return f"{text}\n  It fits."
    lines = ["  It does not fit. What each of these would leave, those that compute the same first:"]
    for switch in plan.switches:
        marks = ["fits" if switch.fits else "does not fit", f"{_time_of(switch.seconds)} an epoch"]
        marks += [] if switch.same_result else ["another result"]
        marks += [] if switch.runs_here else ["not run by hf-evl-ecg distil"]
        lines.append(f"    {_bytes(switch.bytes):>9}  {switch.options}: {', '.join(marks)}")
    if not any(switch.fits for switch in plan.switches):
        lines.append("    None of these is enough: take a smaller model, or GPUs with more memory.")
    return "\n".join([text, *lines])


def _flop(plan: Plan) -> str:
    flop = _flop_per_step(plan)
    whole = sum(flop.values())
    rows = [(part, _scaled(count, _FLOP), f"{100 * count / whole:.1f} %") for part, count in flop.items()]
    return _table("FLOP of an optimizer step, all GPUs", [*rows, ("all", _scaled(whole, _FLOP))])


def _time(plan: Plan) -> str:
    epoch, number = plan.epoch, float(plan.setup.args.num_train_epochs)
    priced = [f"{epoch.price * times:.2f}" if plan.cluster.price else "" for times in (1, number)]
    rows = [
        ("", "steps", "time", "GPU hours", "price" if plan.cluster.price else ""),
        ("an epoch", f"{epoch.steps:,}", _time_of(epoch.seconds), f"{epoch.gpu_hours:.3g}", priced[0]),
        (f"{number:g} epochs", f"{epoch.steps * number:,.0f}", _time_of(epoch.seconds * number),
         f"{epoch.gpu_hours * number:.3g}", priced[1]),
    ]  # fmt: skip
    return _table(f"Time for {plan.examples:,} examples", rows)


def _cache(plan: Plan) -> str:
    cache = plan.cache
    assert cache is not None
    rows = [
        ("an example", _bytes(cache.example_bytes)),
        ("all examples", _bytes(cache.total_bytes)),
        ("writing it", f"{cache.write.gpu_hours:.3g} GPU h"),
        ("an epoch from it", f"{cache.cached.gpu_hours:.3g} GPU h"),
        ("an epoch without it", f"{cache.online.gpu_hours:.3g} GPU h"),
    ]
    pays = (
        "It saves no time: reading takes as long as the teacher."
        if cache.pays_from is None
        else f"It saves time from pass {cache.pays_from} over the data on, over all epochs and runs that use it."
    )
    return f"{_table('Teacher cache', rows)}\n  {pays}"


def _notes(plan: Plan) -> list[str]:
    """All that the figures rest on."""
    cluster, args = plan.cluster, plan.setup.args
    notes = [
        f"{cluster.share_of_peak:.0%} of {cluster.peak_tflops:g} TFLOP/s a GPU, over all FLOP above, those of gradient checkpointing "
        "included (--share_of_peak, --peak_tflops); nothing for what GPUs send each other, or for waiting for pages",
        f"{cluster.headroom:.0%} of {cluster.memory:g} GB (1e9 bytes) is left for CUDA's context, NCCL and fragments (--headroom)",
        "FLOP are those of matrix products, convolutions and attention, one multiplication and addition being two; a causal mask saves "
        "none; the optimizer is left out",
        "attention is fused: no matrix of tokens times tokens is kept, unless a model asks for eager attention",
        f"every example has a page of one size and the tokens above; optimizer {getattr(args.optim, 'value', args.optim)}",
    ]
    if cluster.price:
        notes.append(f"a GPU hour costs {cluster.price:g} (--price)")
    if plan.cache is not None:
        notes.append(f"{cluster.disk:g} GB/s are read from a cache, by all GPUs together (--disk)")
    if args.visual_weights != "uniform":
        notes.append(f"visual_weights={args.visual_weights}: counted as uniform, as they are a few numbers a token")
    if args.ot_tol > 0 or args.ot_backend != "torch":
        notes.append(f"optimal transport: all {args.ot_max_iter} iterations of the torch backend")
    if cluster.sharding not in DISTRIBUTED_HERE:
        notes.append(
            f"sharding {cluster.sharding} by the formulas of ZeRO (arXiv 1910.02054), not measured; hf-evl-ecg distil runs "
            f"{', '.join(DISTRIBUTED_HERE)} only"
        )
    return notes
