"""compute-inefficient-layer: few parameters that take much of the time."""

import torch
from torch import nn

from tests.checks.windows import profiled, train_and_profile
from tests.helpers_checks import assert_fires, assert_quiet
from torchwatch.diagnosis import diagnose

SLUG = "compute-inefficient-layer"


def run(kind="Conv2d", parameters=20, share=0.4, rest=980):
    return profiled({"conv": (kind, parameters, share), "fc": ("Linear", rest, 1 - share)})


def test_fires_on_the_layer():
    alert = assert_fires(SLUG, run(), layer="conv", severity="info", since=(58, 58))
    assert alert.title == "2 % of the parameters take 40 % of the time"
    assert alert.value == 20


def test_near_misses():
    assert_quiet(SLUG, run(parameters=41, rest=959))
    assert_quiet(SLUG, run(parameters=1, rest=999, share=0.09))


def test_near_miss_nothing_to_spare():
    assert_quiet(SLUG, run("ReLU", parameters=0))
    assert_quiet(SLUG, run("BatchNorm2d"))


def test_limits():
    assert_quiet(SLUG, run(), limits={"factor": 30.0})
    assert_fires(SLUG, run(parameters=1, rest=999, share=0.09), limits={"compute": 0.05})


def test_a_real_net_with_a_convolution_at_full_resolution(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 10),
    )  # fmt: skip
    train_and_profile(model, torch.randn(32, 3, 48, 48), tmp_path / "run.jsonl")
    found = diagnose(tmp_path / "run.jsonl")
    assert "2" in {i.layer for i in found.issues if i.check == SLUG}
    assert found.replay_matches
