"""compute-hotspot: one layer takes a large part of the time."""

import torch
from torch import nn

from tests.checks.windows import profiled, train_and_profile
from tests.helpers_checks import assert_fires, assert_quiet, records
from torchwatch.diagnosis import diagnose

SLUG = "compute-hotspot"


def run(*shares, **more):
    return profiled({str(i): ("Linear", 100, share) for i, share in enumerate(shares)}, **more)


def test_fires_on_the_layer():
    alert = assert_fires(
        SLUG, run(0.1, 0.2, 0.45, 0.15, 0.1), layer="2", severity="info", since=(58, 58), by=60
    )
    assert alert.title == "Linear takes 45 % of the layers' time"
    assert "150 ms forward and 300 ms backward in a step" in alert.detail


def test_near_misses():
    assert_quiet(SLUG, run(0.1, 0.2, 0.39, 0.2, 0.11))
    assert_quiet(SLUG, run(0.2, 0.5, 0.2, 0.1), ready=False)


def test_layers_around_others_are_none():
    """A module that owns parameters itself, with the layers that it calls inside."""
    nested = {
        "block": ("Block", 10, 0.5), **{f"block.{i}": ("Linear", 100, 0.1) for i in range(5)},
    }  # fmt: skip
    assert_quiet(SLUG, profiled(nested))


def test_not_run_without_a_profile():
    engine = assert_quiet(SLUG, records([1.0] * 60), ready=False)
    assert engine.not_run()[SLUG] == "no `profile`"


def test_limits():
    assert_quiet(SLUG, run(0.1, 0.2, 0.45, 0.15, 0.1), limits={"share": 0.5})
    assert_fires(SLUG, run(0.2, 0.5, 0.2, 0.1), limits={"layers": 4})


def test_a_window_that_holds_nothing():
    for rows in (None, [3, {"name": "0"}, {"name": "0", "share": None}]):
        assert_quiet(SLUG, profiled({"0": ("Linear", 1, 0.5)}, rows=rows, forward_s=None), ready=False)


def test_a_real_model_with_one_large_layer(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 512), nn.ReLU(), nn.Linear(512, 4096), nn.ReLU(), nn.Linear(4096, 8), nn.Tanh()
    )
    train_and_profile(model, torch.randn(128, 8), tmp_path / "run.jsonl")
    found = diagnose(tmp_path / "run.jsonl")
    assert [i.layer for i in found.issues if i.check == SLUG] == ["2"]
    assert found.replay_matches
