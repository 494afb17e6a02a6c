"""throughput-drop: training has become slower."""

import dataclasses

import numpy as np
import pytest

from tests.helpers_checks import assert_fires, assert_quiet, records
from torchwatch.records import Interval, System

SLUG = "throughput-drop"


def run(step_s, intervals=24, samples=64, wait_share=None, noise=0.01, seed=0, **more):
    """Intervals of 50 steps whose mean step time is ``step_s(index)`` seconds, index from 1."""
    jitter = np.exp(np.random.default_rng(seed).normal(0, noise, intervals + 1))

    def batch(i):
        return samples(i) if callable(samples) else samples

    fields = {
        "busy_s": lambda i: 50 * step_s(i) * jitter[i],
        "steps_per_s": lambda i: 1 / (step_s(i) * jitter[i]),
        "samples_per_s": lambda i: batch(i) / (step_s(i) * jitter[i]),
        "samples": lambda i: 50 * batch(i),
        "wait_share": wait_share,
    }
    return records(steps=50 * intervals, intervals=fields, **more)


def slower(at, factor=2.0, base=0.5):
    return lambda i: base * (factor if i >= at else 1.0)


def test_warning_when_waiting_for_data_grew():
    alert = assert_fires(
        SLUG,
        run(slower(12), wait_share=lambda i: 0.5 if i >= 12 else 0.05),
        severity="warning",
        layer=None,
        since=(551, 551),
        by=700,
    )
    assert "from 5% to 50%" in alert.detail
    assert alert.value == pytest.approx(64.0, rel=0.05)


def test_info_when_the_step_grew_for_no_known_reason():
    dropped = run(slower(12))
    assert_quiet(SLUG, dropped, allow_info=True)
    assert_fires(SLUG, dropped, severity="info", since=(551, 551), by=700)


def test_info_when_waiting_grew_but_explains_little():
    dropped = run(slower(12, factor=4.0), wait_share=lambda i: 0.2 if i >= 12 else 0.05)
    assert_quiet(SLUG, dropped, allow_info=True)
    assert_fires(SLUG, dropped, severity="info")


def test_warning_when_steps_keep_growing():
    assert_fires(SLUG, run(lambda i: 0.5 * (1 + 0.1 * max(0, i - 6))), severity="warning")


def test_steps_stand_in_where_samples_are_unknown():
    fields = {"steps_per_s": lambda i: 1.0 if i >= 12 else 2.0, "busy_s": lambda i: 50.0 if i >= 12 else 25.0}
    assert assert_fires(SLUG, records(steps=1200, intervals=fields)).metric == "steps_per_s"


def test_quiet_on_a_steady_run():
    assert_quiet(SLUG, run(lambda _: 0.5, noise=0.05))


@pytest.mark.parametrize("seed", range(6))
def test_quiet_on_a_noisy_machine(seed):
    random = np.random.default_rng(seed)
    load = np.exp(np.convolve(random.normal(0, 0.35, 64), [0.5, 0.3, 0.2], mode="same"))
    share = np.clip(random.normal(0.2, 0.05, 64), 0, 1)
    assert_quiet(
        SLUG,
        run(lambda i: 0.5 * load[i], intervals=60, seed=seed, wait_share=lambda i: share[i]),
        allow_info=True,
    )


def test_near_miss_two_intervals_or_a_few_seconds():
    assert_quiet(SLUG, run(lambda i: 1.0 if i in (12, 13) else 0.5))
    fast = run(slower(12, base=0.005), intervals=24)
    assert_quiet(SLUG, fast)
    assert_fires(SLUG, fast, limits={"seconds": 0})


def test_near_miss_a_fifth_is_not_reached():
    assert_quiet(SLUG, run(slower(12, factor=1.15)))
    assert_fires(SLUG, run(slower(12, factor=1.15)), limits={"drop": 0.1})


