"""gradient-nonfinite: an applied gradient is NaN or infinite."""

import math

import pytest
from torch import nn
from torch.nn import functional

from tests.helpers_checks import assert_fires, assert_quiet, layout, records, run_check
from tests.helpers_training import classes, trained

SLUG = "gradient-nonfinite"
NAN = math.nan


def norms(bad, count=60, value=NAN):
    return [value if i in bad else 1.0 for i in range(1, count + 1)]


def rows(first, all_bad_after=True):
    """Gradient columns that go bad in ``first`` at step 30, everywhere from step 31 on."""

    def row(step):
        if step < 30:
            return [1.0, 1.0, 1.0]
        if step == 30 or not all_bad_after:
            return [NAN if i in first else 1.0 for i in range(3)]
        return [NAN] * 3

    return row


@pytest.mark.parametrize("value", [NAN, math.inf])
def test_fires_at_the_step_and_names_the_layer_that_backward_met_first(value):
    run = records(steps=60, grad_norm=norms(range(30, 61), value=value), columns={"grad_norms": rows({0, 1})})
    alert = assert_fires(SLUG, run, severity="critical", layer="1", since=(30, 30), by=30)
    assert "1.weight" in alert.title
    assert "2 of 3 parameters" in alert.detail


@pytest.mark.parametrize(
    ("count", "words"), [(7.0, "14 of their elements"), (0.0, "Every single element is finite"), (1.0, None)]
)
def test_says_how_many_elements_where_they_were_counted(count, words):
    columns = {"grad_norms": rows({0, 1}), "grad_nonfinite": lambda step: [count if step == 30 else 0.0] * 3}
    alert = assert_fires(SLUG, records(steps=60, grad_norm=norms(range(30, 61)), columns=columns), by=30)
    assert words in alert.detail if words else "element" not in alert.detail


def test_names_no_layer_where_everything_went_bad_at_once():
    run = records(steps=60, grad_norm=norms(range(30, 61)), columns={"grad_norms": rows({0, 1, 2})})
    alert = assert_fires(SLUG, run, layer=None, since=(30, 30), by=30)
    assert alert.title.startswith("Every gradient")


def test_works_without_columns():
    assert_fires(SLUG, records(steps=60, grad_norm=norms({30})), layer=None, since=(30, 30), by=30)


def test_one_issue_however_long_it_lasts():
    run = records(steps=3000, grad_norm=norms(range(30, 3001), 3000), columns={"grad_norms": rows({0, 1})})
    _, alerts = run_check(SLUG, run)
    assert {(a.layer, a.since_step) for a in alerts} == {("1", 30)}
    assert "resolved" not in {a.state for a in alerts}


def test_seen_inside_a_line_of_many_steps_and_resolved_after():
    run = records(steps=100, grad_norm=norms({13}, 100), batched=20)
    _, alerts = run_check(SLUG, run)
    assert [a.state for a in alerts] == ["opened", "resolved"]
    assert alerts[0].since_step == 13


def test_quiet_on_finite_and_on_not_measured_norms():
    assert_quiet(SLUG, records(steps=60, grad_norm=[1.0 if i % 2 else None for i in range(60)]))


def test_near_miss_steps_that_the_scaler_skipped():
    run = records(steps=60, grad_norm=norms({3, 4, 30}), skipped=[i in {3, 4, 30} for i in range(1, 61)])
    assert_quiet(SLUG, run)
    assert_fires(SLUG, run, limits={"exclude_skipped": 0}, since=(3, 3))


def test_limit_of_steps_in_a_row_skips_not_counted():
    run = records(steps=60, grad_norm=norms({20, 30, 31, 32}), skipped=[i == 31 for i in range(1, 61)])
    assert_quiet(SLUG, run, limits={"consecutive_steps": 3})
    assert_fires(SLUG, run, limits={"consecutive_steps": 2}, since=(30, 30), by=32)


def test_a_layer_without_a_place_in_the_forward_pass_is_named_last():
    import dataclasses

    base = layout(("0", "1", "2"))
    layers = [base.layers[0], base.layers[1], dataclasses.replace(base.layers[2], order=None)]
    run = records(
        steps=60,
        grad_norm=norms(range(30, 61)),
        columns={"grad_norms": rows({1, 2})},
        layers=dataclasses.replace(base, layers=layers),
    )
    assert_fires(SLUG, run, layer="1")


def test_says_where_it_came_in_or_that_this_was_not_watched():
    bad = norms(range(30, 61))
    found = {"where": "backward", "name": "1.weight", "order": None, "seen_by": "statistics"}
    run = records(steps=60, grad_norm=bad, first_nonfinite=lambda n: found if n >= 30 else None)
    assert assert_fires(SLUG, run).title.endswith(", first in the gradient of 1.weight (backward)")
    assert (
        "Where it came in was not watched in step 30."
        in assert_fires(SLUG, records(steps=60, grad_norm=bad)).detail
    )


@pytest.mark.parametrize("bad", [True, False])
def test_a_real_logarithm_of_zero(bad, tmp_path):
    batch = classes()

    def loss(model, step):
        x, y = batch(step)
        scores = functional.softmax(model(x), dim=1)
        if bad and step == 60:
            scores = scores * 0
        return -scores[range(len(y)), y].log().mean()

    made = trained(tmp_path, lambda: nn.Linear(20, 4), loss, steps=80)
    if bad:
        assert_fires(SLUG, made, severity="critical", since=(60, 60))
    else:
        assert_quiet(SLUG, made)
