"""scheduler-order: the scheduler before the optimizer."""

import dataclasses

import pytest
import torch

from tests.checks.wiring.trainings import SINGLE, Fit, alerts, loud, net, opened, said, sgd
from tests.helpers_checks import assert_fires, assert_quiet, records
from torchwatch.records import Log, RunHeader

SLUG = "scheduler-order"
SAID = "UserWarning: Detected call of `lr_scheduler.step()` before `optimizer.step()`. In PyTorch 1.1.0 and"


def run(message=SAID, step=0, **more):
    """A run that begins with a warning."""
    made = records(steps=20, **more)
    return [*made[:2], Log(step=step, message=message), *made[2:]]


def test_fires_at_the_first_step():
    assert_fires(SLUG, run(), severity="info", layer=None, since=(0, 0), by=1)


def test_quiet_without_a_warning_and_on_others():
    assert_quiet(SLUG, records(steps=20))
    assert_quiet(SLUG, run("UserWarning: lr_scheduler.step() is something else"))


def test_near_miss_a_warning_later_on():
    assert_quiet(SLUG, run(step=3))
    assert_fires(SLUG, run(step=3), limits={"steps": 3})


@pytest.mark.parametrize("scaled", [{"skipped": True}, {"grad_scale": 65536.0}])
def test_near_miss_a_scaler_skipped_the_step(scaled):
    assert_quiet(SLUG, run(**scaled))
    assert_fires(SLUG, run(**scaled), limits={"scaler": 0})


def test_not_ready_where_warnings_are_not_recorded():
    made = run()
    header = made[0]
    assert isinstance(header, RunHeader)
    engine = assert_quiet(SLUG, [dataclasses.replace(header, config={"logs": False}), *made[1:]], ready=False)
    assert "not recorded" in engine.not_run()[SLUG]


# ------------------------------------------------------------------------------------------ real trainings


def stepped(model, before):
    optimizer = sgd(model)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 5)
    if before:
        return Fit(model, optimizer, before=lambda _: schedule.step(), steps=10)
    return Fit(model, optimizer, after=lambda *_: schedule.step(), steps=10)


def test_the_wrong_order(tmp_path):
    model = net()
    with pytest.warns(UserWarning, match="lr_scheduler"):
        alert = opened(alerts(tmp_path / "r.jsonl", model, stepped(model, before=True)), SLUG)
    assert (alert.severity, alert.since_step) == ("info", 0)
    assert alert.step <= 2


def test_quiet_on_its_twin(tmp_path):
    model = net()
    found = alerts(tmp_path / "r.jsonl", model, stepped(model, before=False))
    assert loud(found) == []
    assert said(found, SLUG) == []


def test_quiet_under_a_scaler_that_skips_the_first_step(tmp_path):
    model = net()
    optimizer, scaler = sgd(model), torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=10**6)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 5)

    def body(watch):
        for number in range(1, 12):
            optimizer.zero_grad()
            loss = model(torch.randn(32, 8)).square().mean() * (1e9 if number < 3 else 1)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            schedule.step()
            watch.log(loss=loss)

    with pytest.warns(UserWarning, match="lr_scheduler"):
        found = alerts(tmp_path / "r.jsonl", model, body, SINGLE, scaler=scaler)
    assert said(found, SLUG) == []
