"""zero-gradient-layer: exactly zero, step after step."""

import dataclasses

import pytest
from torch import nn
from torch.nn import functional

from tests.helpers_checks import assert_fires, assert_quiet, layout, records, run_check
from tests.helpers_training import classes, trained

SLUG = "zero-gradient-layer"


def run(norms, steps=200, loss=1.0, **more):
    columns = {"grad_norms": norms, **more.pop("columns", {})}
    return records(loss, steps=steps, columns=columns, **more)


def cut(at, row=(0.0, 0.0, 1.0)):
    return lambda step: list(row) if step >= at else [1.0, 1.0, 1.0]


def test_fires_and_names_the_layer_nearest_to_the_loss():
    alert = assert_fires(SLUG, run(cut(120)), severity="warning", layer="1", since=(120, 120), by=150)
    assert "1 more layers before it (0)" in alert.detail


def test_chains_apart_are_told_apart():
    _, alerts = run_check(SLUG, run(cut(120, (0.0, 1.0, 0.0))))
    assert {a.layer for a in alerts} == {"0", "2"}


def test_a_whole_model_without_gradient():
    assert_fires(SLUG, run(cut(1, (0.0, 0.0, 0.0))), layer="2", since=(1, 1))


def test_gradients_that_stop_are_noted():
    assert_fires(SLUG, run(cut(120, (None, 1.0, 1.0))), severity="info", layer="0", since=(120, 120))


def test_quiet_on_small_gradients_and_on_layers_that_never_had_one():
    assert_quiet(SLUG, run([1e-30, 1.0, 1.0]))
    assert_quiet(SLUG, run([None, 1.0, 1.0]))


def test_layers_that_never_had_one_do_not_lengthen_a_chain():
    alert = assert_fires(SLUG, run([None, 0.0, 1.0]), layer="1")
    assert "more layers" not in alert.detail


def test_near_miss_one_gradient_among_twenty():
    assert_quiet(SLUG, run(lambda step: [0.0 if step % 19 else 1e-9, 1.0, 1.0]))
    assert_fires(SLUG, run(lambda step: [0.0 if step % 19 else 1e-9, 1.0, 1.0]), limits={"steps": 6})


def test_near_miss_the_layer_did_not_run():
    def rms(step):
        return [None if step >= 100 else 1.0, 1.0, 1.0]

    idle = run(cut(120, (0.0, 1.0, 1.0)), columns={"activations.rms": rms})
    assert_quiet(SLUG, idle)
    assert_fires(SLUG, idle, limits={"ran": 0}, layer="0")
    assert_fires(SLUG, run(cut(120, (0.0, 1.0, 1.0)), columns={"activations.rms": 1.0}), layer="0")


def test_near_miss_embeddings_and_frozen_layers():
    base = layout()
    embedding = dataclasses.replace(
        base, layers=[dataclasses.replace(x, type="Embedding") for x in base.layers]
    )
    frozen = dataclasses.replace(
        base, parameters=[dataclasses.replace(p, trainable=False) for p in base.parameters]
    )
    assert_quiet(SLUG, run(cut(120), layers=embedding))
    assert_fires(SLUG, run(cut(120), layers=embedding), limits={"embeddings": 0})
    assert_quiet(SLUG, run(cut(120), layers=frozen))


def test_near_miss_the_loss_is_at_its_floor():
    learnt = run(cut(120, (0.0, 0.0, 0.0)), loss=lambda i: 1.0 if i < 100 else 0.0)
    assert_quiet(SLUG, learnt)
    assert_fires(SLUG, learnt, limits={"converged_share": 0})


class Masked(nn.Module):
    """A mask between two layers, which can cover everything."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(20, 32), nn.Linear(32, 32), nn.Linear(32, 4)
        self.mask = 1.0

    def forward(self, x):
        hidden = functional.relu(self.first(x)) * self.mask
        return self.head(functional.relu(self.second(hidden)))


@pytest.mark.parametrize("covers", [True, False])
def test_a_real_run_with_a_mask_that_covers_everything(covers, tmp_path):
    batch = classes()

    def cover(model, step):
        model.mask = 0.0 if covers and step >= 100 else 1.0

    def loss(model, step):
        x, y = batch(step)
        return functional.cross_entropy(model(x), y)

    made = trained(tmp_path, Masked, loss, before=cover, steps=400)
    if covers:
        assert_fires(SLUG, made, severity="warning", layer="first", since=(100, 110))
    else:
        assert_quiet(SLUG, made)
