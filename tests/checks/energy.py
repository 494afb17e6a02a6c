"""Hand-made runs that know their energy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.helpers_checks import records
from torchwatch.records import Record, RunHeader


def metered(
    val: list[float] | None = None,
    *,
    epochs: int = 10,
    joules: Any = 360.0,
    source: str = "estimated",
    country: str | None = None,
    samples: int | None = 32,
    others: Mapping[str, list[float]] | None = None,
) -> list[Record]:
    """Epochs of 20 steps of a second, each an interval that used so many joules and 1/1000 g of CO2 each.

    ``val`` is the validation loss after each epoch, ``others`` more metrics.
    """
    epochs = len(val) if val is not None else epochs
    table = {"val_loss": val, **(others or {})}
    evals = {
        20 * (i + 1): {name: values[i] for name, values in table.items() if values is not None}
        for i in range(epochs)
    }

    def energy(index: int) -> float | None:
        return joules(index) if callable(joules) else joules

    def co2(index: int) -> float | None:
        amount = energy(index)
        return None if amount is None else amount * 1e-6

    fields = {
        "energy_j": energy,
        "co2_kg": co2,
        "energy_source": lambda i: None if energy(i) is None else source,
    }
    body = records(
        [2.0 / (1 + n / 50) for n in range(20 * epochs)], epoch_steps=20, interval_steps=20, samples=samples,
        step_time_s=1.0, intervals=fields, evals=evals if any(evals.values()) else None,
    )  # fmt: skip
    assert isinstance(body[0], RunHeader)
    body[0].config["country"] = country
    return body