def test_near_miss_a_larger_batch():
    grown = run(slower(12, factor=2.9), samples=lambda i: 128 if i >= 12 else 64)
    assert_quiet(SLUG, grown)
    assert_fires(SLUG, grown, limits={"batch_change": 0})


def test_near_miss_the_first_interval_was_the_fastest():
    assert_quiet(SLUG, run(lambda i: 0.1 if i == 1 else 0.5))


def test_near_miss_within_the_runs_own_noise():
    noise = run(lambda i: (0.5, 0.9, 0.55, 0.85, 0.6)[i % 5] if i < 14 else 0.8, noise=0.0)
    assert_quiet(SLUG, noise)
    assert_fires(SLUG, noise, limits={"sigmas": 0})


def test_limits():
    assert_quiet(SLUG, run(slower(12), intervals=14), limits={"intervals": 5})
    assert_quiet(SLUG, run(slower(12), intervals=9), ready=False)
    assert_quiet(SLUG, run(slower(12)), limits={"least_steps": 60}, ready=False)
    data = run(slower(12), wait_share=lambda i: 0.5 if i >= 12 else 0.05)
    assert_fires(SLUG, data, limits={"wait_share": 0.6}, severity="info")
    assert_quiet(SLUG, data, limits={"wait_share": 0.6, "steady_p": 0}, allow_info=True)
    assert_fires(SLUG, run(slower(8)))
    assert_quiet(SLUG, run(slower(8)), limits={"warm_up_steps": 350})


def gpu_run(throttle, device="cuda:0"):
    """A drop during which a GPU says this of its clocks, in one reading per interval."""
    extra = {s: [System(time_s=float(s), step=s, gpus=[{"index": 0, "throttle": throttle(s)}])
                 for _ in range(2)] for s in range(25, 1200, 50)}  # fmt: skip
    body = run(slower(12), extra=extra)
    return [dataclasses.replace(body[0], device={"parameters_on": [device]}), *body[1:]]


def test_warning_when_the_gpu_slowed_itself_down():
    hot = gpu_run(lambda s: ["sw_thermal_slowdown"] if s > 550 else [])
    assert "gpu-throttled" in assert_fires(SLUG, hot, severity="warning").detail
    assert_quiet(SLUG, gpu_run(lambda s: ["sw_power_cap"]), allow_info=True)
    assert_quiet(SLUG, gpu_run(lambda s: ["hw_slowdown"] if s % 150 == 25 else []), allow_info=True)
    assert_quiet(SLUG, gpu_run(lambda s: ["hw_slowdown"], device="cpu"), allow_info=True)


def test_warning_when_gpu_memory_is_short():
    def short(retries):
        body = run(slower(12))
        return [dataclasses.replace(r, alloc_retries=retries(r.index)) if isinstance(r, Interval) else r
                for r in body]  # fmt: skip

    alert = assert_fires(SLUG, short(lambda i: 3 if i >= 11 else 0), severity="warning")
    assert "GPU memory is short" in alert.detail
    assert_quiet(SLUG, short(lambda i: 3), allow_info=True)


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"forward_share": 0.2, "backward_share": 0.7, "optimizer_share": 0.05}, "the backward pass"),
        ({"forward_share": 0.15, "backward_share": 0.3, "optimizer_share": 0.05}, "what the host does"),
        ({"forward_share": 0.1, "backward_share": 0.2, "optimizer_share": 0.6}, "the optimizer's step"),
    ],
)
def test_it_says_which_part_grew(now, said):
    before = {"forward_share": 0.3, "backward_share": 0.6, "optimizer_share": 0.05}
    timed = [
        dataclasses.replace(r, **(now if r.index >= 11 else before)) if isinstance(r, Interval) else r
        for r in run(slower(12))
    ]
    assert said in assert_fires(SLUG, timed, severity="info").detail
    assert "Most of it" not in assert_fires(SLUG, run(slower(12))).detail
