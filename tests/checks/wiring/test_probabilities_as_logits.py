"""probabilities-as-logits: a softmax before cross-entropy."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.checks.wiring.trainings import Fit, alerts, loud, net, opened, said
from tests.helpers_checks import assert_fires, assert_quiet, layout, records, run_check
from torchwatch.records import LayerInfo

SLUG = "probabilities-as-logits"
FLOOR = math.log(math.e + 9) - 1


def seen(until=60, first=1, every=1, **more):
    """A run in whose sampled steps from ``first`` to ``until`` rows sum to 1."""

    def targets(step):
        summed = first <= step <= until
        due = step % every == 0 or step == 1
        return (
            {"loss": "cross_entropy", "classes": 10, "rows_sum_to_one": summed, "low": step} if due else None
        )

    return records(steps=60, targets=targets, **more)


def test_fires_at_the_third_step():
    alert = assert_fires(SLUG, seen(), severity="warning", layer=None, since=(1, 1), by=3)
    assert "10 classes keeps the loss above 1.461" in alert.detail


def test_fires_on_sampled_steps_and_within_a_line_of_many_steps():
    assert_fires(SLUG, seen(first=15, every=10), since=(20, 20), by=40)
    assert_fires(SLUG, seen(batched=30), since=(1, 1), by=30)


def test_quiet_on_logits_and_on_other_losses():
    assert_quiet(SLUG, seen(until=0))
    assert_quiet(SLUG, records(steps=60, targets=lambda step: {"loss": "mse_loss", "low": step}))


def test_near_miss_two_steps():
    assert_quiet(SLUG, seen(until=2))
    assert_fires(SLUG, seen(until=2), limits={"looks": 2})


def test_resolved_when_logits_come():
    _, found = run_check(SLUG, seen(until=20))
    assert [a.state for a in found] == ["opened", "resolved"]


# ------------------------------------------------------------------------------------------ the floor


def ending(kind="Softmax", width=10):
    """A model whose last layer is of this kind; the loss function is not seen."""
    return layout(["0", LayerInfo("1", kind, 0, order=9, outputs=[[32, width]])])


def resting(at, steps=120, shape=None, **more):
    return records([at(i) for i in range(steps)], layers=shape or ending(), **more)


def wiggle(i):
    return FLOOR + 0.02 * (1 + math.sin(i))


def test_a_loss_at_the_floor_of_a_model_that_ends_in_a_softmax_is_noted():
    alert = assert_fires(SLUG, resting(wiggle), severity="info", since=(1, 1), by=100)
    assert alert.threshold == pytest.approx(FLOOR)


@pytest.mark.parametrize(
    "near",
    [
        resting(lambda i: wiggle(i) - 0.02),
        resting(lambda i: wiggle(i) + 0.1),
        resting(lambda i: wiggle(i) + (0.5 if i % 40 == 0 else 0.0)),
        resting(wiggle, shape=ending(width=11)),
        resting(wiggle, shape=ending("Linear")),
        resting(lambda _: 0.0, shape=ending(width=1)),
    ],
    ids=["below", "above", "not always", "other classes", "no softmax", "one class"],
)
def test_near_misses_of_the_floor(near):
    assert_quiet(SLUG, near)


def test_limits_of_the_floor():
    assert_quiet(SLUG, resting(wiggle, steps=99), ready=False)
    assert_quiet(SLUG, resting(wiggle), limits={"floor_steps": 0}, ready=False)
    assert_quiet(SLUG, resting(wiggle), limits={"above": 0.001})
    assert_fires(SLUG, resting(wiggle, shape=ending("Linear")), limits={"softmax": 0})


# ------------------------------------------------------------------------------------------ real trainings


def looked_up(p, y):
    """A function that was imported by name is not seen."""
    return functional.cross_entropy(p, y)


@pytest.mark.parametrize("criterion", [looked_up, nn.CrossEntropyLoss()])
def test_a_softmax_at_the_end(tmp_path, criterion):
    model = net(end=nn.Softmax(1))
    body = Fit(model, loss=lambda model, x, y: criterion(model(x), y))
    alert = opened(alerts(tmp_path / "r.jsonl", model, body), SLUG)
    assert (alert.severity, alert.since_step) == ("warning", 1)
    assert alert.step <= 5


def test_quiet_on_its_twins(tmp_path):
    model = net()
    assert loud(alerts(tmp_path / "a.jsonl", model, Fit(model))) == []
    model = net(end=nn.LogSoftmax(1))
    body = Fit(model, loss=lambda model, x, y: functional.cross_entropy(model(x), y))
    assert said(alerts(tmp_path / "b.jsonl", model, body), SLUG) == []
    model = net(end=nn.Softmax(1))
    body = Fit(model, loss=lambda model, x, y: functional.nll_loss(model(x).log(), y))
    assert said(alerts(tmp_path / "c.jsonl", model, body), SLUG) == []


def test_quiet_on_soft_targets(tmp_path):
    """The teacher's probabilities are the target; the student gives logits."""
    model, teacher = net(), net().eval()

    def distil(model, x, y):
        with torch.no_grad():
            aim = teacher(x).softmax(1)
        return functional.cross_entropy(model(x), aim)

    assert loud(alerts(tmp_path / "r.jsonl", model, Fit(model, loss=distil))) == []
