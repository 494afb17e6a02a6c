"""The GPU slows itself down because it is too hot or short of power.

What it detects
    In every reading of the last 10 s NVML names a thermal slowdown or a power brake on a GPU of this process,
    or the GPU is at 85 °C or more. Reaching the power limit that is set for the card is normal under load and
    not counted.

Why it matters
    Clocks fall to a half or less, and in a distributed run every rank waits for the hot one.

What to do
    Air flow, dust, fans, the neighbours in the same chassis; a power brake comes from the supply. Until then
    a lower power limit (``nvidia-smi -pl``) often trains faster than throttling does.

When it is fine
    Some laptops and actively cooled cards are made to run at 85 °C and above without slowing down: raise
    ``temperature_c`` for them, or set it to 0, which leaves the slowdowns alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks._readings import number_of, of_gpus, recent, slowdowns, used_gpus

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from torchwatch.history import History
    from torchwatch.records import System


@dataclass(frozen=True)
class Limits:
    """When throttling is reported.

    Attributes:
        seconds: how long every reading must say so (seconds).
        temperature_c: temperature from which a GPU is too hot; 0: only slowdowns count (°C).
    """

    seconds: float = 10.0
    temperature_c: float = 85.0


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, about the GPU with the highest temperature."""
    indices = used_gpus(history)
    if not indices:
        return NotReady("the model is not on a GPU")
    if not _throttled(history.systems[-1], indices, limits):
        return []
    records = recent(history, limits.seconds)
    if records is None:
        return NotReady(f"needs {limits.seconds:g} s of readings")
    always = frozenset.intersection(*(frozenset(_throttled(r, indices, limits)) for r in records))
    if not always:
        return []
    last = _throttled(records[-1], indices, limits)
    index = max(sorted(always), key=lambda i: number_of(last[i], "temperature_c") or 0.0)
    return [_finding(index, last[index], records[0].step, limits)]


def _throttled(record: System, indices: frozenset[int], limits: Limits) -> dict[int, Mapping[str, Any]]:
    """The GPUs that slow down or are too hot, by index."""
    return {g["index"]: g for g in of_gpus(record, indices) if slowdowns(g) or _is_hot(g, limits)}


def _is_hot(gpu: Mapping[str, Any], limits: Limits) -> bool:
    temperature = number_of(gpu, "temperature_c")
    return bool(limits.temperature_c) and temperature is not None and temperature >= limits.temperature_c


def _finding(index: int, gpu: Mapping[str, Any], since_step: int, limits: Limits) -> Finding:
    reasons, temperature = slowdowns(gpu), number_of(gpu, "temperature_c")
    heat = "" if temperature is None else f" at {temperature:.0f} °C"
    return Finding(
        title=f"GPU {index} slows down{heat}" if reasons else f"GPU {index} is{heat}",
        since_step=since_step,
        detail=f"In every reading of the last {limits.seconds:g} s"
        + (f": {', '.join(reasons)}." if reasons else f" at {limits.temperature_c:g} °C or more."),
        metric="gpus.temperature_c",
        value=temperature,
        threshold=limits.temperature_c or None,
    )


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.SYSTEM,
    cause=Cause.OTHER,
    when=frozenset({On.SYSTEM}),
    reads=("gpus",),
    limits=Limits(),
    find=find,
    fix="Improve the cooling, look at the power supply, or lower the card's power limit.",
    snippet="nvidia-smi -q -d PERFORMANCE,TEMPERATURE",
    resolve_after=10,
)
