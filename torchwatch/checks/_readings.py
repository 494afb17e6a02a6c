"""What the checks of the machine share: a stretch of `system` records, and the GPUs of this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torchwatch.history import History
    from torchwatch.records import System

_SLOWDOWNS = frozenset(
    {"hw_slowdown", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown"}
)


def recent(history: History, seconds: float) -> list[System] | None:
    """The readings of the last so many seconds, oldest first; None where the history is not as long yet."""
    systems = history.systems
    if not systems or systems[0].time_s > systems[-1].time_s - seconds:
        return None
    found = []
    for record in reversed(systems):
        if record.time_s < systems[-1].time_s - seconds:
            break
        found.append(record)
    return found[::-1]


def used_gpus(history: History) -> frozenset[int]:
    """Indices of the GPUs that this process trains on; empty where it uses none.

    As the header says where the parameters were. A model that came to a GPU later shows in the allocator's
    memory; then all visible GPUs count.
    """
    return history.cached("used-gpus", lambda: _used_gpus(history))


def _used_gpus(history: History) -> frozenset[int]:
    places = history.header.device.get("parameters_on")
    words = [str(p) for p in places] if isinstance(places, list) else []
    known = {word.partition(":")[2] or "0" for word in words if word.partition(":")[0] == "cuda"}
    if known:
        return frozenset(int(k) for k in known if k.isdigit())
    last = history.systems[-1] if history.systems else None
    if last is None or not last.cuda_allocated_bytes:
        return frozenset()
    return frozenset(index for g in last.gpus or () if isinstance(index := g.get("index"), int))


def of_gpus(record: System, indices: frozenset[int]) -> Sequence[Mapping[str, Any]]:
    """What a reading says of these GPUs."""
    return [g for g in record.gpus or () if g.get("index") in indices]


def slowdowns(gpu: Mapping[str, Any]) -> list[str]:
    """Why a GPU slows itself down: heat or a lack of power. Its power limit, normal under load, is none."""
    said = gpu.get("throttle")
    return sorted(_SLOWDOWNS.intersection(said)) if isinstance(said, list) else []


def number_of(gpu: Mapping[str, Any], key: str) -> float | None:
    """A number in a GPU's reading; None where there is none."""
    value = gpu.get(key)
    return float(value) if isinstance(value, (int, float)) else None
