"""What the model was given: a fingerprint wherever its forward is seen, statistics on sampled steps.

Only passes that were trained on count, several in a step (accumulation) in their order. The values are read
when the forward pass has run, so a model that changes its input in place shows it changed.

``fingerprint`` is 8 hex digits over all tensors among the arguments (at most 16 per pass): equal for equal
batches, see :mod:`torchwatch.probes._fingerprint`. A pass with the batch of the pass before counts once: a
closure runs its batch several times. ``tokens`` counts the entries of the first argument of two axes that
holds 32 or 64 bit whole numbers and is not called a label, all passes together.

Keys of ``inputs``:

* ``passes``: forward passes that were trained on, at most 64 are looked at;
* ``batch``: samples in the first of them: the first axis of its first tensor;
* ``nonfinite``: NaN and infinite entries of the floating tensors described, all passes together;
* ``tensors``: the first four tensors, each with ``name`` (place among the arguments or keyword, then keys of
  maps: ``0``, ``1.image``, ``input_ids``), ``shape`` (of the first pass) and ``dtype``; where it holds
  numbers ``low`` and ``high``; a floating one also ``mean``, ``std`` (of the population), ``absmax``
  (like the others NaN where an entry is NaN) and ``nonfinite`` (a count); over all passes together;
* ``more``: how many tensors were not described, where there were more than four;
* ``source``: ``batches`` where the model's own forward is never called and the batches of ``watch.batches``
  stand in; left out otherwise.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from torchwatch.probe import Frame, Probe, Values
from torchwatch.probes._fingerprint import Sketcher, combined, digest, sketchable
from torchwatch.probes._passes import Passes
from torchwatch.probes._values import Call, described, numbers
from torchwatch.probes.activations import batch_size
from torchwatch.schedule import Plan, unmeasured

_MOST_TENSORS = 16
_MOST_DESCRIBED = 4
_MOST_PASSES = 64
_DEPTH = 4
_NONE: Values = np.empty(0)
_TOKENS = ("int64", "int32")
_UNSEEN = "the model's own forward is not called"
_EMPTY = "no tensor that can be read among the model's arguments"


@dataclass(slots=True, eq=False)
class _Given:
    """One tensor of a batch: its sketch and, on sampled steps, its statistics."""

    name: str
    shape: list[int]
    dtype: str
    sketch: list[torch.Tensor]
    numbers: torch.Tensor | None


@dataclass(slots=True, eq=False)
class _Batch:
    samples: int | None
    tensors: list[_Given]


class InputProbe(Probe):
    """Arguments of the model's forward passes; where it is never called, the loader's batches."""

    name: ClassVar[str] = "inputs"
    writes: ClassVar[tuple[str, ...]] = ("fingerprint", "inputs", "tokens")

    def __init__(self) -> None:
        self._passes: Passes[_Batch] = Passes(_MOST_PASSES)
        self._sketcher = Sketcher()
        self._armed = False
        self._plan = unmeasured(0)
        self._merged = 0
        self._missing = ""
        self._offered: list[_Batch] = []

    def next_step(self, plan: Plan) -> None:
        """Know whether batches of the loader are worth a look."""
        self._plan = plan

    def arm(self, plan: Plan) -> None:  # noqa: ARG002
        """Describe from now on."""
        self._armed = True

    def disarm(self) -> None:
        """Only fingerprints from now on."""
        self._armed = False

    def model_ran(self, args: tuple[Any, ...], output: Any, *, recording: bool) -> None:  # noqa: ARG002
        """Look at the arguments; they count when a gradient arrives."""
        if recording:
            batch = self._look(args)
            if batch.tensors:
                self._passes.add(batch)
            self._note("" if batch.tensors else _EMPTY)
        self._passes.end(recording=recording)

    def trained(self, turn: int) -> None:
        """The pass is trained on."""
        self._passes.trained(turn)

    def offer(self, batch: Any) -> None:
        """A batch left the host's loader: it stands in where the model's own forward is not called.

        Call it in the training thread, without autograd. It looks only where it has to.
        """
        if self._missing == _UNSEEN and not self._plan.plain:
            seen = self._look(batch)
            if seen.tensors and len(self._offered) < _MOST_PASSES:
                self._offered.append(seen)

    def _look(self, value: Any) -> _Batch:
        given: list[_Given] = []
        for name, tensor in named_tensors(value):
            given.append(
                _Given(
                    name,
                    list(tensor.shape),
                    str(tensor.dtype).removeprefix("torch."),
                    self._sketcher.sketch(tensor),
                    numbers(tensor.detach()) if self._armed and len(given) < _MOST_DESCRIBED else None,
                )
            )
        return _Batch(batch_size(value), given)

    def _note(self, missing: str) -> None:
        """What the coverage says; a new layout tells where that changes."""
        if missing != self._missing:
            self._missing = missing
            self.patient.version += 1

    def merge(self, frame: Frame) -> None:
        """Hand over what was trained on since the last optimizer step."""
        called, self._merged = self._passes.turn > self._merged, self._passes.turn
        if frame.sampled and not called and not frame.payloads.get(self.name):
            self._note(_UNSEEN)
        taken, source = self._passes.take(), "model"
        if not taken and self._offered:
            taken, source = self._offered, "batches"
        self._offered = []
        for batch in taken:
            tensors = [
                (
                    t.name,
                    t.shape,
                    t.dtype,
                    [frame.defer(part) for part in t.sketch],
                    None if t.numbers is None else frame.defer(t.numbers),
                )
                for t in batch.tensors
            ]
            frame.put(self.name, (source, batch.samples, tensors))

    def detach(self) -> None:
        """Drop everything."""
        self._passes.forget()
        self._offered = []

    def coverage(self) -> str:
        """Whether batches are seen."""
        return f"not seen: {self._missing}" if self._missing else "ok"

    @staticmethod
    def decode(payloads: list[Any], values: list[Values], frame: Frame) -> dict[str, Any]:
        """Fingerprint always; statistics and tokens on sampled steps."""
        passes = [
            digest([(shape, dtype, [values[s] for s in slots]) for _, shape, dtype, slots, _ in tensors])
            for _, _, tensors in payloads
        ]
        fields: dict[str, Any] = {"fingerprint": combined(passes)}
        if not frame.sampled:
            return fields
        counts = [_tokens(tensors) for _, _, tensors in payloads]
        if any(counts):
            fields["tokens"] = sum(counts)
        fields["inputs"] = _description(payloads, values)
        return fields


def named_tensors(value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors in a value that can be read, of any type, with their places; bounded."""
    found = 0
    keywords = getattr(value, "keywords", ())
    if keywords:  # the arguments of a call: by position, then by keyword
        first = len(value) - len(keywords)
        value = dict(zip([*range(first), *keywords], value, strict=True))
    for name, tensor in _walk(value, "", _DEPTH):
        if sketchable(tensor):
            yield name, tensor
            found += 1
            if found == _MOST_TENSORS:
                return


