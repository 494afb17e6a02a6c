"""Where the first NaN or infinity of a step appeared, from everything that was measured of the step.

A NaN runs forward through the layers into the loss, from there back into every gradient, and with the update
into the weights. So the first thing in that order that holds one is where it came in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from torchwatch.patient import Layer
from torchwatch.records import Column, is_bad

ROOT = -1
"""Stands for the model's own output among the layers that were summed."""

Key = int | str
"""What was summed: a layer's index, :data:`ROOT`, or the name of an input."""


@dataclass(slots=True, eq=False)
class Memory:
    """What is known from the steps before; touched by the recorder thread only.

    ``usual`` is what holds non-finite values although all is well (scores masked with −∞), ``harmless`` are
    parameters of that kind (tables filled with infinity), ``parameters`` those that were not finite after the
    step before.
    """

    layers: Sequence[Layer] = ()
    usual: set[Key] = field(default_factory=set)
    harmless: set[int] = field(default_factory=set)
    parameters: set[int] = field(default_factory=set)

    def is_of(self, layers: Sequence[Layer]) -> None:
        """Forget everything when the model is another one by now."""
        if layers is not self.layers:
            self.layers = layers
            self.usual, self.harmless, self.parameters = set(), set(), set()


@dataclass(slots=True, eq=False)
class Evidence:
    """What one step shows. Indices and keys are in the order in which the values came about.

    ``outputs`` are layers and inputs that held non-finite values, ``watched`` whether all layers were looked
    at, ``seen_by`` by whom. ``spread``: every gradient that was measured is bad. ``before`` and ``after`` are
    parameters that were not finite before the step, and those that it left so; ``harmless`` ones never told.
    """

    layers: Sequence[Layer]
    names: Sequence[str]
    owners: Sequence[int]
    loss: float | None
    outputs: list[Key]
    watched: bool
    seen_by: str
    gradients: list[int]
    spread: bool
    before: set[int]
    after: list[int]
    harmless: set[int]

    def origin(self) -> dict[str, Any] | None:
        """The value of ``first_nonfinite``; None where it cannot be told."""
        for key in self.outputs:
            return self._of_output(key)
        lost = self.loss is not None and not math.isfinite(self.loss)
        suspects = self.before - self.harmless
        if suspects and (lost or not self.watched):
            return self._parameter("parameter", min(suspects, key=self._called))
        if lost:
            return self._found("loss", "", None) if self.watched else None
        if self.gradients:
            known = self.watched or self.loss is not None or not self.spread
            first = max(self.gradients, key=lambda i: (*self._called(i), -i))
            return self._parameter("backward", first) if known else None
        after = [i for i in self.after if i not in self.harmless]
        fresh = [i for i in after if i not in self.before]
        if after:
            return self._parameter("optimizer" if fresh else "parameter", (fresh or after)[0])
        return None

    def _of_output(self, key: Key) -> dict[str, Any]:
        if isinstance(key, str):
            return self._found("input", key, None)
        if key == ROOT:
            return self._found("forward", "", None)
        owned = [i for i in self.layers[key].parameters if i in self.before]
        if owned:
            return self._parameter("parameter", owned[0])
        return self._found("forward", self.layers[key].name, self.layers[key].order)

    def _parameter(self, where: str, index: int) -> dict[str, Any]:
        return self._found(where, self.names[index], None)

    def _called(self, index: int) -> tuple[int, int]:
        """Place of a parameter's layer in the forward pass; one that was never called goes first."""
        layer = self.owners[index]
        order = self.layers[layer].order
        return (-1 if order is None else order, layer)

    def _found(self, where: str, name: str, order: int | None) -> dict[str, Any]:
        return {"where": where, "name": name, "order": order, "seen_by": self.seen_by}


def bad_entries(column: Column | None) -> list[int]:
    """Indices of the entries that were measured and are not finite."""
    return [] if column is None else np.flatnonzero(is_bad(column)).tolist()


def counted_entries(column: Column | None) -> list[int]:
    """Indices of the entries of a count that are not 0."""
    return [] if column is None else np.flatnonzero(column > 0).tolist()


def in_call_order(layers: Sequence[Layer], indices: Iterable[int]) -> list[int]:
    """Layers as they were first called; those never seen to be called come last."""

    def called(index: int) -> tuple[bool, int, int]:
        order = layers[index].order
        return (order is None, order or 0, index)

    return sorted((i for i in indices if i < len(layers)), key=called)
