"""parameter-nonfinite: a weight is NaN or infinite."""

import math

import pytest
from torch import nn
from torch.nn import functional

from tests.helpers_checks import assert_fires, assert_quiet, records, run_check
from tests.helpers_training import classes, trained

SLUG = "parameter-nonfinite"
NAN = math.nan


def going_bad(at, first=(1,), word=NAN):
    """A column whose entries ``first`` are bad at one observation and all after that."""

    def row(step):
        if step < at:
            return [0.01] * 3
        return [word if step > at or i in first else 0.01 for i in range(3)]

    return row


def ratio(at):
    return [0.01 if i < at else NAN for i in range(1, 101)]


def test_fires_at_the_step_and_names_the_last_good_one():
    run = records(
        steps=100, update_ratio=ratio(41), columns={"update_ratios": going_bad(41), "weight_norms": 1.0}
    )
    alert = assert_fires(SLUG, run, severity="critical", layer="1", since=(41, 41), by=41)
    assert "1.weight" in alert.title
    assert "last step with finite parameters is 40" in alert.detail
    assert alert.value == 1


@pytest.mark.parametrize("word", [NAN, math.inf])
def test_fires_on_weight_norms_alone(word):
    columns = {"update_ratios": 0.01, "weight_norms": going_bad(50, first=(0, 1, 2), word=word)}
    assert_fires(
        SLUG, records(steps=100, columns=columns, columns_every=10), layer=None, since=(50, 50), by=50
    )


def test_says_where_only_the_norm_overflowed():
    columns = {"update_ratios": 0.01, "weight_norms": going_bad(50, first=(1,), word=math.inf)}
    finite = {**columns, "weight_nonfinite": 0.0}
    assert "sum of their squares" in assert_fires(SLUG, records(steps=60, columns=finite)).detail
    counted = {**columns, "weight_nonfinite": 5.0}
    assert "5 of their elements" in assert_fires(SLUG, records(steps=60, columns=counted)).detail


def test_the_overall_ratio_dates_it_between_kept_columns():
    run = records(
        steps=100,
        update_ratio=ratio(41),
        columns={"update_ratios": going_bad(50)},
        columns_every=10,
        batched=10,
    )
    alert = assert_fires(SLUG, run, since=(41, 41), by=50)
    assert "is 40" in alert.detail


def test_one_issue_however_long_it_lasts():
    _, alerts = run_check(SLUG, records(steps=3000, columns={"update_ratios": going_bad(41)}))
    assert {a.layer for a in alerts} == {"1"}
    assert alerts[-1].since_step == 41


def test_quiet_on_finite_zero_and_missing_entries():
    columns = {"update_ratios": [0.01, 0.0, None], "weight_norms": [1.0, 0.0, None]}
    assert_quiet(SLUG, records(steps=100, update_ratio=0.01, columns=columns))


def test_near_miss_a_gradient_that_was_bad_and_not_applied():
    run = records(
        steps=100, grad_norm=ratio(41), skipped=True, columns={"grad_norms": NAN, "update_ratios": 0.0}
    )
    assert_quiet(SLUG, run)


def test_limit_of_parameters():
    columns = {"update_ratios": lambda step: [0.1, NAN if step > 40 else 0.1, 0.1]}
    assert_quiet(SLUG, records(steps=100, columns=columns), limits={"parameters": 2})
    assert_fires(SLUG, records(steps=100, columns=columns), limits={"parameters": 1}, since=(41, 41))


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("optimizer", ", first in 1.weight (the optimizer's step), batch 0a"),
        ("parameter", ", first in 1.weight, which was not finite before the step, batch 0a"),
        ("no such place", "Where it came in was not watched in step 41."),
    ],
)
def test_says_where_it_came_in(where, said):
    found = {"where": where, "name": "1.weight"}
    run = records(
        steps=100,
        update_ratio=ratio(41),
        columns={"update_ratios": going_bad(41)},
        first_nonfinite=lambda n: found if n == 41 else None,
        fingerprint="0a",
    )
    alert = assert_fires(SLUG, run)
    assert said in alert.title + alert.detail


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
