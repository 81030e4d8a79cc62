"""An answer as it is being generated, in pieces of text."""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from .generation import generate_ids

__all__ = ["stream_answer"]

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def stream_answer(
    model: nn.Module, batch: Mapping[str, Any], tokenizer: Any, *, max_new_tokens: int = 256
) -> Iterator[str]:
    """Generate the answer of a single sample; the pieces joined are what `hf_evl_ecg.inference.generation.generate_answers` gives.

    The model runs in a thread of its own, which ends after its current token when the iterator is closed.

    Args:
        model: The model, not a distributed wrapper around it.
        batch: From `EVLECGCollator`, one sample.
        tokenizer: Its tokenizer.
        max_new_tokens: Longest answer in tokens.

    Raises:
        ValueError: More than one sample.
        Exception: Whatever generation raises.
    """
    if batch["input_ids"].shape[0] != 1:
        raise ValueError(f"{batch['input_ids'].shape[0]} samples; an answer is streamed for one at a time")
    return _stream(model, batch, tokenizer, max_new_tokens)


def _stream(model: nn.Module, batch: Mapping[str, Any], tokenizer: Any, max_new_tokens: int) -> Iterator[str]:
    tokens, stop = _Tokens(), _Stop()

    def run() -> None:
        try:
            generate_ids(
                model,
                batch,
                tokenizer,
                max_new_tokens=max_new_tokens,
                streamer=tokens,
                stopping_criteria=StoppingCriteriaList([stop]),
            )
        except BaseException as error:  # raised again where the pieces are read, else that side would wait for ever
            tokens.queue.put(error)
        else:
            tokens.queue.put(None)

    # daemon: an iterator that nobody closes must not keep the interpreter from ending
    thread = threading.Thread(target=run, name="stream_answer", daemon=True)
    thread.start()
    try:
        yield from _pieces(tokens.queue, tokenizer)
    finally:
        stop.asked.set()
        thread.join()


def _pieces(arriving: queue.SimpleQueue[list[int] | BaseException | None], tokenizer: Any) -> Iterator[str]:
    """Text that can no longer change: white space, half characters and bytes (``<0x0A>``) wait for what follows them."""
    ids: list[int] = []
    sent = ""
    while (new := arriving.get()) is not None:
        if isinstance(new, BaseException):
            raise new
        ids += new
        if _BYTE.fullmatch(tokenizer.convert_ids_to_tokens(ids[-1]) or ""):
            continue
        text = tokenizer.decode(ids, skip_special_tokens=True).lstrip().rstrip("\ufffd").rstrip()
        if len(text) > len(sent):
            yield text[len(sent) :]
            sent = text
    text = tokenizer.decode(ids, skip_special_tokens=True).strip()
    if len(text) > len(sent):
        yield text[len(sent) :]


class _Tokens(BaseStreamer):
    """Puts new tokens into a queue; the first call brings the prompt."""

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[list[int] | BaseException | None] = queue.SimpleQueue()
        self._prompt_seen = False

    def put(self, value: Tensor) -> None:
        """Take new tokens; the first call brings the prompt, which is dropped."""
        if self._prompt_seen:
            self.queue.put(value.flatten().tolist())
        self._prompt_seen = True

    def end(self) -> None:
        """The thread reports the end itself, after generation has returned."""


class _Stop(StoppingCriteria):
    """Stops generation when it is asked to."""

    def __init__(self) -> None:
        self.asked = threading.Event()

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        return input_ids.new_full((input_ids.shape[0],), self.asked.is_set()).bool()
