"""missing-zero-grad: gradients are never cleared."""

from tests.checks.wiring.trainings import alerts, batch, entropy, loud, net, opened, sgd
from tests.helpers_checks import assert_fires, assert_quiet, records, run_check

SLUG = "missing-zero-grad"


def watched(stale, count=60):
    """Watched in the first ten steps and on every tenth."""
    return [stale(i) if i <= 10 or i % 10 == 0 else None for i in range(1, count + 1)]


def test_fires_at_the_fourth_step():
    run = records(
        steps=60, stale_gradients=watched(lambda i: i > 1), grad_norm=[float(i) for i in range(1, 61)]
    )
    alert = assert_fires(SLUG, run, severity="critical", layer=None, since=(2, 2), by=4)
    assert "from 2 to 4" in alert.detail


def test_fires_within_a_line_of_many_steps():
    assert_fires(
        SLUG, records(steps=60, stale_gradients=watched(lambda i: i > 1), batched=30), since=(2, 2), by=30
    )


def test_fires_when_it_begins_later_on_sampled_steps_only():
    assert_fires(SLUG, records(steps=60, stale_gradients=watched(lambda i: i > 25)), since=(30, 30), by=50)


def test_stays_open_on_steps_that_were_not_watched():
    _, alerts = run_check(SLUG, records(steps=99, stale_gradients=watched(lambda i: i > 1, 99)))
    assert "resolved" not in {a.state for a in alerts}


def test_quiet_on_cleared_gradients():
    assert_quiet(SLUG, records(steps=60, stale_gradients=watched(lambda _: False)))


def test_near_miss_two_stale_steps_between_clean_ones():
    run = records(steps=60, stale_gradients=watched(lambda i: i % 3 != 0))
    assert_quiet(SLUG, run)
    assert_fires(SLUG, run, limits={"steps": 2})


def test_near_miss_zeroed_between_backward_and_step():
    """That is a mistake too, but another one: the optimizer sees no gradient at all."""
    norms = [1.0, *[0.0] * 59]
    assert_quiet(SLUG, records(steps=60, stale_gradients=watched(lambda i: i > 1), grad_norm=norms))


# ------------------------------------------------------------------------------------------ real trainings


def trained(clear, passes=1):
    model = net()
    optimizer = sgd(model, lr=1e-3)

    def body(watch):
        for _ in range(20):
            if clear:
                optimizer.zero_grad()
            for _ in range(passes):
                loss = entropy(model, *batch())
                loss.backward()
            optimizer.step()
            watch.log(loss=loss)

    return model, body


def test_gradients_that_are_never_cleared(tmp_path):
    for passes in (1, 3):
        found = alerts(tmp_path / f"{passes}.jsonl", *trained(clear=False, passes=passes))
        alert = opened(found, SLUG)
        assert (alert.severity, alert.since_step, alert.step) == ("critical", 2, 4)


def test_quiet_on_its_twins(tmp_path):
    for passes in (1, 3):
        assert loud(alerts(tmp_path / f"{passes}.jsonl", *trained(clear=True, passes=passes))) == []
