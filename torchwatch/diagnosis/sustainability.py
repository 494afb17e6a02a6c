"""What a run used, what of it came after it was at its best, and which layers did no work."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torchwatch.history.energy import total, until
from torchwatch.history.optimum import optimum

if TYPE_CHECKING:
    from torchwatch.history import History
    from torchwatch.records import Alert, End

_DEAD = ("dead-units", "zero-gradient-layer", "sparse-weights")
_VANISHING = ("vanishing-gradients",)
_FROZEN = ("frozen-output",)


@dataclass(frozen=True, slots=True)
class Sustainability:
    """What a run cost and what it could have done without; None: not measured.

    Attributes:
        optimal_step: step of the best validation (the loss, or a metric such as accuracy that was best
            later).
        optimal_epoch: its epoch, from 0.
        wasted_epochs: epochs after it.
        wasted_share: share of the run's steps after it (0 to 1).
        wasted_s: time after it (seconds).
        energy_wh: energy of the run (watt-hours).
        co2_g: CO2 of that energy (grams).
        source: ``measured``, ``estimated`` or ``mixed``.
        country: whose grid, three letters, or ``world``.
        wh_per_epoch: energy per epoch (watt-hours).
        co2_g_per_epoch: CO2 per epoch (grams).
        wh_per_1k_samples: energy per 1,000 samples of the intervals that know both (watt-hours).
        co2_g_per_1k_samples: CO2 per 1,000 samples of those (grams).
        wasted_wh: energy after the best validation (watt-hours).
        wasted_co2_g: CO2 after it (grams).
        dead_layers: layers with dead units, only zero gradients or empty weights.
        vanishing_layers: layers whose gradients vanished.
        frozen_layers: layers whose output does not depend on the input.
        redundant_layers: layers that do what the one before them does (``redundant-layers``).
    """

    optimal_step: int | None = None
    optimal_epoch: int | None = None
    wasted_epochs: int | None = None
    wasted_share: float | None = None
    wasted_s: float | None = None
    energy_wh: float | None = None
    co2_g: float | None = None
    source: str | None = None
    country: str | None = None
    wh_per_epoch: float | None = None
    co2_g_per_epoch: float | None = None
    wh_per_1k_samples: float | None = None
    co2_g_per_1k_samples: float | None = None
    wasted_wh: float | None = None
    wasted_co2_g: float | None = None
    dead_layers: tuple[str, ...] = ()
    vanishing_layers: tuple[str, ...] = ()
    frozen_layers: tuple[str, ...] = ()
    redundant_layers: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        told = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in told.items()}


def sustainability(history: History, end: End | None, issues: Iterable[Alert], epochs: int) -> Sustainability:
    """From what the checks saw, the end record and the issues; ``epochs``: how many ended."""
    found = tuple(issues)
    fields: dict[str, object] = {
        "dead_layers": _layers(found, _DEAD),
        "vanishing_layers": _layers(found, _VANISHING),
        "frozen_layers": _layers(found, _FROZEN),
        "redundant_layers": _layers(found, ("redundant-layers",)),
    }
    best = optimum(history)
    if best is not None:
        last, at = best.last_epoch, best.epoch
        fields |= {
            "optimal_step": best.step,
            "optimal_epoch": at,
            "wasted_epochs": None if last is None or at is None else max(last - at, 0),
            "wasted_share": best.wasted,
            "wasted_s": max(best.end_s - best.time_s, 0.0),
        }
    used = total(history)
    if used.wh > 0:
        samples = history.interval_sums("metered_samples").values
        thousands = float(samples[-1]) / 1000 if samples.size else 0.0
        fields |= {
            "energy_wh": used.wh,
            "co2_g": used.co2_g,
            "source": None if end is None else end.energy_source,
            "country": None if end is None else end.country,
            "wh_per_epoch": used.wh / epochs if epochs else None,
            "co2_g_per_epoch": used.co2_g / epochs if epochs else None,
            "wh_per_1k_samples": used.wh / thousands if thousands else None,
            "co2_g_per_1k_samples": used.co2_g / thousands if thousands else None,
        }
        if best is not None:
            before = until(history, best.step)
            fields |= {"wasted_wh": used.wh - before.wh, "wasted_co2_g": used.co2_g - before.co2_g}
    return Sustainability(**fields)  # type: ignore[arg-type]


def _layers(issues: Iterable[Alert], checks: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(i.layer for i in issues if i.check in checks and i.layer is not None))
