"""A computation with tensors that have a shape and no values: its FLOP by part, and its live bytes at their peak.

Weights become fake tensors (`torch._subclasses.FakeTensorMode`, on which torch.compile rests): an operation on one of them gives the
shape of its result and allocates nothing. Integers, masks and pixels stay real, as models count image tokens and cut tiles by their
values. So a training step of 7 billion parameters runs through the models' own code, in seconds and without memory.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry

__all__ = ["DryRun"]

_MARK = "hf_evl_ecg.planning.part"
aten = torch.ops.aten
_ATTENTION = aten._scaled_dot_product_flash_attention_for_cpu
_ATTENTION_BACKWARD = aten._scaled_dot_product_flash_attention_for_cpu_backward
_WITH_INDICES = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)


class DryRun(TorchDispatchMode):
    """While active, what is computed from weights without values has no values either; FLOP and bytes are counted.

    FLOP are those of matrix products, convolutions and attention, as `torch.utils.flop_counter.FlopCounterMode` counts them; the
    backward pass of fused attention counts four products, without the one it computes again. Bytes are those of every tensor
    that is made while active, from then until nothing holds it.

    Attributes:
        flop: FLOP by part.
        live: Bytes that are held now, by kind: ``"activations"``, ``"logits"`` (last dimension of the size of a vocabulary),
            ``"casts"`` (weights in autocast's type), ``"gradients"``, ``"teacher"`` (whatever is made in that phase).
        peak: `live` when its sum was largest.

    Args:
        parts: Module → name of the part its FLOP belong to; of parts inside of each other the inner one counts. Operations in none
            of them belong to the phase.
        vocabularies: Sizes of vocabularies.

    Example:
        >>> layer = nn.Linear(4, 3, bias=False)
        >>> run = DryRun({layer: "layer"})
        >>> run.forget_values(layer)
        >>> with run:
        ...     layer(torch.ones(2, 4)).sum().backward()
        >>> run.flop  # forward 2 * 2 * 4 * 3, the same for the gradient of the weight
        Counter({'layer': 96})
        >>> run.live["gradients"]
        48
    """

    def __init__(self, parts: Mapping[nn.Module, str], vocabularies: frozenset[int] = frozenset()) -> None:
        super().__init__()
        self.flop: Counter[str] = Counter()
        self.live: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self._parts = parts
        self._vocabularies = vocabularies
        self._phase = "other"
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._kinds: dict[int, str] = {}
        self._weights: set[int] = set()
        self._there: set[int] = set()
        self._held: list[Any] = []
        self._inside: list[str] = []
        self._handles: list[Any] = []

    def forget_values(self, module: nn.Module) -> None:
        """Replace the parameters of a module, in place, by parameters of the same shape and type without values; ties stay."""
        new: dict[int, nn.Parameter] = {}
        for part in module.modules():
            for name, old in part._parameters.items():
                if old is None:
                    continue
                if id(old) not in new:
                    with self._fake:
                        empty = torch.empty(old.shape, dtype=old.dtype, device="cpu")
                    new[id(old)] = nn.Parameter(empty, requires_grad=old.requires_grad)
                    self._watch(new[id(old)])
                    self._held.append(old)  # its id must not be given away while the loop runs
                part._parameters[name] = new[id(old)]
        self._held.clear()
        self.know(module.buffers())

    def know(self, tensors: Iterable[Tensor]) -> None:
        """Leave tensors out of the count, with their views: they were there before. They must outlive the run."""
        self._there.update(tensor.untyped_storage()._cdata for tensor in tensors)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Name what is computed in between; FLOP outside of all parts belong to it, those of ``"teacher"`` all."""
        before, self._phase, self._inside = (self._phase, self._inside), name, []
        try:
            yield
        finally:
            self._phase, self._inside = before

    def start_over(self) -> None:
        """Forget the FLOP and the peak so far; what is held stays held."""
        self.flop.clear()
        self.peak = self.live.copy()

    def __enter__(self) -> DryRun:
        for module, part in self._parts.items():
            self._handles += [
                module.register_forward_pre_hook(self._entered(part)),
                module.register_forward_hook(self._left(part)),
            ]
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _WITH_INDICES:  # how many entries a mask keeps is known, as masks have values
            args = (args[0], _whole_numbers(args[1]), *args[2:])
        if any(isinstance(value, FakeTensor) for value in tree_iter((args, kwargs))):
            with self._fake:
                out = func(*args, **kwargs)
        else:
            out = func(*args, **kwargs)
        if (count := _FORMULAS.get(func._overloadpacket)) is not None:
            self.flop[self._part()] += count(*args, **kwargs, out_val=out)
        for value in tree_iter(out):
            if isinstance(value, Tensor):
                self._hold(value, func, args)
        return out

    def _part(self) -> str:
        return self._inside[-1] if self._inside and self._phase != "teacher" else self._phase

    def _entered(self, part: str) -> Callable[..., None]:
        return lambda *_: self._inside.append(part)

    def _left(self, part: str) -> Callable[..., None]:
        """What a part's forward pass made is the part's in the backward pass too, and what is computed again there."""

        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self._inside.pop()
            nodes: list[Any] = [value.grad_fn for value in tree_iter(output) if isinstance(value, Tensor)]
            while nodes:
                node = nodes.pop()
                # Parts that ran before have marked theirs; leaves outlive the graph, and would gather marks from step to step.
                if node is None or _MARK in node.metadata or node.name().endswith("AccumulateGrad"):
                    continue
                node.metadata[_MARK] = part
                node.register_prehook(self._reached(part))
                nodes += [following for following, _ in node.next_functions]

        return hook

    def _reached(self, part: str) -> Callable[[Any], None]:
        """A hook of the backward pass; it must hold no node, as a graph that is not run through would never be freed."""

        def hook(_gradients: Any) -> None:
            self._inside[:] = [part]

        return hook

    def _watch(self, parameter: nn.Parameter) -> None:
        """Know a parameter's own storage, and its gradient when that is there."""
        self._weights.add(parameter.untyped_storage()._cdata)

        def note(updated: Tensor) -> None:
            assert updated.grad is not None
            self._rename(updated.grad.untyped_storage()._cdata, updated.grad.untyped_storage().nbytes())

        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(note)

    def _rename(self, key: int, size: int) -> None:
        kind = self._kinds.get(key)
        if kind is not None and kind != "gradients":
            self.live[kind] -= size
            self.live["gradients"] += size
            self._kinds[key] = "gradients"

    def _hold(self, value: Tensor, func: Any, args: tuple[Any, ...]) -> None:
        """Count a tensor's bytes until its storage is gone; views have none of their own."""
        storage = value.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._kinds or key in self._weights or key in self._there:
            return
        self._kinds[key] = self._kind(value, func, args)
        self.live[self._kinds[key]] += size
        weakref.finalize(storage, self._release, key, size).atexit = False
        if self.live.total() > self.peak.total():
            self.peak = self.live.copy()

    def _release(self, key: int, size: int) -> None:
        self.live[self._kinds.pop(key)] -= size

    def _kind(self, value: Tensor, func: Any, args: tuple[Any, ...]) -> str:
        if self._phase == "teacher":
            return self._phase
        if func is aten._to_copy.default and args[0].untyped_storage()._cdata in self._weights:
            return "casts"
        return "logits" if value.ndim > 1 and value.shape[-1] in self._vocabularies else "activations"


def _whole_numbers(indices: list[Tensor | None]) -> list[Tensor | None]:
    """Masks as the places that they keep."""
    found: list[Tensor | None] = []
    for index in indices:
        is_mask = isinstance(index, Tensor) and not isinstance(index, FakeTensor) and index.dtype == torch.bool
        found += index.nonzero().unbind(1) if is_mask else [index]  # type: ignore[union-attr]
    return found


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """Two products of (L, E) x (E, S) and (L, S) x (S, E), for each sample and head; a causal mask saves nothing."""
    return 2 * query.shape[:-1].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def _attention_backward(_grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return 2 * _attention(query, key, value)


_FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    _ATTENTION: _attention,
    _ATTENTION_BACKWARD: _attention_backward,
}
