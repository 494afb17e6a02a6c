"""over-parameterized-layer: many parameters that do little work."""

import torch
from torch import nn

from tests.checks.windows import profiled, train_and_profile
from tests.helpers_checks import assert_fires, assert_quiet
from torchwatch.diagnosis import diagnose

SLUG = "over-parameterized-layer"


def run(kind="Linear", parameters=900, share=0.05, rest=100):
    return profiled({"conv": ("Conv2d", rest, 1 - share), "fc": (kind, parameters, share)})


def test_fires_on_the_layer():
    alert = assert_fires(SLUG, run(), layer="fc", severity="info", since=(58, 58))
    assert alert.title == "90 % of the parameters do 5 % of the work"
    assert alert.value == 18


def test_near_misses():
    assert_quiet(SLUG, run(share=0.1))
    assert_quiet(SLUG, run(parameters=49, rest=951, share=0.001))
    assert_fires(SLUG, run(parameters=49, rest=951, share=0.001), limits={"parameters": 0.04})


def test_near_miss_an_embedding_is_a_table():
    assert_quiet(SLUG, run("Embedding"))
    assert_quiet(SLUG, run("EmbeddingBag"))


def test_a_layer_that_takes_no_time_at_all():
    assert assert_fires(SLUG, run(share=0.0), layer="fc").value is None


def test_limits():
    assert_quiet(SLUG, run(), limits={"factor": 20.0})


def test_a_real_convolutional_net_with_a_flattened_head(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(),
        nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 12 * 12, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    train_and_profile(model, torch.randn(32, 1, 24, 24), tmp_path / "run.jsonl")
    found = diagnose(tmp_path / "run.jsonl")
    named = [i.layer for i in found.issues if i.check == SLUG]
    assert named == ["6"]
    assert found.replay_matches
