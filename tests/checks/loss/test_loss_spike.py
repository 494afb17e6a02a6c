import numpy as np
import pytest

from tests.helpers_checks import assert_fires, assert_quiet, records, run_check

SLUG = "loss-spike"
NO_GUARDS = {"least_ratio": 0, "first_floor": 0, "rare": 0, "burst": 0, "lr_intervals": 0}


def curve(n=400, share=0.05, seed=0):
    level = 0.3 + 2 * np.exp(-np.arange(n) / 60)
    return level * np.exp(share * np.random.default_rng(seed).standard_normal(n))


def spiked(factor, *at, share=0.05):
    loss = curve(share=share)
    loss[np.array(at) - 1] *= factor
    return loss


@pytest.mark.parametrize("batched", [None, 13, 100])
def test_one_spike_is_noted_with_its_step(batched):
    alert = assert_fires(
        SLUG, records(spiked(30, 250), batched=batched), severity="info", since=(250, 250), by=300
    )
    assert "at step 250" in alert.title
    assert "batch of step 250" in alert.fix
    assert_quiet(SLUG, records(spiked(30, 250), batched=batched), allow_info=True)


def test_a_burst_without_a_gap_is_a_warning_when_the_loss_is_back():
    assert_fires(SLUG, records(spiked(60, 250, 251, 252)), severity="warning", since=(250, 250), by=253)


def test_near_miss_a_loss_that_stays_up():
    """New classes: the loss jumps above where it began, and comes down over the next steps."""
    loss = spiked(1, 10)
    loss[249:] += 9 * np.exp(-np.arange(loss.size - 249) / 12)
    assert loss[249] > loss[:20].mean()
    assert_quiet(SLUG, records(loss), allow_info=True)


def test_a_burst_above_the_first_level_is_one_warning():
    _, alerts = run_check(SLUG, records(spiked(60, 250, 252, 253)))
    assert [a.state for a in alerts if a.state == "opened"] == ["opened"]
    assert_fires(SLUG, records(spiked(60, 250, 252, 253)), severity="warning", since=(250, 250), by=260)


def test_a_burst_below_the_first_level_is_only_noted():
    assert_quiet(SLUG, records(spiked(3, 350, 352, 353)), allow_info=True)


def test_names_the_gradient_norm():
    norm = np.ones(400)
    norm[249] = 77.0
    assert (
        "Gradient norm of that step 77" in assert_fires(SLUG, records(spiked(30, 250), grad_norm=norm)).detail
    )


def test_near_miss_four_sigma():
    assert_quiet(SLUG, records(spiked(1.45, 350, share=0.1)))


def test_near_miss_heavy_tails():
    loss = curve(2000, share=0.8)
    assert_quiet(SLUG, records(loss, batched=20), allow_info=True)


def test_near_miss_hard_batches_are_the_distribution():
    loss = curve(1000)
    loss[np.random.default_rng(3).random(1000) < 0.1] *= 6
    assert_quiet(SLUG, records(loss, batched=20), allow_info=True)


def test_near_miss_far_below_the_first_level():
    loss = curve(600)
    loss[100:] = 1e-4
    loss[400] = 5e-3
    assert_quiet(SLUG, records(loss))
    assert_fires(SLUG, records(loss), limits={"first_floor": 0}, since=(401, 401))


def test_after_an_lr_rise_it_is_only_noted():
    lr = np.where(np.arange(400) < 245, 0.01, 0.1)
    assert_quiet(SLUG, records(spiked(60, 250, 251, 252), lr=lr), allow_info=True)
    assert_fires(
        SLUG, records(spiked(60, 250, 251, 252), lr=lr), severity="warning", limits={"lr_intervals": 0}
    )


def test_a_negative_loss_is_judged_linearly():
    loss = -5 + 0.1 * np.random.default_rng(0).standard_normal(300)
    assert_quiet(SLUG, records(loss))
    loss[200] = 0.0
    assert_fires(SLUG, records(loss), since=(201, 201))


def test_guards_off_leave_the_bare_trigger():
    loss = spiked(1.45, 350, share=0.02)
    assert_quiet(SLUG, records(loss))
    assert_fires(SLUG, records(loss), since=(350, 350), limits=NO_GUARDS)


def test_not_armed_before_64_losses():
    loss = curve(64)
    loss[40] *= 50
    assert_quiet(SLUG, records(loss), ready=False)


def test_sigmas_are_honoured():
    assert_quiet(SLUG, records(spiked(4, 350)), limits={"sigmas": 60.0})
    assert_fires(SLUG, records(spiked(4, 350)), limits={"sigmas": 5.0}, since=(350, 350))


def test_near_miss_bursts_of_hard_batches_above_the_first_level():
    rng = np.random.default_rng(0)
    loss = np.exp(0.05 * rng.standard_normal(1500)) * np.where(rng.random(1500) < 0.1, 4.0, 1.0)
    assert_quiet(SLUG, records(loss, batched=10), allow_info=True)
    assert_fires(SLUG, records(loss, batched=10), severity="warning", limits={"rare": 0, "chance": 0})


def test_near_miss_hard_batches_that_meet_by_chance():
    rng = np.random.default_rng(0)
    loss = 0.6 * np.exp(0.1 * rng.standard_normal(800))
    loss[:20] = 2.0
    loss[40:700:40] *= 4
    loss[[700, 702, 703]] *= 4.5
    run = records(loss, interval_steps=100)
    assert_quiet(SLUG, run, allow_info=True)
    assert_fires(SLUG, run, severity="warning", limits={"chance": 0, "rare": 0})


def test_a_loss_around_zero_has_no_ratio_but_spikes():
    loss = np.zeros(300)
    loss[1::4] = -1.0
    loss[2::4] = 1.0
    loss[[200, 201, 202]] = 50.0
    assert_fires(SLUG, records(loss), severity="warning", since=(201, 201))
