import math

import pytest

from tests.helpers_checks import assert_fires, assert_quiet, layout, records, run_check

SLUG = "loss-nonfinite"


@pytest.mark.parametrize(("bad", "word"), [(math.nan, "NaN"), (math.inf, "+Inf"), (-math.inf, "−Inf")])
def test_fires_at_the_first_step(bad, word):
    alert = assert_fires(SLUG, records([1.0] * 30 + [bad] * 20), severity="critical", since=(31, 31), by=31)
    assert alert.title == f"Loss is {word} since step 31"
    assert "last finite loss was 1 at step 30" in alert.detail


def test_fires_in_the_middle_of_a_line_of_many_steps():
    loss = [1.0] * 30 + [math.nan] * 3 + [1.0] * 60
    assert_fires(SLUG, records(loss, batched=50, interval_steps=100), since=(31, 31), by=50)


def test_quiet_on_finite_losses():
    assert_quiet(SLUG, records([1e100, -1e100, 0.0] * 20))


def test_one_overflow_under_a_scaler_is_normal_and_three_are_not():
    skipped = [1.0] * 30 + [math.inf] * 2 + [1.0] * 30
    assert_quiet(SLUG, records(skipped, grad_scale=1024.0, skipped=lambda n: n in (31, 32)))
    stuck = [1.0] * 30 + [math.inf] * 3 + [1.0] * 30
    assert_fires(SLUG, records(stuck, grad_scale=1024.0), since=(31, 31), by=33)


def test_scaler_guard_off_leaves_the_bare_trigger():
    loss = [1.0] * 30 + [math.inf] + [1.0] * 30
    assert_fires(SLUG, records(loss, grad_scale=1024.0), by=31, limits={"scaler_steps": 0})


def test_consecutive_steps_are_honoured():
    loss = [1.0] * 10 + [math.nan] * 4 + [1.0] * 10
    assert_quiet(SLUG, records(loss), limits={"consecutive_steps": 5})
    assert_fires(SLUG, records(loss), limits={"consecutive_steps": 4}, since=(11, 11), by=14)


def test_names_the_layer_that_went_first():
    shape = layout(("stem", "body", "head"))
    bad = {"activations.nonfinite": lambda n: [0, 3, 3] if n >= 20 else [0, 0, 0], "grad_norms": math.nan}
    alert = assert_fires(SLUG, records([1.0] * 24 + [math.nan] * 5, layers=shape, columns=bad))
    # Gradients were non-finite at every step before, so they are named: the earliest evidence wins.
    assert "the gradient of 'stem.weight', at step 1" in alert.detail
    del bad["grad_norms"]
    alert = assert_fires(SLUG, records([1.0] * 24 + [math.nan] * 5, layers=shape, columns=bad))
    assert "the output of layer 'body', at step 20" in alert.detail


def test_gradients_of_the_same_step_prove_nothing():
    columns = {"grad_norms": lambda n: math.nan if n >= 25 else 1.0}
    alert = assert_fires(SLUG, records([1.0] * 24 + [math.nan] * 5, columns=columns))
    assert "Where it came in was not watched in step 25." in alert.detail


def test_resolves_when_the_loss_stays_finite():
    _, alerts = run_check(SLUG, records([1.0] * 10 + [math.nan] + [1.0] * 40))
    assert [a.state for a in alerts] == ["opened", "resolved"]


@pytest.mark.parametrize("batched", [None, 10])
def test_names_where_it_came_in_and_the_batch(batched):
    found = {"where": "forward", "name": "blocks.3.act", "order": 7, "seen_by": "sentinel"}
    run = records(
        [1.0] * 24 + [math.nan] * 5,
        first_nonfinite=lambda n: found if n >= 25 else None,
        fingerprint=lambda n: f"9f3a11{n:02d}",
        batched=batched,
    )
    alert = assert_fires(SLUG, run)
    assert alert.title == "Loss is NaN since step 25, first in blocks.3.act (forward), batch 9f3a1125"
    assert "not watched" not in alert.detail
