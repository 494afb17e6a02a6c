"""rank-collapse: outputs in few directions."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.helpers_checks import assert_fires, assert_quiet, records
from tests.helpers_training import classes, trained
from torchwatch.records import LayerInfo

SLUG = "rank-collapse"


def shape(batch=64, features=128):
    return [
        LayerInfo(str(i), "Linear", 256, order=i, inputs=[[batch, features]], outputs=[[batch, features]])
        for i in range(3)
    ]


def run(rank, layers=None, steps=600, **more):
    columns = {"activations.effective_rank": rank}
    return records(1.0, steps=steps, layers=layers or shape(), columns=columns, columns_every=100, **more)


def falls(at, to=4.0, which=(1,), start=40.0):
    return lambda step: [to if i in which and step >= at else start for i in range(3)]


def test_fires_as_an_info_with_its_numbers():
    alert = assert_fires(SLUG, run(falls(300)), severity="info", layer=None, since=(300, 300), by=400)
    assert alert.title == "The outputs of 1 span 4 of 64 directions"
    assert "At first it was 40" in alert.detail


def test_one_finding_for_several_layers():
    alert = assert_fires(SLUG, run(falls(300, which=(1, 2))))
    assert "Low in 2, too" in alert.detail


def test_quiet_above_a_tenth():
    assert_quiet(SLUG, run(falls(300, to=8.0)))


def test_near_miss_low_from_the_start():
    low = run(falls(300, to=4.0, start=8.0))
    assert_quiet(SLUG, low)
    assert_fires(SLUG, low, limits={"fell": 0})


def test_near_miss_one_measurement():
    once = run(lambda step: [40.0, 4.0 if step == 300 else 40.0, 40.0])
    assert_quiet(SLUG, once)
    assert_quiet(SLUG, once, limits={"fell": 0})
    assert_fires(SLUG, run(falls(600)), limits={"observations": 1})


def test_near_miss_few_directions_in_all():
    narrow = shape(features=12)
    assert_quiet(SLUG, run(falls(300, to=1.0, start=12.0), narrow))
    assert_fires(SLUG, run(falls(300, to=1.0, start=12.0), narrow), limits={"least": 0})


@pytest.mark.parametrize("negatives", [False, True])
def test_real_views_that_are_only_pulled_together(negatives, tmp_path):
    batch = classes()

    def loss(model, step):
        x = batch(step)[0]
        generator = torch.Generator().manual_seed(step)
        one, other = (model(x + 0.3 * torch.randn(x.shape, generator=generator)) for _ in range(2))
        if negatives:
            both = functional.normalize(one, dim=1) @ functional.normalize(other, dim=1).T
            return functional.cross_entropy(both / 0.2, torch.arange(len(x)))
        return functional.mse_loss(one, other)

    made = trained(
        tmp_path, lambda: nn.Sequential(nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 64)), loss, steps=250,
        activations_every=5, optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=5e-3),
    )  # fmt: skip
    if negatives:
        assert_quiet(SLUG, made)
    else:
        assert_fires(SLUG, made, severity="info")
