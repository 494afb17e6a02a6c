import dataclasses
import math

import numpy as np

from tests.helpers_checks import assert_fires, assert_quiet, records, run_check

SLUG = "metric-anomaly"
N = 60


def run(jump=(0.4, 1.2, 0.0, 0.0), at=50, *, n=N, correlated=0.0, seed=0, lr=0.01, lengths=20, **given):
    """Interval ``at`` is off by ``jump`` (loss, gradient norm, throughput, memory) on a logarithmic scale."""
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal(n)
    own = rng.standard_normal((n, 4))
    noise = np.array([0.03, 0.1, 0.02, 0.0]) * (
        correlated * shared[:, None] + math.sqrt(1 - correlated**2) * own
    )
    noise[at] += jump
    loss = (0.5 + 2 * np.exp(-np.arange(n) / 15)) * np.exp(noise[:, 0])
    fields = {
        "loss_mean": loss.tolist(),
        "grad_norm_median": (0.3 * np.exp(noise[:, 1])).tolist(),
        "samples_per_s": (900 * np.exp(noise[:, 2])).tolist(),
        "rss_bytes": (1e9 * np.exp(noise[:, 3])).round().astype(int).tolist(),
    }
    return records(
        np.repeat(loss, 20), interval_steps=lengths, lr=lr, grad_norm=0.3, samples=8, intervals=fields | given
    )


def test_two_metrics_jump_together():
    alert = assert_fires(SLUG, run(), severity="info", since=(1001, 1001), by=1020)
    assert "loss" in alert.title
    assert "gradient norm" in alert.title
    assert alert.value > 5


def test_a_pair_that_parts_company():
    """Neither is an anomaly alone, but the two always went together."""
    jump = (0.14, -0.3, 0.0, 0.0)
    assert_fires(SLUG, run(jump, correlated=0.99))
    assert_quiet(SLUG, run(jump, correlated=0.0))


def test_memory_that_stood_still_may_move_a_little():
    assert_quiet(SLUG, run((0.0, 0.0, 0.0, 0.05)))
    assert_fires(SLUG, run((0.0, 0.0, 0.0, 0.05)), limits={"least_sigma": 1e-4})


def test_near_miss_four_sigma():
    assert_quiet(SLUG, run((0.12, 0.4, 0.0, 0.0)))
    assert_fires(SLUG, run((0.12, 0.4, 0.0, 0.0), seed=4), limits={"p": 0.01})


def test_near_miss_a_specific_check_speaks():
    assert_quiet(SLUG, run((0.8, 1.2, 0.0, 0.0)))
    assert_fires(SLUG, run((0.8, 1.2, 0.0, 0.0)), limits={"specific": 0})
    assert_quiet(SLUG, run((0.4, 1.2, -0.3, 0.0)))


def test_near_miss_a_change_for_the_better():
    assert_quiet(SLUG, run((-0.5, 0.0, 0.3, 0.0)))
    assert_fires(SLUG, run((-0.5, 0.0, 0.3, 0.0)), limits={"unseen": 0})


def test_near_miss_the_learning_rate_changed():
    lr = [0.01] * 1000 + [0.02] * 200
    assert_quiet(SLUG, run(lr=lr))
    assert_fires(SLUG, run(lr=lr), limits={"lr": 0})


def test_near_miss_a_short_interval():
    body = run(lengths=20, at=59)
    short = [r for r in body if getattr(r, "index", None) != 59]
    odd = [r for r in body if getattr(r, "index", None) == 59]
    odd = [dataclasses.replace(r, steps=5) for r in odd]
    assert_quiet(SLUG, [*short, *odd])


def test_near_miss_too_few_intervals_before():
    assert_quiet(SLUG, run(at=30, n=45))
    assert_fires(SLUG, run(at=30, n=45), limits={"intervals": 20})
    engine, _ = run_check(SLUG, run(n=30, at=20))
    assert "needs 30" in engine.not_run()[SLUG]


def test_most_intervals_are_honoured():
    assert_fires(SLUG, run(), limits={"most_intervals": 30})


def test_one_metric_alone_is_not_judged():
    alone = run(grad_norm_median=None, samples_per_s=None, steps_per_s=None, rss_bytes=None)
    assert "fewer than two" in assert_quiet(SLUG, alone, ready=False).not_run()[SLUG]


def test_hardly_ever_in_healthy_runs():
    for seed in range(20):
        assert_quiet(SLUG, run((0.0, 0.0, 0.0, 0.0), n=120, at=5, seed=seed))