def _walk(value: Any, name: str, depth: int) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield name, value
        return
    if depth == 0:
        return
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        inner = value.items()
    elif isinstance(value, (list, tuple)):
        inner = enumerate(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        inner = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
    for key, item in inner:
        yield from _walk(item, f"{name}.{key}" if name else str(key), depth - 1)


def _tokens(tensors: list[Any]) -> int:
    """Entries of the first tensor of a batch that looks like a sequence of ids."""
    for name, shape, dtype, _, _ in tensors:
        if len(shape) == 2 and dtype in _TOKENS and "label" not in name:
            return int(math.prod(shape))
    return 0


def _description(payloads: list[Any], values: list[Values]) -> dict[str, Any]:
    calls: dict[str, list[Call]] = {}
    for _, _, tensors in payloads:
        for name, shape, dtype, _, slot in tensors[:_MOST_DESCRIBED]:
            calls.setdefault(name, []).append((shape, dtype, _NONE if slot is None else values[slot]))
    tensors = [{"name": name, **described(of)} for name, of in calls.items()][:_MOST_DESCRIBED]
    fields: dict[str, Any] = {
        "passes": len(payloads),
        "nonfinite": sum(t.get("nonfinite", 0) for t in tensors),
        "tensors": tensors,
    }
    if payloads[0][1] is not None:
        fields["batch"] = payloads[0][1]
    more = max(len(given) for _, _, given in payloads) - _MOST_DESCRIBED
    if more > 0:
        fields["more"] = more
    if payloads[0][0] != "model":
        fields["source"] = payloads[0][0]
    return fields
