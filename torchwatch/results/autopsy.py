"""The autopsy as a value: what each examination said, or why it said nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from torchwatch.results.plain import plain

Severity = Literal["info", "warning", "critical"]
Status = Literal["done", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Remark:
    """One sentence that an examination has to say.

    Attributes:
        severity: how bad it is.
        text: what was found, with its number.
        fix: what to do about it; empty where there is nothing to do.
    """

    severity: Severity
    text: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one examination ended.

    Attributes:
        name: the examination's name, as in ``--examine``.
        title: its heading.
        status: ``done``; ``skipped``: it does not apply here; ``failed``: it raised.
        result: a dataclass of :mod:`torchwatch.results`; None unless done.
        reason: why it was skipped or failed, and what to do; empty when done.
        duration_s: how long it took (s).
    """

    name: str
    title: str
    status: Status
    result: Any = None
    reason: str = ""
    duration_s: float = 0.0


@dataclass(frozen=True, slots=True)
class About:
    """What was examined.

    Attributes:
        model: class of the model.
        parameters: number of its parameters.
        task: regression, binary, multiclass, multilabel or token.
        task_source: ``given``, or how it was inferred.
        samples: how many samples were examined.
        available: how many there were to choose from; None where the data have no length.
        inputs: shape of each input without the batch axis, by name.
        main: the input that is attributed and ablated.
        axes: names of the main input's axes, without the batch axis.
        targets: shape of the targets without the batch axis; None where there are none.
        device: where it ran.
        seed: of the subset and all random draws.
        duration_s: of the whole autopsy (s).
        remarks: what was noticed while samples were taken.
    """

    model: str
    parameters: int
    task: str
    task_source: str
    samples: int
    available: int | None
    inputs: dict[str, tuple[int, ...]]
    main: str
    axes: tuple[str, ...]
    targets: tuple[int, ...] | None
    device: str
    seed: int
    duration_s: float = 0.0
    remarks: tuple[Remark, ...] = ()


@dataclass(frozen=True, slots=True)
class Autopsy:
    """All outcomes, in the order in which they were examined.

    ``autopsy["ablation"]`` is the result of an examination, or raises :class:`KeyError` with the reason why
    there is none.
    """

    about: About
    outcomes: tuple[Outcome, ...] = field(default=())

    def __getitem__(self, name: str) -> Any:
        for outcome in self.outcomes:
            if outcome.name == name:
                if outcome.status != "done":
                    raise KeyError(f"{name}: {outcome.reason}")
                return outcome.result
        raise KeyError(f"{name} was not examined")

    def __contains__(self, name: object) -> bool:
        return any(o.name == name and o.status == "done" for o in self.outcomes)

    def __iter__(self) -> Iterator[str]:
        return (o.name for o in self.outcomes if o.status == "done")

    @property
    def verdict(self) -> Any:
        """Result of the verdict; None where it was not reached."""
        return next((o.result for o in self.outcomes if o.name == "verdict" and o.status == "done"), None)

    def as_json(self) -> dict[str, Any]:
        """Strict JSON values: one entry per examination that was done, and what was not and why."""
        done = {o.name: plain(o.result) for o in self.outcomes if o.status == "done"}
        left = [
            {"examination": o.name, "status": o.status, "reason": o.reason}
            for o in self.outcomes
            if o.status != "done"
        ]
        durations = {o.name: round(o.duration_s, 3) for o in self.outcomes}
        return {**done, "about": plain(self.about), "not_examined": left, "duration_s": durations}
