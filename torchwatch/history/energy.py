"""Energy and CO2 in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from torchwatch.text import number

if TYPE_CHECKING:
    from torchwatch.history import History

Values = npt.NDArray[np.float64]

J_PER_WH = 3600.0
G_PER_KG = 1000.0


class Amount(NamedTuple):
    """Energy (watt-hours) and CO2 (grams)."""

    wh: float
    co2_g: float

    def words(self) -> str:
        """For people: ``12.3 Wh and 5.84 g of CO2``."""
        return f"{number(self.wh)} Wh and {number(self.co2_g)} g of CO2"


def total(history: History) -> Amount:
    """What the intervals used that know it."""
    return Amount(*(float(v[-1]) if v.size else 0.0 for v in _sums(history)))


def until(history: History, step: int) -> Amount:
    """What was used up to the last interval that ended at or before a step."""
    steps = history.interval_sums("energy_j").steps
    at = int(steps.searchsorted(step, side="right")) - 1
    return Amount(*(float(v[at]) if at >= 0 else 0.0 for v in _sums(history)))


def _sums(history: History) -> tuple[Values, Values]:
    return (
        history.interval_sums("energy_j").values / J_PER_WH,
        history.interval_sums("co2_kg").values * G_PER_KG,
    )


def origin(history: History) -> str:
    """Where the numbers are from: measured, estimated or both, and for which country."""
    sources = {i.energy_source for i in history.intervals if i.energy_source is not None}
    source = sources.pop() if len(sources) == 1 else "mixed"
    words = {"measured": "Measured", "estimated": "Estimated", "mixed": "Partly measured, partly estimated"}
    country = history.header.config.get("country")
    place = (
        f"{country.upper()}'s grid" if isinstance(country, str) and country else "the world's average grid"
    )
    return f"{words.get(source, 'Estimated')}; CO2 for {place}"
