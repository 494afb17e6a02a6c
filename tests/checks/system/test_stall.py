"""stall: no step, the main thread does not move, nothing computes."""

from __future__ import annotations

import time

import pytest
import torch

from tests.checks.machines import gpu, idle, machine, on
from tests.helpers_checks import assert_fires, assert_quiet
from tests.helpers_watch import record
from torchwatch import WatchConfig
from torchwatch.diagnosis import diagnose
from torchwatch.records import Alert, Step, System

SLUG = "stall"
CPU = on("cpu")


def training(seconds=40, header=None, **more):
    return machine(
        seconds,
        lambda s: {"cpu_percent": 95.0, "machine_cpu_percent": 13.0, "stack": f"{s:08x}"},
        CPU if header is None else header,
        **more,
    )


def test_a_hang_is_found_after_a_minute_and_dated_to_the_last_step():
    alert = assert_fires(SLUG, idle(training(), 70), severity="critical", layer=None, since=(40, 40))
    assert alert.value == 60
    assert "stack 0badcafe" in alert.detail
    assert alert.snippet == "py-spy dump --pid 4321"


def test_it_resolves_when_steps_come_again():
    from tests.helpers_checks import run_check

    after = [Step(step=41, time_s=120.0, step_time_s=80.0), System(time_s=121.0, step=41, since_step_s=1.0)]
    _, alerts = run_check(SLUG, [*idle(training(), 70), *after])
    assert [a.state for a in alerts] == ["opened", "resolved"]


def test_quiet_while_steps_come():
    assert_quiet(SLUG, training(200))


def test_near_miss_half_a_minute():
    assert_quiet(SLUG, idle(training(), 59))


def test_near_miss_ten_steps_are_longer():
    slow = training(40, step_time_s=20.0)
    assert_quiet(SLUG, idle(slow, 150), limits={"pauses": 0})
    assert_fires(SLUG, idle(slow, 210), limits={"pauses": 0}, severity="critical")


def test_near_miss_the_main_thread_moves():
    evaluating = [System(time_s=41.0 + s, step=40, since_step_s=1.0 + s, cpu_percent=1.0, stack=f"{s:08x}")
                  for s in range(300)]  # fmt: skip
    assert_quiet(SLUG, [*training(), *evaluating])


@pytest.mark.parametrize(
    "fields",
    [
        {"cpu_percent": 80.0},
        {"machine_cpu_percent": 13.0},
        {"disk_write_bytes": 50_000_000},
        {"net_received_bytes": 50_000_000},
    ],
    ids=lambda f: next(iter(f)),
)
def test_near_miss_something_works(fields):
    assert_quiet(SLUG, idle(training(), 300, **fields))
    assert_fires(SLUG, idle(training(), 610, **fields), severity="info")
    off = {"cpu_percent": 101.0, "other_cores": 0, "io_mb_s": 0}
    assert_fires(SLUG, idle(training(), 300, **fields), severity="critical", limits=off)


def test_near_miss_the_gpu_works():
    here = on("cuda:0")
    hung = idle(
        training(header=here), 300, gpus=[gpu(utilization_percent=100), gpu(1, utilization_percent=0)]
    )
    assert_quiet(SLUG, hung)
    assert_fires(SLUG, hung, severity="critical", limits={"gpu_percent": 101.0})
    other = idle(
        training(header=here), 300, gpus=[gpu(utilization_percent=0), gpu(1, utilization_percent=99)]
    )
    assert_fires(SLUG, other, severity="critical")


def test_near_miss_a_pause_as_before():
    """The run paused for 100 s before, to evaluate in another process: 150 s are no hang, 250 s are."""
    paused = training(40, step_time_s=lambda s: 100.0 if s == 20 else 1.0)
    assert_quiet(SLUG, idle(paused, 150))
    assert_fires(SLUG, idle(paused, 250), severity="critical")
    assert_fires(SLUG, idle(paused, 150), severity="critical", limits={"pauses": 0})


def test_near_miss_ranks_may_wait_for_each_other():
    ranks = training(header=on("cpu", world=2))
    assert_quiet(SLUG, idle(ranks, 500))
    assert_fires(SLUG, idle(ranks, 610), severity="critical")
    assert_fires(SLUG, idle(ranks, 100), severity="critical", limits={"ranks_s": 0})


def test_near_miss_before_the_first_step():
    waiting = [System(time_s=float(s), stack="0badcafe", cpu_percent=0.0) for s in range(300)]
    assert_quiet(SLUG, [training()[0], *waiting], ready=False)


def test_samples_limit():
    assert_quiet(SLUG, idle(training(5), 70), limits={"samples": 80})


def test_a_real_training_whose_main_thread_sleeps(tmp_path):
    """Live, in the recorder's thread: the alert is in the file before the sleeper wakes."""
    path = tmp_path / "run.jsonl"
    model = torch.nn.Linear(4, 1)
    seen: list[str] = []

    def body(watch):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(60):
            loss = model(torch.randn(8, 4)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.log(loss=loss)
            if step > 39:
                time.sleep(0.03)  # system records come while it trains again
            if step == 39:
                deadline = time.monotonic() + 20
                while not seen and time.monotonic() < deadline:
                    time.sleep(1.5)
                    if b'"check":"stall"' in path.read_bytes():
                        seen.append("stall")

    limits = {"wait_s": 0.6, "samples": 4, "steps": 1.0, "pauses": 0, "cpu_percent": 50.0}
    config = WatchConfig(system_s=0.1, terminal=False, energy=False)
    written = record(model, body, path, config, limits={SLUG: limits | {"other_cores": 0, "io_mb_s": 0}})
    assert seen == ["stall"]
    alerts = [a for a in written if isinstance(a, Alert) and a.check == SLUG]
    assert [a.state for a in alerts] == ["opened", "resolved"]
    assert alerts[0].severity == "critical"
    assert 10 <= alerts[0].since_step <= 40, "fast steps are handed over in blocks; the last one may wait"
    assert diagnose(path).replay_matches
