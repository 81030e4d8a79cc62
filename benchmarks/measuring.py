"""What benchmarks measure with: seconds of several ways that take turns, and the memory that one takes."""

import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

__all__ = ["clock", "median_ratio", "peak_anonymous_bytes", "peak_tensor_bytes", "take_turns"]

PAGE_BYTES = 4096
Step = Callable[[], object]


def clock(device: str = "cpu") -> Callable[[], float]:
    """A clock: on a CPU of this process, which others disturb little, on a GPU of the wall, once its work is done."""
    if device == "cpu":
        return time.process_time
    import torch

    def wall() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return wall


def take_turns(
    ways: Mapping[str, Step], rounds: int, *, device: str = "cpu", warm_up: bool = True
) -> dict[str, list[float]]:
    """Seconds of each way in each round; from first to last and from last to first, so that a slow while slows all.

    Args:
        ways: What is measured, by name.
        rounds: Rounds that count.
        device: Where they run, see `clock`.
        warm_up: Run one more round before, which does not count.
    """
    now = clock(device)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(-warm_up, rounds):
        for name, way in list(ways.items())[:: 1 if turn % 2 == 0 else -1]:
            start = now()
            way()
            if turn >= 0:
                taken[name].append(now() - start)
    return taken


def median_ratio(times: Sequence[float], base: Sequence[float]) -> float:
    """Median over rounds of a way's seconds to those of another in the same round."""
    return statistics.median(mine / its for mine, its in zip(times, base, strict=True))


def peak_tensor_bytes(step: Step, device: str = "cpu") -> int:
    """Most bytes of tensors that a step holds at once, beyond those that live before it.

    On a CPU they are added up from the allocations that torch's profiler records, which takes long: give it a short step.
    """
    import torch
    from torch.profiler import ProfilerActivity, profile

    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as recorded:
        step()
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def peak_anonymous_bytes(step: Step, every_s: float = 0.005) -> int:
    """Most memory that a step holds beyond what the process held before, without the pages of mapped files; Linux only.

    Looked at from a thread of its own, so memory that is held for less than ``every_s`` may be missed. What an allocator
    kept from before is not counted again: run it in a fresh process.
    """
    before = peak = _anonymous_bytes()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(every_s):
            peak = max(peak, _anonymous_bytes())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        step()
    finally:
        done.set()
        thread.join()
    return peak - before


def _anonymous_bytes() -> int:
    resident, shared = map(int, Path("/proc/self/statm").read_text().split()[1:3])
    return PAGE_BYTES * (resident - shared)
