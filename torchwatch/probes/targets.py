"""What the model is trained to say, where a loss of ``torch.nn.functional`` shows it. Sampled steps only.

``torch.nn.CrossEntropyLoss`` and its like call these functions, so they are seen as well; a function that was
imported by name, and losses written otherwise, are not. Only passes that were trained on count.

Keys of ``targets``:

* ``loss``: the function that was called first: ``cross_entropy``, ``nll_loss``, ``binary_cross_entropy``,
  ``binary_cross_entropy_with_logits``, ``mse_loss``, ``l1_loss``, ``smooth_l1_loss`` or ``huber_loss``. What
  follows is over all its calls in the step (at most 64);
* ``calls``: how many these were;
* ``others``: other functions of the list that were called as well, left out where there were none;
* ``shape`` and ``dtype`` of the target (of the first call), ``predictions``: shape of the model's side;
* ``low`` and ``high``: range of the target; of class indices those that are not ``ignore_index``;
* of a floating target ``mean``, ``std`` (of the population), ``absmax``, ``nonfinite`` (a count);
* of class indices ``ignored`` (a count) and ``largest_share``: entries of the most frequent class over all
  that are not ignored, of up to 65,536 evenly spaced entries, mean over calls; left out beyond 131,072
  classes;
* of the first two losses ``classes``: classes that the predictions are made for;
* of ``cross_entropy`` ``rows_sum_to_one``: whether up to 64 evenly spaced rows of the predictions were all
  non-negative and summed to 1 ± 1e-4 (± 1e-2 in half precision): then they are probabilities, not logits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeGuard

import numpy as np
import torch

from torchwatch.config import WatchConfig
from torchwatch.patient import Patient
from torchwatch.probe import Frame, Probe, Values
from torchwatch.probes import _functional
from torchwatch.probes._fingerprint import sketchable
from torchwatch.probes._passes import Passes
from torchwatch.probes._values import described, numbers
from torchwatch.schedule import Plan

_MOST_CALLS = 64
_MOST_ENTRIES = 1 << 16
_MOST_CLASSES = 1 << 17
_LARGEST = torch.iinfo(torch.int64).max
_ROWS = 64
_PLACES = 8
_CLASSIFYING = ("cross_entropy", "nll_loss")
_NONE: Values = np.empty(0)
_UNSEEN = "not seen: no loss of torch.nn.functional was called"


@dataclass(slots=True, eq=False)
class _Call:
    """One call of a loss: plain facts, and numbers on the device."""

    loss: str
    facts: dict[str, Any]
    target: torch.Tensor | None
    classes: torch.Tensor | None
    rows: torch.Tensor | None


class TargetProbe(Probe):
    """Targets of loss functions, observed while a sampled step is in progress.

    Args:
        observing: makes a method an observer that functions of torch may call.
    """

    name: ClassVar[str] = "targets"
    writes: ClassVar[tuple[str, ...]] = ("targets",)

    def __init__(
        self, observing: Callable[[str], Callable[[Callable[..., None]], Callable[..., None]]]
    ) -> None:
        self._observing = observing
        self._passes: Passes[_Call] = Passes(_MOST_CALLS)
        self._inside = False
        self._recorded = 0
        self._seen = self._available = False

    def attach(self, patient: Patient, config: WatchConfig) -> None:
        """Nothing is observed before the first sampled step."""
        super().attach(patient, config)
        self._observer = self._observing(self.name)(self.saw)

    def arm(self, plan: Plan) -> None:  # noqa: ARG002
        """Observe."""
        found = [function.observe(self._observer) for function in _functional.LOSSES]
        self._available = any(found)

    def disarm(self) -> None:
        """The last watcher puts torch's own functions back."""
        for function in _functional.LOSSES:
            function.leave(self._observer)
        self._inside = False

    def model_starts(self, args: tuple[Any, ...], *, recording: bool) -> None:  # noqa: ARG002
        """A loss that is computed from now on is the model's own."""
        self._inside = recording

    def model_ran(self, args: tuple[Any, ...], output: Any, *, recording: bool) -> None:  # noqa: ARG002
        """A loss that is computed from now on is of this pass, if it can be trained on."""
        self._inside = False
        if recording:
            self._recorded = self._passes.turn
        self._passes.end(recording=recording)

    def trained(self, turn: int) -> None:
        """The pass is trained on, and so are its losses."""
        self._passes.trained(turn)

    def saw(self, loss: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """A loss was computed; it is of interest if it has a gradient."""
        prediction = args[0] if args else kwargs.get("input")
        target = args[1] if len(args) > 1 else kwargs.get("target")
        if not (_readable(prediction) and _readable(target)) or not getattr(result, "requires_grad", False):
            return
        ignored = kwargs.get("ignore_index", args[4] if loss in _CLASSIFYING and len(args) > 4 else -100)
        self._passes.add(
            _call(loss, prediction.detach(), target.detach(), ignored),
            self._passes.turn if self._inside else self._recorded,
        )
        if not self._seen:
            self._seen = True
            self.patient.version += 1

    def merge(self, frame: Frame) -> None:
        """Hand over what was trained on since the last optimizer step."""
        for call in self._passes.take():
            slots = [None if t is None else frame.defer(t) for t in (call.target, call.classes, call.rows)]
            frame.put(self.name, (call.loss, call.facts, *slots))

    def detach(self) -> None:
        """Put everything back."""
        self.disarm()
        self._passes.forget()

    def coverage(self) -> str:
        """Whether targets are seen."""
        if not self._available:
            return "unavailable: the losses of torch.nn.functional cannot be observed"
        return "ok" if self._seen else _UNSEEN

    @staticmethod
    def decode(payloads: list[Any], values: list[Values], frame: Frame) -> dict[str, Any]:  # noqa: ARG004
        """One map for the function that was called first."""
        first = payloads[0][0]
        calls = [
            (facts, *(_NONE if slot is None else values[slot] for slot in slots))
            for loss, facts, *slots in payloads
            if loss == first
        ]
        others = sorted({loss for loss, *_ in payloads} - {first})
        facts = calls[0][0]
        fields: dict[str, Any] = {"loss": first, "calls": len(calls)}
        if others:
            fields["others"] = others
        fields |= described([(f["shape"], f["dtype"], target) for f, target, _, _ in calls])
        fields["predictions"] = facts["predictions"]
        if "classes" in facts:
            fields["classes"] = facts["classes"]
        fields |= _of_classes([classes for _, _, classes, _ in calls if classes.size])
        rows = [(f["tolerance"], r) for f, _, _, r in calls if r.size]
        if rows:
            fields["rows_sum_to_one"] = all(bool(r[0] >= 0 and r[1] <= tolerance) for tolerance, r in rows)
        return {"targets": fields}


def _readable(value: Any) -> TypeGuard[torch.Tensor]:
    return isinstance(value, torch.Tensor) and sketchable(value) and value.numel() > 0


def _call(loss: str, prediction: torch.Tensor, target: torch.Tensor, ignored: Any) -> _Call:
    facts: dict[str, Any] = {
        "shape": list(target.shape),
        "dtype": str(target.dtype).removeprefix("torch."),
        "predictions": list(prediction.shape),
        "tolerance": 1e-4 if prediction.dtype in (torch.float32, torch.float64) else 1e-2,
    }
    if loss not in _CLASSIFYING:
        return _Call(loss, facts, numbers(target), None, None)
    facts["classes"] = classes = prediction.shape[min(1, prediction.dim() - 1)]
    rows = row_sums(prediction) if loss == "cross_entropy" and classes > 1 else None
    if target.is_floating_point():
        return _Call(loss, facts, numbers(target), None, rows)
    return _Call(loss, facts, None, class_counts(target, classes, ignored), rows)


def class_counts(target: torch.Tensor, classes: int, ignored: int) -> torch.Tensor:
    """[min, max, ignored, entries, looked at, of the most frequent class]; whole numbers, shape (6,).

    The last two are of up to 65,536 evenly spaced entries that are not ignored.
    """
    flat = target.reshape(-1).to(torch.int64)
    valid = flat != ignored
    low = flat.where(valid, _LARGEST).amin()
    high = flat.where(valid, -_LARGEST).amax()
    count = valid.sum()
    looked = most = torch.zeros_like(count)
    if classes <= _MOST_CLASSES:
        step = -(-flat.numel() // _MOST_ENTRIES)
        # what is ignored, or is no class, counts in a place of its own
        inside = valid[::step] & (flat[::step] >= 0) & (flat[::step] < classes)
        places = flat[::step].where(inside, classes)
        counts = torch.zeros(classes + 1, dtype=torch.int64, device=flat.device)
        counts = counts.scatter_add_(0, places, torch.ones_like(places))[:classes]
        looked, most = counts.sum(), counts.max()
    return torch.stack([low, high, flat.numel() - count, count, looked, most])


def row_sums(prediction: torch.Tensor) -> torch.Tensor:
    """[min, max |Σ − 1|] over up to 64 evenly spaced rows and 8 places of each further axis. Shape (2,)."""
    rows = prediction if prediction.dim() > 1 else prediction.unsqueeze(0)
    rows = rows[:: -(-rows.shape[0] // _ROWS)]
    for axis in range(2, rows.dim()):
        rows = rows[(slice(None),) * axis + (slice(None, None, -(-rows.shape[axis] // _PLACES)),)]
    rows = rows if rows.dtype in (torch.float32, torch.float64) else rows.float()
    return torch.stack([rows.amin(), (rows.sum(1) - 1).abs().amax()])


def _of_classes(calls: list[Values]) -> dict[str, Any]:
    if not calls:
        return {}
    table = np.array(calls)
    fields: dict[str, Any] = {"ignored": int(table[:, 2].sum())}
    some = table[table[:, 3] > 0]
    if some.size:
        fields |= {"low": int(some[:, 0].min()), "high": int(some[:, 1].max())}
    looked = table[table[:, 4] > 0]
    if looked.size:
        fields["largest_share"] = float((looked[:, 5] / looked[:, 4]).mean())
    return fields
