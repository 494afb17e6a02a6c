"""Parameters in parts that are reduced together, found once per optimizer rather than in every step.

On the CPU a kernel of its own costs 2.5 µs per tensor, whatever its size: most of the work for biases and
norm weights. So small ones are copied behind each other in one call and reduced there by numpy. Never is
``.numpy()`` called on a tensor of the host: it would mark that storage as not resizable.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from torchwatch.patient import Patient

PACKED = 1024
"""Largest tensor that is copied together with others (elements): above, a kernel of its own is cheaper."""

_PACKABLE = (torch.float32, torch.float64)
_MOST_OPTIMIZERS = 16

Indices = npt.NDArray[np.int64]


@dataclass(slots=True, eq=False)
class Part:
    """Plain parameters of one device and type; ``own`` says of each whether the optimizer holds it.

    ``starts`` are the offsets of the tensors when all are copied behind each other, None where each is
    reduced by itself.
    """

    indices: Indices
    own: npt.NDArray[np.bool_]
    references: list[weakref.ref[torch.nn.Parameter]]
    sizes: list[int]
    starts: Indices | None
    host: bool
    _picked: tuple[list[int], Part] | None = field(default=None, repr=False)

    def gradients(self) -> tuple[Part, list[torch.Tensor]] | None:
        """The gradients that are there and the part that they make; None where one is no plain tensor."""
        return self._present([None if (p := r()) is None else p.grad for r in self.references], torch.Tensor)

    def parameters(self) -> tuple[Part, list[torch.Tensor]] | None:
        """The parameters themselves, likewise."""
        return self._present([r() for r in self.references], torch.nn.Parameter)

    def _present(self, found: list[Any], plain: type) -> tuple[Part, list[torch.Tensor]] | None:
        kinds = set(map(type, found))
        if len(kinds) == 1 and plain in kinds:
            return self, found
        if kinds - {plain, type(None)}:
            return None
        picks = [place for place, tensor in enumerate(found) if tensor is not None]
        if self._picked is None or self._picked[0] != picks:
            self._picked = (picks, self._pick(picks))
        return self._picked[1], [found[place] for place in picks]

    def _pick(self, picks: list[int]) -> Part:
        references, sizes = [self.references[i] for i in picks], [self.sizes[i] for i in picks]
        starts = None if self.starts is None else _starts(sizes)
        return Part(self.indices[picks], self.own[picks], references, sizes, starts, self.host)


@dataclass(slots=True, eq=False)
class Parts:
    """All parameters behind a list of indices: plain ones in parts, the ``odd`` ones by index.

    Odd are distributed, complex, quantized and empty parameters, and lazy ones without values yet: as long as
    there are such, the parts are ``unfinished``.
    """

    parts: list[Part]
    odd: list[int]
    stepped: Sequence[int]
    others: Sequence[int]
    structure: int
    unfinished: bool = False

    def serves(self, stepped: Sequence[int], others: Sequence[int], structure: int) -> bool:
        """Whether these are still the parts of that request."""
        return (
            not self.unfinished
            and structure == self.structure
            and (stepped is self.stepped or stepped == self.stepped)
            and (others is self.others or others == self.others)
        )


class PartCache:
    """The parts of every optimizer, made anew when its parameters or the model change."""

    def __init__(self) -> None:
        self._known: dict[int, Parts] = {}

    def of(
        self,
        patient: Patient,
        optimizer: torch.optim.Optimizer | None,
        stepped: Sequence[int],
        others: Sequence[int] = (),
    ) -> Parts:
        """The parts of the parameters that an optimizer steps, and of ``others`` beside them."""
        known = self._known.get(id(optimizer))
        if known is None or not known.serves(stepped, others, patient.structure):
            known = _parts(patient, stepped, others)
            while len(self._known) >= _MOST_OPTIMIZERS:
                del self._known[next(iter(self._known))]
            self._known[id(optimizer)] = known
        return known

    def clear(self) -> None:
        """Drop everything."""
        self._known.clear()


def _parts(patient: Patient, stepped: Sequence[int], others: Sequence[int]) -> Parts:
    groups: dict[tuple[torch.device, torch.dtype, bool], list[tuple[int, torch.nn.Parameter]]] = {}
    odd: list[int] = []
    lazy = False
    for index in (*stepped, *others):
        parameter = patient.parameters[index]()
        if parameter is None or not _is_plain(parameter):
            odd.append(index)
            lazy = lazy or isinstance(parameter, torch.nn.parameter.UninitializedParameter)
            continue
        small = parameter.numel() <= PACKED and parameter.dtype in _PACKABLE
        packed = small and parameter.device.type == "cpu"
        groups.setdefault((parameter.device, parameter.dtype, packed), []).append((index, parameter))
    held = frozenset(stepped)
    parts = [
        _part(members, held, packed=packed and len(members) > 1) for (_, _, packed), members in groups.items()
    ]
    return Parts(parts, odd, stepped, others, patient.structure, lazy)


def _part(members: list[tuple[int, torch.nn.Parameter]], held: frozenset[int], *, packed: bool) -> Part:
    sizes = [p.numel() for _, p in members]
    return Part(
        np.array([i for i, _ in members], np.int64),
        np.array([i in held for i, _ in members], np.bool_),
        [weakref.ref(p) for _, p in members],
        sizes,
        _starts(sizes) if packed else None,
        members[0][1].device.type == "cpu",
    )


def _starts(sizes: list[int]) -> Indices:
    return np.array([0, *accumulate(sizes[:-1])], np.int64)


def _is_plain(parameter: torch.nn.Parameter) -> bool:
    return (
        type(parameter) is torch.nn.Parameter
        and parameter.layout is torch.strided
        and parameter.is_floating_point()
        and not (parameter.is_meta or parameter.is_quantized or parameter.is_nested)
        and parameter.numel() > 0
    )


def readable_gradient(parameter: torch.nn.Parameter) -> torch.Tensor | None:
    """The local, dense, non-empty gradient of a parameter, or None."""
    gradient = parameter.grad
    return None if gradient is None else readable(gradient)


def readable(tensor: torch.Tensor) -> torch.Tensor | None:
    """The local values of a tensor as a plain dense float or complex tensor, None where there are none.

    Shards of a distributed tensor are taken as they are: a collective issued by one rank alone deadlocks.
    """
    if isinstance(tensor, torch.nn.parameter.UninitializedParameter):
        return None
    if hasattr(tensor, "to_local"):
        tensor = tensor.to_local()
    tensor = tensor.detach()
    if tensor.is_sparse:
        tensor = tensor.coalesce().values()
    elif tensor.layout is not torch.strided:
        return None
    if tensor.numel() == 0 or tensor.is_meta or tensor.is_quantized or tensor.is_nested:
        return None
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return tensor if tensor.is_floating_point() else None
