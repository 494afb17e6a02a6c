"""tiny-batch-norm: fewer than four values per channel."""

import dataclasses

from tests.checks.wiring.trainings import Fit, alerts, batch, loud, net, opened
from tests.helpers_checks import assert_fires, assert_quiet, layout, records, run_check

SLUG = "tiny-batch-norm"


def small(first=1, last=60, layers=(1,), values=(2,), every=1, **more):
    """A run whose batch norms see few values in the sampled steps from ``first`` to ``last``."""
    some = {"small_batch_norms": list(layers), "small_batch_values": list(values)}
    maps = {1: {"training": True}, first: some, last + 1: {"training": True}}
    kept = {"layers": layout(), "columns": {"weight_norms": 1.0}, "columns_every": every} | more
    return records(steps=60, wiring=maps.get, **kept)


def test_fires_at_the_third_step():
    alert = assert_fires(SLUG, small(), severity="warning", layer="1", since=(1, 1), by=3)
    assert "1 batch norm sees 2 values per channel" in alert.title


def test_the_first_called_layer_and_the_fewest_values_are_named():
    base = layout()
    layers = [dataclasses.replace(x, order=2 - i) for i, x in enumerate(base.layers)]
    run = small(layers=(0, 2), values=(3, 1))
    run[1] = dataclasses.replace(run[1], layers=layers)
    alert = assert_fires(SLUG, run, layer="2")
    assert "2 batch norms see 1 value per channel" in alert.title
    assert "2, 0" in alert.detail


def test_quiet_on_batches_that_are_large_enough():
    assert_quiet(SLUG, records(steps=60, wiring=lambda s: {"training": True} if s == 1 else None))


def test_near_miss_the_last_batch_of_an_epoch():
    assert_quiet(SLUG, small(first=20, last=21))


def test_near_miss_one_look_holds_for_many_steps():
    """Between two looks the map stays, but nothing was seen."""
    run = small(first=20, last=39, every=20)
    assert_quiet(SLUG, run)
    assert_fires(SLUG, run, limits={"looks": 1, "period": 0})


def test_near_miss_every_look_meets_the_last_batch_of_an_epoch():
    """Ten steps per epoch, and every tenth step is sampled."""
    run = small(first=10, last=60, every=10)
    assert_quiet(SLUG, run)
    assert_fires(SLUG, run, limits={"period": 0}, by=30)


def test_fires_where_a_large_batch_was_seen_at_that_place():
    assert_fires(SLUG, small(first=30, last=60, every=10), since=(30, 30), by=50)


def test_limits():
    assert_quiet(SLUG, small(), limits={"values": 2})
    assert_fires(SLUG, small(), limits={"values": 3})
    assert_quiet(SLUG, small(), limits={"looks": 100})


def test_resolved_when_batches_grow():
    _, found = run_check(SLUG, small(last=20))
    assert [a.state for a in found] == ["opened", "resolved"]


# ------------------------------------------------------------------------------------------ real trainings


def test_batches_of_two(tmp_path):
    model = net()
    alert = opened(alerts(tmp_path / "r.jsonl", model, Fit(model, data=lambda _: batch(2))), SLUG)
    assert (alert.severity, alert.layer, alert.since_step, alert.value) == ("warning", "1", 1, 2)
    assert alert.step <= 5


def test_quiet_on_its_twins(tmp_path):
    """Large batches, a small one at the end of each epoch, and norms in evaluation mode."""
    model = net()
    body = Fit(model, data=lambda n: batch(3 if n % 10 == 0 else 32))
    assert loud(alerts(tmp_path / "a.jsonl", model, body)) == []
    model = net()
    body = Fit(model, data=lambda _: batch(2), before=lambda _: model[1].eval())
    assert loud(alerts(tmp_path / "b.jsonl", model, body)) == []
