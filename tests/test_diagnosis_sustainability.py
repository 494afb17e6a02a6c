"""What a run used and what of it was in vain, from hand-made records."""

from __future__ import annotations

import dataclasses

import pytest

from tests.helpers_checks import records
from torchwatch.diagnosis import Sustainability, diagnose
from torchwatch.records import End, Interval, LayerInfo, Record


def metered(lines: list[Record], joules: float = 3600.0) -> list[Record]:
    """Every interval uses one watt-hour and half a gram of CO2."""
    told = {"energy_j": joules, "co2_kg": 5e-4, "energy_source": "estimated"}
    return [dataclasses.replace(r, **told) if isinstance(r, Interval) else r for r in lines]


def run(**more: object) -> list[Record]:
    """Four epochs of 100 steps with 32 samples each; the second validation is the best."""
    losses = {100: 1.0, 200: 0.5, 300: 0.6, 400: 0.7}
    lines = records(
        loss=[1.0 / n for n in range(1, 401)],
        epoch_steps=100,
        samples=32,
        evals={step: {"val_loss": loss} for step, loss in losses.items()},
        **more,
    )
    return [*lines, End(step=400, time_s=80.0, energy_source="estimated", country="world")]


def test_the_optimum_and_what_came_after_it() -> None:
    used = diagnose(run()).sustainability
    assert (used.optimal_step, used.optimal_epoch, used.wasted_epochs) == (200, 1, 2)
    assert used.wasted_share == 0.5
    assert used.wasted_s is not None
    assert used.wasted_s > 0
    assert used.energy_wh is None, "not measured is not zero"


def test_energy_per_epoch_and_after_the_optimum() -> None:
    used = diagnose(metered(run())).sustainability
    intervals = sum(isinstance(r, Interval) for r in run())
    assert used.energy_wh == pytest.approx(intervals)
    assert used.co2_g == pytest.approx(0.5 * intervals)
    assert used.wh_per_epoch == pytest.approx(intervals / 4)
    assert used.wasted_wh == pytest.approx(intervals / 2)
    assert (used.source, used.country) == ("estimated", "world")


def test_without_evaluations_nothing_is_said_of_an_optimum() -> None:
    used = diagnose(records(loss=[1.0 / n for n in range(1, 101)])).sustainability
    assert used == Sustainability()


def test_layers_that_did_no_work_are_named() -> None:
    dead = {"activations.dead_fraction": [0.0, 0.9, 0.0]}
    body = records(
        loss=[1.0 / n for n in range(1, 201)],
        columns=dead,
        layers=[
            LayerInfo("0", "Linear", 256, order=0, outputs=[[64, 16]]),
            LayerInfo("1", "ReLU", 0, order=1, outputs=[[64, 16]]),
            LayerInfo("2", "Linear", 256, order=2, outputs=[[64, 16]]),
        ],
        samples=64,
    )
    found = diagnose(body)
    named = {i.layer for i in found.issues if i.check == "dead-units"}
    assert named
    assert set(found.sustainability.dead_layers) == named
    assert found.arch_type == "generic"
    assert all(i.layer is None for i in found.session_issues)
