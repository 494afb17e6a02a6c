"""forward-backward-ratio: the forward pass is short against the backward pass."""

from tests.checks.windows import profiled
from tests.helpers_checks import assert_fires, assert_quiet

SLUG = "forward-backward-ratio"
LAYERS = {"0": ("Linear", 10, 0.5), "1": ("Linear", 10, 0.5)}


def run(forward_s, backward_s, **more):
    return profiled(LAYERS, forward_s=forward_s, backward_s=backward_s, **more)


def test_fires_and_names_the_longest_operator():
    top = [{"name": "aten::index_put_", "s": 0.012}, {"name": "aten::mm", "s": 0.001}]
    alert = assert_fires(SLUG, run(1.0, 10.0, top=top), severity="info", layer=None, since=(58, 58))
    assert alert.title == "The forward pass takes 10 % of the backward pass's time"
    assert "aten::index_put_ (12 ms)" in alert.detail


def test_quiet_and_near_miss():
    assert_quiet(SLUG, run(1.0, 2.0))
    assert_quiet(SLUG, run(1.0, 6.6))


def test_near_miss_by_the_clock_it_is_longer():
    assert_quiet(SLUG, run(1.0, 10.0, intervals={"forward_share": 0.2, "backward_share": 0.7}))
    assert_fires(SLUG, run(1.0, 10.0, intervals={"forward_share": 0.05, "backward_share": 0.9}))


def test_near_miss_nothing_was_timed():
    assert_quiet(SLUG, run(0.0, 1.0), ready=False)


def test_limit():
    assert_fires(SLUG, run(1.0, 4.0), limits={"ratio": 0.3})


def test_a_window_without_operators():
    assert_fires(SLUG, run(1.0, 10.0, top=[]))
    assert_fires(SLUG, run(1.0, 10.0, top=[{"name": "x"}]))
