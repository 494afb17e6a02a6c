"""amp-skips: the gradient scaler throws too many steps away."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.helpers_checks import assert_fires, assert_quiet, records, run_check
from tests.helpers_training import classes, trained

SLUG = "amp-skips"


def run(skipped, scale=65536.0, steps=200, **more):
    return records(1.0, steps=steps, skipped=skipped, grad_scale=scale, **more)


def test_fires_when_a_third_is_skipped_and_dates_the_first():
    alert = assert_fires(
        SLUG, run(lambda i: i > 100 and i % 3 == 0), severity="warning", since=(102, 102), by=150
    )
    assert alert.value > 0.25
    assert "none of them changed a weight" in alert.detail


def test_fires_when_the_scale_falls_below_one():
    alert = assert_fires(SLUG, run(False, lambda i: 2.0 if i < 120 else 0.5), since=(120, 120), by=150)
    assert alert.metric == "grad_scale"
    assert_quiet(SLUG, run(False, lambda i: 2.0 if i < 120 else 0.5), limits={"scale": 0})


def test_short_intervals_are_judged_on_the_last_20_steps():
    assert_fires(SLUG, run(lambda i: i > 40 and i % 3 == 0, interval_steps=5), by=60)
    assert_quiet(SLUG, run(lambda i: i in (41, 43), interval_steps=5))


def test_what_was_skipped_long_before_is_another_matter():
    assert_fires(SLUG, run(lambda i: i in (30, 60) or (i > 120 and i % 3 == 0)), since=(123, 123))


def test_resolves_when_the_scaler_has_found_its_scale():
    _, alerts = run_check(SLUG, run(lambda i: 50 < i <= 100 and i % 2 == 0, steps=400))
    assert [a.state for a in alerts] == ["opened", "resolved"]


def test_quiet_on_a_skip_now_and_then():
    assert_quiet(SLUG, run(lambda i: i % 50 == 0))


def test_near_miss_a_quarter():
    assert_quiet(SLUG, run(lambda i: i % 4 == 0, interval_steps=40))
    assert_fires(SLUG, run(lambda i: i % 4 == 0, interval_steps=40), limits={"share": 0.2})


def test_near_miss_the_search_for_the_scale():
    search = run(lambda i: i <= 20, interval_steps=40)
    assert_quiet(SLUG, search)
    assert_fires(SLUG, search, limits={"search_steps": 0}, since=(1, 1))


def test_without_a_scaler_it_does_not_run():
    engine, _ = run_check(SLUG, records(1.0, steps=100))
    assert "skipped" in engine.not_run()[SLUG]


@pytest.mark.parametrize("outliers", [True, False])
def test_a_real_scaler(outliers, tmp_path):
    batch = classes()

    def loss(model, step):
        x, y = batch(step)
        if outliers and step > 100 and step % 3 == 0:
            x = x * 1e5  # more than float16 can hold
        with torch.autocast("cpu", torch.float16):
            return functional.cross_entropy(model(x), y)

    made = trained(tmp_path, lambda: nn.Linear(20, 4), loss, scaler=torch.amp.GradScaler("cpu"))
    if outliers:
        assert_fires(SLUG, made, since=(102, 102), by=150)
    else:
        assert_quiet(SLUG, made)
