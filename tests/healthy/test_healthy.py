from __future__ import annotations

import pytest

from tests.healthy.record import TRAININGS, record
from tests.helpers_replay import assert_live_equals_replay
from torchwatch.diagnosis import diagnose
from torchwatch.records import End, Epoch, Eval, Interval

_LOUD = ("warning", "critical")
_SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))]

_ALWAYS = {
    "activation-collapse", "dead-units", "exploding-gradients", "frozen-output", "gradient-nonfinite",
    "gradient-spike", "loss-divergence", "loss-explosion", "loss-nonfinite", "loss-plateau", "loss-spike",
    "missing-zero-grad", "no-learning", "no-op-step", "noisy-loss", "parameter-nonfinite", "throughput-drop",
    "unoptimized-parameters", "unused-parameters", "update-ratio", "vanishing-gradients",
    "zero-gradient-layer",
}  # fmt: skip
"""Checks that come to a verdict about every training: what is not run is not quiet."""


@pytest.mark.parametrize("seed", _SEEDS)
@pytest.mark.parametrize("name", TRAININGS)
def test_a_healthy_training_raises_no_warning(name, seed, tmp_path):
    path = tmp_path / f"{name}.jsonl"
    record(TRAININGS[name], path, seed)
    records = assert_live_equals_replay(path)
    found = diagnose(path)
    assert [f"{i.check} {i.layer}: {i.title}" for i in found.issues if i.severity in _LOUD] == []
    assert found.health_score >= 80
    assert records[-1].health_score == found.health_score
    _assert_long_enough(records)
    assert _ALWAYS.isdisjoint(found.not_run), {n: found.not_run[n] for n in _ALWAYS & set(found.not_run)}
    _assert_it_learnt(records)


def _assert_long_enough(records):
    """A run that ends before the checks are armed would be quiet whatever it does."""
    end = records[-1]
    assert isinstance(end, End)
    assert end.steps >= 300
    assert end.complete
    assert sum(isinstance(r, Interval) for r in records) >= 8
    assert sum(isinstance(r, Eval) for r in records) == sum(isinstance(r, Epoch) for r in records) >= 8


def _assert_it_learnt(records):
    """What was validated got better, so that "healthy" is true."""
    evals = [next(iter(r.metrics.values())) for r in records if isinstance(r, Eval)]
    assert evals[-1] < 0.9 * evals[0]
