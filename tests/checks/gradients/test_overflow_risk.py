"""overflow-risk: half precision near its limit."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.helpers_checks import assert_fires, assert_quiet, layout, records, run_check
from tests.helpers_training import classes, trained

SLUG = "overflow-risk"


def run(headroom, steps=200, **more):
    columns = {"activations.headroom": headroom, **more.pop("columns", {})}
    return records(1.0, steps=steps, columns=columns, columns_every=10, **more)


def half(dtype="float16"):
    base = layout()
    return dataclasses.replace(
        base, parameters=[dataclasses.replace(p, dtype=dtype) for p in base.parameters]
    )


def rises(at, to=0.7, which=(1,)):
    return lambda step: [to if i in which and step >= at else 0.01 for i in range(3)]


def test_fires_with_layer_and_onset():
    alert = assert_fires(SLUG, run(rises(120)), severity="warning", layer="1", since=(120, 120), by=150)
    assert "70 %" in alert.title


def test_of_layers_in_a_row_the_first_is_named():
    _, alerts = run_check(SLUG, run(rises(120, which=(1, 2))))
    assert {a.layer for a in alerts} == {"1"}


def test_gradients_of_half_precision_weights_are_judged_as_they_lie_in_memory():
    columns = {"grad_absmax": [1.0, 1.0, 0.6]}
    scaled = run(0.01, columns=columns, layers=half(), grad_scale=65536.0)
    alert = assert_fires(SLUG, scaled, layer="2", since=(1, 1))
    assert alert.metric == "grad_absmax"
    assert_quiet(SLUG, run(0.01, columns=columns, layers=half(), grad_scale=32.0))
    assert_quiet(SLUG, run(0.01, columns=columns, layers=half("bfloat16"), grad_scale=65536.0))
    assert_quiet(SLUG, run(0.01, columns=columns, grad_scale=65536.0))


def test_quiet_with_room_to_spare():
    assert_quiet(SLUG, run([0.4, None, 0.1]))


def test_near_miss_once_in_an_interval():
    once = run(lambda step: [0.7 if step % 50 == 10 else 0.01] * 3)
    assert_quiet(SLUG, once)
    assert_fires(SLUG, once, limits={"observations": 1})


def test_near_miss_a_mask():
    assert_quiet(SLUG, run(rises(1, to=1.0)))
    assert_fires(SLUG, run(rises(1, to=1.0)), limits={"filled": 0})


@pytest.mark.parametrize("size", [1e4, 1.0])
def test_real_outputs_in_float16(size, tmp_path):
    batch = classes()

    def make():
        model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 4))
        nn.init.normal_(model[0].weight, std=0.27)
        return model

    def loss(model, step):
        x, y = batch(step)
        with torch.autocast("cpu", torch.float16):
            return functional.cross_entropy(model(x * size).float() / size, y)

    made = trained(
        tmp_path, make, loss, steps=150, optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.005)
    )
    if size > 1:
        assert_fires(SLUG, made, severity="warning", layer="0")
    else:
        assert_quiet(SLUG, made)
