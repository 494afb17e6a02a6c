"""activation-explosion: outputs out of all proportion."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.helpers_checks import assert_fires, assert_quiet, records, run_check
from tests.helpers_training import noise, trained
from torchwatch.records import LayerInfo

SLUG = "activation-explosion"


def run(rms, loss=1.0, steps=300, **more):
    columns = {"activations.rms": rms}
    return records(loss, steps=steps, columns=columns, columns_every=10, **more)


def grows(at=151, to=5000.0, which=(1,), start=1.0):
    return lambda step: [to if i in which and step >= at else start for i in range(3)]


def test_fires_with_layer_and_onset():
    alert = assert_fires(SLUG, run(grows()), severity="warning", layer="1", since=(151, 151), by=200)
    assert alert.title == "The output of 1 has grown 5000 times"


def test_of_layers_in_a_row_the_first_is_named():
    _, alerts = run_check(SLUG, run(grows(which=(0, 1, 2))))
    assert {a.layer for a in alerts} == {"0"}


def test_quiet_below_a_thousand():
    assert_quiet(SLUG, run(grows(to=900.0)))


def test_near_miss_it_began_near_zero():
    small = run(lambda step: [1.0, 1e-6 if step < 20 else 20.0, 1.0])
    assert_quiet(SLUG, small)
    other = [
        LayerInfo(str(i), kind, 256, order=i, inputs=[[8, 4]], outputs=[[8, 4]])
        for i, kind in enumerate(("Linear", "Conv2d", "Linear"))
    ]
    assert_fires(SLUG, run(lambda step: [1.0, 1e-6 if step < 20 else 20.0, 1.0], layers=other), layer="1")


def test_near_miss_small_in_any_case():
    assert_quiet(SLUG, run(grows(to=5.0, start=1e-3)))
    assert_fires(SLUG, run(grows(to=5.0, start=1e-3)), limits={"least": 0})


def test_near_miss_the_loss_is_at_its_best():
    learns = run(grows(), loss=lambda i: 3.0 - i / 200)
    assert_quiet(SLUG, learns, allow_info=True)
    assert_fires(SLUG, learns, severity="info")
    assert_fires(SLUG, learns, severity="warning", limits={"best_loss": 0})


@pytest.mark.parametrize("rate", [0.3, 1e-3])
def test_a_real_loss_that_does_not_see_the_size(rate, tmp_path):
    batch = noise()

    def loss(model, step):
        x, y = batch(step)
        return functional.cross_entropy(functional.normalize(model(x), dim=1), y)

    made = trained(
        tmp_path, lambda: nn.Sequential(*(nn.Linear(20, 20) for _ in range(3))), loss, steps=150,
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=rate),
    )  # fmt: skip
    if rate > 0.1:
        assert_fires(SLUG, made, severity="warning", layer="2")
    else:
        assert_quiet(SLUG, made)
