"""unoptimized-parameters: gradients, but no optimizer."""

import dataclasses

from torch import nn

from tests.checks.wiring.trainings import Fit, alerts, loud, net, opened, sgd
from tests.helpers_checks import assert_fires, assert_quiet, layout, records, run_check

SLUG = "unoptimized-parameters"


def forgotten(*indices, trainable=True, optimizers=None, count=3):
    """A layout in which the parameters with these indices are in no optimizer."""
    base = layout(tuple(str(i) for i in range(count)))
    parameters = [
        dataclasses.replace(p, optimizer=None, group=None, trainable=trainable) if i in indices else p
        for i, p in enumerate(base.parameters)
    ]
    seen = base.optimizers if optimizers is None else optimizers
    return dataclasses.replace(base, parameters=parameters, optimizers=seen)


def test_fires_at_the_tenth_step_with_layer_and_names():
    run = records(
        steps=40, layers=forgotten(1, 2), columns={"grad_norms": 0.3, "update_ratios": [0.01, None, None]}
    )
    alert = assert_fires(SLUG, run, severity="warning", layer="1", since=(1, 1), by=10)
    assert "1.weight, 2.weight" in alert.detail
    assert "512 of 768 weights" in alert.detail
    assert alert.value == 2


def test_names_five_at_most():
    run = records(steps=40, layers=forgotten(*range(1, 9), count=9), columns={"grad_norms": 0.3})
    assert "5.weight and 3 more" in assert_fires(SLUG, run).detail


def test_the_first_layer_is_the_one_called_first():
    base = forgotten(0, 1)
    layers = [dataclasses.replace(x, order=2 - i) for i, x in enumerate(base.layers)]
    run = records(steps=40, layers=dataclasses.replace(base, layers=layers), columns={"grad_norms": 0.3})
    assert_fires(SLUG, run, layer="1")


def test_a_gradient_at_one_time_is_enough():
    columns = {"grad_norms": lambda step: [0.3, 0.2 if step == 7 else 0.0, 0.1]}
    assert_fires(SLUG, records(steps=40, layers=forgotten(1), columns=columns), layer="1", since=(7, 7))


def test_quiet_where_all_are_optimized_and_where_the_rest_is_frozen():
    assert_quiet(SLUG, records(steps=40, columns={"grad_norms": 0.3}))
    assert_quiet(SLUG, records(steps=40, layers=forgotten(1, trainable=False), columns={"grad_norms": 0.3}))


def test_quiet_without_gradients():
    assert_quiet(SLUG, records(steps=40, layers=forgotten(1), columns={"grad_norms": [0.3, None, 0.3]}))
    assert_quiet(SLUG, records(steps=40, layers=forgotten(1), columns={"grad_norms": [0.3, 0.0, 0.3]}))


def test_near_miss_the_second_optimizer_steps_for_the_first_time_at_step_nine():
    run = records(steps=8, layers=forgotten(1), columns={"grad_norms": 0.3})
    later = records(steps=40, columns={"grad_norms": 0.3})
    assert_quiet(SLUG, [*run, *(r for r in later[1:] if getattr(r, "step", 99) > 8 or r is later[1])])


def test_resolved_when_an_optimizer_takes_it():
    run = records(steps=20, layers=forgotten(1), columns={"grad_norms": 0.3})
    later = records(steps=40, columns={"grad_norms": 0.3})
    _, alerts = run_check(SLUG, [*run, later[1], *(r for r in later[2:] if getattr(r, "step", 0) > 20)])
    assert [a.state for a in alerts] == ["opened", "resolved"]


def test_quiet_in_a_loop_without_optimizer_and_on_weights_updated_by_hand():
    assert_quiet(
        SLUG,
        records(steps=40, layers=forgotten(0, 1, 2, optimizers=[]), columns={"grad_norms": 0.3}),
        ready=False,
    )
    assert_quiet(
        SLUG, records(steps=40, layers=forgotten(1), columns={"grad_norms": 0.3, "update_ratios": 0.01})
    )


def test_declared_frozen_stages_are_left_out():
    run = {"steps": 40, "layers": forgotten(1), "columns": {"grad_norms": 0.3}}
    assert_quiet(SLUG, records(**run, declare={"frozen_stages": ["1"]}))
    assert_fires(SLUG, records(**run, declare={"frozen_stages": ["2"]}))


def test_limits():
    run = records(steps=40, layers=forgotten(1), columns={"grad_norms": 0.3})
    assert_quiet(SLUG, run, limits={"parameters": 2})
    assert_quiet(SLUG, run, limits={"gradient": 0.5})
    assert_quiet(SLUG, run, limits={"steps": 50}, ready=False)
    assert_fires(SLUG, run, limits={"steps": 5}, by=5)


# ------------------------------------------------------------------------------------------ real trainings


def test_a_head_that_was_replaced_after_the_optimizer_was_made(tmp_path):
    model = net()
    optimizer = sgd(model)
    model[4] = nn.Linear(16, 4)
    alert = opened(alerts(tmp_path / "r.jsonl", model, Fit(model, optimizer)), SLUG)
    assert (alert.severity, alert.layer, alert.since_step, alert.step) == ("warning", "4", 1, 10)


def test_quiet_on_its_twins(tmp_path):
    """All in the optimizer; and the rest frozen."""
    model = net()
    assert loud(alerts(tmp_path / "a.jsonl", model, Fit(model))) == []
    model = net()
    model[:4].requires_grad_(requires_grad=False)
    assert loud(alerts(tmp_path / "b.jsonl", model, Fit(model, sgd(model[4])))) == []
