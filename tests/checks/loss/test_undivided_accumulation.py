import numpy as np
import pytest

from tests.helpers_checks import assert_fires, assert_quiet, records

SLUG = "undivided-accumulation"


def run(scale=4.0, passes=(1, 4), change=200, noise=0.2, sampled=10, loss=1.0, **options):
    """The number of passes changes after step ``change``, and the gradient norm by ``scale``."""
    rng = np.random.default_rng(0)
    norms = np.exp(noise * rng.standard_normal(400)) * np.where(np.arange(400) < change, 1.0, scale)

    def inputs(n):
        due = n <= 10 or n % sampled == 0
        return {"passes": passes[n > change], "batch": 8, "mean": n} if due else None

    body = {"inputs": inputs, "grad_norm": norms.tolist(), "interval_steps": 100} | options
    return records([1.0] * change + [loss] * (400 - change), **body)


def test_the_gradient_grows_with_the_passes():
    alert = assert_fires(SLUG, run(), severity="info", since=(201, 210), by=400)
    assert 3.5 < alert.value < 4.5
    assert "4 passes" in alert.title


def test_norms_before_clipping_count():
    clipped = run(grad_norm=1.0, grad_norm_preclip=lambda n: 1.0 + 0.1 * (n % 3) + 3 * (n > 200))
    assert_fires(SLUG, clipped)


def test_accumulation_that_ends_shows_it_as_well():
    alert = assert_fires(SLUG, run(scale=0.25, passes=(4, 1)), since=(1, 1))
    assert 3.5 < alert.value < 4.5


def test_gradients_that_are_mostly_noise_grow_by_the_root():
    assert_fires(SLUG, run(2.0))
    assert_quiet(SLUG, run(2.0), limits={"exponent": 0.6})


@pytest.mark.parametrize("scale", [1.0, 0.5, 1.5, 8.0])
def test_near_miss_another_factor(scale):
    """A divided loss leaves the norm, or brings it down by the root."""
    assert_quiet(SLUG, run(scale))


def test_the_exponents_are_honoured():
    assert_fires(SLUG, run(1.5), limits={"exponent": 0.2})
    assert_fires(SLUG, run(8.0), limits={"most_exponent": 2})


def test_near_miss_half_as_many_passes_more():
    assert_quiet(SLUG, run(1.5, passes=(2, 3)))
    assert_fires(SLUG, run(1.5, passes=(2, 3), noise=0.05), limits={"factor": 1.4})


def test_near_miss_within_noise():
    assert_quiet(SLUG, run(2.0, passes=(1, 2), noise=1.0))
    assert_fires(SLUG, run(2.0, passes=(1, 2), noise=1.0), limits={"sigmas": 0, "most_exponent": 2})


def test_near_miss_the_loss_changed_too():
    assert_quiet(SLUG, run(loss=4.0))
    assert_fires(SLUG, run(loss=4.0), limits={"loss": 0})


def test_near_miss_one_step_with_other_passes():
    assert_quiet(SLUG, run(change=399), ready=False)


def test_steps_are_honoured():
    assert_quiet(SLUG, run(), limits={"steps": 300}, ready=False)
    assert_fires(SLUG, run(), limits={"most_steps": 10})


def test_not_ready_where_the_passes_never_changed():
    engine = assert_quiet(SLUG, run(passes=(4, 4)), ready=False)
    assert "has not changed" in engine.not_run()[SLUG]


def test_not_run_without_inputs():
    assert assert_quiet(SLUG, run(inputs=None), ready=False).not_run() == {SLUG: "no `inputs`"}
