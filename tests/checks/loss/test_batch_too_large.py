import numpy as np

from tests.helpers_checks import assert_fires, assert_quiet, records

SLUG = "batch-too-large"
STILL = [2.0, 1.5, 1.2, 1.21, 1.22, 1.2, 1.23, 1.21]


def run(noise=3e-4, val=STILL, level=1.0, first=2.5, **options):
    rng = np.random.default_rng(0)
    means = np.concatenate([np.full(50, first), np.full(50 * (len(val) - 1), level)])
    loss = means * (1 + noise * rng.standard_normal(means.size))
    evals = {50 * (i + 1): {"val_loss": v} for i, v in enumerate(val)}
    return records(loss, **{"evals": evals, "samples": 8192} | options)


def test_no_noise_and_no_progress_are_a_note():
    alert = assert_fires(SLUG, run(), severity="info", by=350)
    assert "8192 samples" in alert.detail
    assert "Against it" in alert.detail
    assert_quiet(SLUG, run(), allow_info=True)


def test_the_same_batch_every_time_is_told():
    alert = assert_fires(SLUG, run(fingerprint="00000001"))
    assert "same batch" in alert.detail


def test_near_miss_a_little_more_noise():
    assert_quiet(SLUG, run(noise=2e-3))
    assert_fires(SLUG, run(noise=2e-3), limits={"noise": 3e-3})


def test_near_miss_validation_improves():
    better = [2.0 - 0.1 * i for i in range(8)]
    assert_quiet(SLUG, run(val=better))
    assert_quiet(SLUG, run(val=[*STILL[:5], 1.1]))


def test_evals_are_honoured():
    assert_quiet(SLUG, run(), limits={"evals": 6})
    assert_fires(SLUG, run(), limits={"evals": 1}, by=250)


def test_near_miss_a_constant_loss_is_another_check():
    assert_quiet(SLUG, run(noise=0.0))


def test_near_miss_a_memorised_training_set():
    assert_quiet(SLUG, run(level=0.01))
    assert_fires(SLUG, run(level=0.01), limits={"memorised": 0})


def test_near_miss_the_first_interval():
    assert_quiet(SLUG, run(val=[1.0, 1.1], interval_steps=100), ready=False)
    four = {n: {"val_loss": 1.0} for n in (10, 20, 30, 40)}
    first = run(val=[1.0], first=1.0, evals=four)
    assert_quiet(SLUG, first, ready=False)
    assert_fires(SLUG, first, limits={"warm_up": 0})


def test_not_run_without_a_validation_loss():
    engine = assert_quiet(SLUG, run(evals={}), ready=False)
    assert engine.not_run() == {SLUG: "no `val_loss`"}
