"""repeated-batch: the same input again and again."""

import dataclasses

import torch
from torch import nn

from tests.checks.wiring.trainings import EVERY, SINGLE, Fit, alerts, batch, loud, net, opened, said
from tests.helpers_checks import assert_fires, assert_quiet, layout, records, run_check

SLUG = "repeated-batch"


def fed(order, every=1, dense=0, steps=200, **more):
    """A run whose batch of a step is ``order(step)``; it is seen in the first steps and on every n-th."""

    def fingerprint(step):
        return f"{order(step):08x}" if step <= dense or step % every == 0 else None

    return records(steps=steps, fingerprint=fingerprint, **more)


def stuck_at(step):
    return lambda n: min(n, step)


def test_fires_at_the_fifth_step_with_the_same_batch():
    alert = assert_fires(SLUG, fed(stuck_at(40)), severity="warning", layer=None, since=(40, 40), by=44)
    assert "00000028" in alert.detail
    assert_fires(SLUG, fed(stuck_at(6)), since=(6, 6), by=10)


def test_fires_within_a_line_of_many_steps():
    assert_fires(SLUG, fed(stuck_at(40), batched=50), since=(40, 40), by=50)


def test_fires_on_sampled_steps():
    assert_fires(SLUG, fed(stuck_at(73), every=10, dense=10), since=(80, 80), by=120)


def test_stays_open_as_long_as_it_lasts():
    _, found = run_check(SLUG, fed(stuck_at(40)))
    assert "resolved" not in {a.state for a in found}
    _, found = run_check(SLUG, fed(lambda n: n if n < 40 or n > 60 else 0))
    assert [a.state for a in found if a.state != "updated"] == ["opened", "resolved"]


def test_quiet_on_batches_that_change():
    assert_quiet(SLUG, fed(lambda n: n))
    assert_quiet(SLUG, fed(lambda n: n % 3))


def test_near_miss_four_steps():
    order = fed(lambda n: 50 if 50 <= n < 54 else n)
    assert_quiet(SLUG, order)
    assert_fires(SLUG, order, limits={"steps": 4})


def test_near_miss_overfitting_one_batch_and_full_batches():
    assert_quiet(SLUG, fed(lambda _: 7))
    assert_fires(SLUG, fed(lambda _: 7), limits={"changing": 0}, by=5)


def test_near_miss_several_updates_per_batch():
    assert_quiet(SLUG, fed(lambda n: n // 10))
    assert_quiet(SLUG, fed(lambda n: n // 2 if n < 100 else 50))


def test_near_miss_a_loader_of_ten_batches_seen_at_every_tenth_step():
    run = fed(lambda n: n % 10, every=10, dense=10)
    assert_quiet(SLUG, run)
    assert_fires(SLUG, run, limits={"period": 0})


def test_near_miss_batches_that_were_repeated_between_looks_before():
    run = fed(lambda n: n // 20 if n < 100 else 5, every=10)
    assert_quiet(SLUG, run)
    assert_fires(SLUG, run, limits={"changing": 0})


def test_near_miss_the_rate_of_sampling_falls_to_the_length_of_an_epoch():
    def seen(step):
        return f"{step % 20:08x}" if step % (10 if step < 100 else 20) == 0 else None

    assert_quiet(SLUG, records(steps=400, fingerprint=seen))


def test_near_miss_a_line_search():
    run = fed(stuck_at(40), layers=layout(optimizer="LBFGS"))
    assert_quiet(SLUG, run)
    assert_fires(SLUG, run, limits={"line_search": 0})


# ------------------------------------------------------------------------------------------ real trainings


def stuck(batches, first):
    return lambda n: batches[min(n, first)]


def pool(count=200):
    torch.manual_seed(3)
    return [batch() for _ in range(count)]


def test_an_iterator_that_is_not_advanced_any_more(tmp_path):
    model = net()
    alert = opened(alerts(tmp_path / "r.jsonl", model, Fit(model, data=stuck(pool(), 25)), EVERY), SLUG)
    assert (alert.severity, alert.since_step, alert.step) == ("warning", 25, 29)


def test_it_is_found_on_sampled_steps_too(tmp_path):
    model = net()
    body = Fit(model, data=stuck(pool(), 25), steps=100)
    config = dataclasses.replace(SINGLE, sentinel=False)
    alert = opened(alerts(tmp_path / "r.jsonl", model, body, config), SLUG)
    assert (alert.since_step, alert.step) == (30, 70)


def test_quiet_on_its_twin_and_on_one_batch_from_the_start(tmp_path):
    model, batches = net(), pool()
    body = Fit(model, data=lambda n: batches[n % 7], steps=60)
    assert loud(alerts(tmp_path / "a.jsonl", model, body, EVERY)) == []
    model = net(dropout=0.0)
    found = alerts(tmp_path / "b.jsonl", model, Fit(model, data=lambda _: batches[0]), EVERY)
    assert said(found, SLUG) == []


def test_quiet_on_full_batches_with_a_line_search_after_adam(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
    x, _ = batch(64)
    y = x[:, :1] - x[:, 1:2]

    def body(watch):
        Fit(
            model,
            torch.optim.Adam(model.parameters(), lr=0.01),
            data=lambda _: (x[(some := torch.randperm(64)[:16])], y[some]),
            loss=lambda m, x, y: (m(x) - y).square().mean(),
            steps=20,
        )(watch)
        search = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
        for _ in range(15):

            def closure():
                search.zero_grad()
                loss = (model(x) - y).square().mean()
                loss.backward()
                return loss

            watch.log(loss=search.step(closure))

    assert loud(alerts(tmp_path / "r.jsonl", model, body, EVERY)) == []
