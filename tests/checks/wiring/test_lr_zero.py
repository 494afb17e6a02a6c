"""lr-zero: a learning rate of zero."""

import torch

from tests.checks.wiring.trainings import Fit, alerts, loud, net, opened, said, sgd
from tests.helpers_checks import assert_fires, assert_quiet, records

SLUG = "lr-zero"


def rates(rate, steps=200, **more):
    """A run with this learning rate per step."""
    return records(steps=steps, lr=rate, **more)


def test_fires_twenty_steps_after_warm_up_where_it_always_was_zero():
    alert = assert_fires(SLUG, rates(0.0), severity="warning", layer=None, since=(1, 1), by=40)
    assert alert.step == 40
    assert "from the first step on" in alert.detail
    assert_fires(SLUG, rates(0.0), limits={"warm_up": 0}, by=20)


def test_fires_twenty_steps_after_a_jump_to_zero():
    alert = assert_fires(
        SLUG, rates(lambda n: 0.1 if n <= 50 else 0.0), severity="warning", since=(51, 51), by=70
    )
    assert alert.step == 70
    assert "0.1 before" in alert.detail


def test_fires_within_a_line_of_many_steps():
    assert_fires(SLUG, rates(lambda n: 0.1 if n <= 50 else 0.0, batched=100), since=(51, 51), by=100)


def test_a_schedule_that_ended_long_before_the_run():
    run = rates(lambda n: max(0.0, 0.1 * (1 - n / 100)), steps=400)
    alert = assert_fires(SLUG, run, severity="info", since=(100, 100), by=119)
    assert "may be about to end" in alert.detail
    assert_fires(SLUG, run, severity="warning", by=210)


def test_it_is_found_when_the_last_rate_is_long_ago():
    run = rates(lambda n: 0.1 if n <= 500 else 0.0, steps=4000, interval_steps=500)
    alert = assert_fires(SLUG, run[:2] + run[-3600:], severity="warning")
    assert alert.since_step >= 500
    assert_fires(SLUG, run, severity="warning", since=(501, 501))


def test_near_miss_a_decay_long_ago_in_a_longer_run():
    run = rates(lambda n: max(0.0, 0.1 * (1 - n / 2500)), steps=5000, interval_steps=500, batched=100)
    assert_quiet(SLUG, run, allow_info=True, limits={"rest_steps": 2600})
    assert_fires(SLUG, run, severity="warning", limits={"rest_steps": 2000})


def test_quiet_on_a_rate_above_zero():
    assert_quiet(SLUG, rates(0.01))
    assert_quiet(SLUG, rates(lambda n: max(1e-9, 0.1 * (1 - n / 100))))


def test_near_miss_nineteen_steps():
    run = rates(lambda n: 0.1 if n % 30 > 19 or n < 30 else 0.0, steps=139)
    assert_quiet(SLUG, rates(lambda n: 0.1 if not 50 <= n < 69 else 0.0))
    assert_fires(SLUG, run)


def test_near_miss_a_warm_up_from_zero():
    assert_quiet(SLUG, rates(lambda n: 0.001 * (n - 1)))
    assert_quiet(SLUG, rates(lambda n: 0.0 if n < 40 else 0.1))


def test_near_miss_one_epoch_at_the_end_of_a_schedule_per_epoch():
    """Five epochs of 150 steps; the cosine reaches 0 in the last one."""
    run = rates(lambda n: [0.1, 0.085, 0.05, 0.009, 0.0][(n - 1) // 150], steps=750, epoch_steps=150)
    assert_quiet(SLUG, run, allow_info=True)
    assert_fires(SLUG, run, severity="info", since=(601, 601))
    assert_fires(SLUG, run, severity="warning", limits={"rest_steps": 0, "rest_share": 0})
    assert_fires(SLUG, run, severity="warning", limits={"decayed": 0})


# ------------------------------------------------------------------------------------------ real trainings


def test_a_rate_of_zero(tmp_path):
    model = net()
    alert = opened(alerts(tmp_path / "r.jsonl", model, Fit(model, sgd(model, lr=0.0), steps=50)), SLUG)
    assert (alert.severity, alert.since_step, alert.step) == ("warning", 1, 40)


def scheduled(model, factor, **options):
    optimizer = sgd(model, **options)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return Fit(model, optimizer, after=lambda *_: schedule.step(), steps=60)


def test_a_schedule_that_jumps_to_zero(tmp_path):
    model = net()
    found = alerts(tmp_path / "r.jsonl", model, scheduled(model, lambda n: float(n < 30)))
    alert = opened(found, SLUG)
    assert (alert.severity, alert.since_step, alert.step) == ("warning", 31, 50)
    assert {a.check for a in found if a.severity != "info"} == {SLUG}


def test_quiet_on_its_twin(tmp_path):
    model = net()
    found = alerts(tmp_path / "r.jsonl", model, scheduled(model, lambda n: min(n / 20, 1 - n / 60)))
    assert loud(found) == []
    assert said(found, SLUG) == []


def test_quiet_where_one_of_two_groups_rests(tmp_path):
    model = net()
    groups = [{"params": model[0].parameters(), "lr": 0.0}, {"params": model[4].parameters()}]
    optimizer = torch.optim.SGD(groups, lr=0.05)
    model[1].requires_grad_(requires_grad=False)
    assert said(alerts(tmp_path / "r.jsonl", model, Fit(model, optimizer, steps=60)), SLUG) == []
