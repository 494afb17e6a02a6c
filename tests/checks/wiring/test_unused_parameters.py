"""unused-parameters: trainable, and never a gradient."""

import pytest
import torch
from torch import nn

from tests.checks.wiring.trainings import Fit, alerts, loud, net, opened, said
from tests.helpers_checks import assert_fires, assert_quiet, records

SLUG = "unused-parameters"


def watched(*indices, since=1, steps=60, norms=None, **more):
    """A run whose map says at step ``since`` that these parameters have no gradient."""
    state = {"training": True, "no_gradient": list(indices), "no_gradient_since": [since] * len(indices)}
    columns = {"grad_norms": norms or [None if i in indices else 0.3 for i in range(3)], "weight_norms": 1.0}
    return records(
        steps=steps,
        wiring=lambda step: state if step == since else None,
        grad_norm=0.3,
        columns=columns,
        **more,
    )


def test_fires_at_the_twentieth_step_with_layer_and_names():
    alert = assert_fires(SLUG, watched(1, 2), severity="info", layer="1", since=(1, 1), by=20)
    assert "2 trainable parameters" in alert.title
    assert "1.weight, 2.weight" in alert.detail
    assert "512 of 768 weights" in alert.detail


def test_fires_within_a_line_of_many_steps():
    assert_fires(SLUG, watched(1, batched=30), since=(1, 1), by=30)


def test_a_cut_list_counts_what_was_left_out():
    state = {"no_gradient": [1], "no_gradient_since": [1], "more": {"no_gradient": 7}}
    columns = {"grad_norms": [0.3, None, 0.3], "weight_norms": 1.0}
    run = records(steps=30, wiring=lambda s: state if s == 1 else None, grad_norm=0.3, columns=columns)
    alert = assert_fires(SLUG, run)
    assert alert.value == 8
    assert "1.weight and 7 more" in alert.detail


def test_quiet_where_all_have_gradients():
    assert_quiet(
        SLUG, records(steps=60, wiring=lambda s: {"training": True} if s == 1 else None, grad_norm=1)
    )


def test_near_miss_nineteen_steps():
    assert_quiet(SLUG, watched(1, steps=19), ready=False)
    assert_fires(SLUG, watched(1, steps=19), limits={"steps": 19})


def test_near_miss_too_few_looks():
    run = watched(1, columns_every=15)
    assert_quiet(SLUG, [r for r in run if getattr(r, "step", 0) != 60])
    assert_fires(SLUG, run, limits={"looks": 0})


def test_near_miss_a_gradient_once():
    norms = [[0.3, 0.2 if i == 5 else None, 0.1] for i in range(1, 61)]
    run = watched(1, since=6, norms=norms)
    assert_quiet(SLUG, run)
    assert assert_fires(SLUG, run, limits={"from_the_start": 0}, since=(6, 6)).step == 25


def test_near_miss_a_gradient_once_long_ago():
    norms = [[0.3, 0.2 if i == 5 else None, 0.1] for i in range(1, 121)]
    assert_quiet(SLUG, watched(1, since=6, norms=norms, steps=120))


def test_near_miss_a_gradient_between_two_looks():
    norms = [[0.3, 0.2 if i == 18 else None, 0.1] for i in range(1, 61)]
    assert_quiet(SLUG, watched(1, norms=norms))
    assert_fires(SLUG, watched(1, norms=norms), limits={"from_the_start": 0})


def test_declared_stages_are_left_out():
    assert_quiet(SLUG, watched(1, declare={"frozen_stages": ["1"]}))
    assert_fires(SLUG, watched(1, 2, declare={"frozen_stages": ["1"]}), layer="2")


@pytest.mark.parametrize("rubbish", [[99], [-1], ["x"], [None], "weights"])
def test_a_file_can_hold_anything(rubbish):
    state = {"no_gradient": rubbish, "no_gradient_since": [1]}
    run = records(steps=60, wiring=lambda s: state if s == 1 else None, grad_norm=0.3)
    assert_quiet(SLUG, run)


# ------------------------------------------------------------------------------------------ real trainings


class Forked(nn.Module):
    """Two heads, of which one is used."""

    def __init__(self):
        super().__init__()
        self.body, self.used, self.unused = net(), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.used(self.body(x))


def test_a_head_that_is_never_called(tmp_path):
    model = Forked()
    found = alerts(tmp_path / "r.jsonl", model, Fit(model))
    alert = opened(found, SLUG)
    assert (alert.layer, alert.since_step) == ("unused", 1)
    assert alert.step <= 22
    assert loud(found) == []


def test_quiet_on_its_twin_and_on_a_frozen_head(tmp_path):
    model = net()
    assert said(alerts(tmp_path / "a.jsonl", model, Fit(model)), SLUG) == []
    model = Forked()
    model.unused.requires_grad_(requires_grad=False)
    assert said(alerts(tmp_path / "b.jsonl", model, Fit(model)), SLUG) == []


def test_quiet_on_layers_that_are_dropped_at_random(tmp_path):
    class Dropped(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers, self.head = nn.ModuleList(nn.Linear(8, 8) for _ in range(3)), nn.Linear(8, 4)

        def forward(self, x):
            for layer in self.layers:
                if torch.rand(()) > 0.5:
                    x = x + layer(x).relu()
            return self.head(x)

    torch.manual_seed(0)
    model = Dropped()
    assert said(alerts(tmp_path / "r.jsonl", model, Fit(model, steps=60)), SLUG) == []
