"""attention-entropy-collapse: heads that look at one key only, and did not at first."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.helpers_checks import assert_fires, assert_quiet, records, run_check
from tests.helpers_training import trained
from torchwatch.records import Attention

SLUG = "attention-entropy-collapse"


def run(entropy, steps=200, loss=1.0, name="blocks.0.attn", **more):
    """``entropy`` of the heads as a function of the step, measured at every tenth."""
    extra = {
        step: [Attention(step, 0.0, {"layers": [{"name": name, "heads": 4, "entropy": entropy(step)}]})]
        for step in range(10, steps + 1, 10)
    }
    return records(loss, steps=steps, extra=extra, **more)


def falls(heads, at=100, to=0.02, start=0.9):
    return lambda step: [to if i < heads and step >= at else start for i in range(4)]


def test_fires_when_half_of_the_heads_collapse():
    alert = assert_fires(
        SLUG, run(falls(2)), severity="warning", layer="blocks.0.attn", since=(100, 100), by=150
    )
    assert alert.title == "2 of 4 heads of blocks.0.attn look at one key only"


def test_several_calls_of_a_module_are_one_layer():
    assert_fires(SLUG, run(falls(4), name="attn#2"), layer="attn")


def test_single_heads_are_noted():
    assert_fires(SLUG, run(falls(1)), severity="info", layer=None)
    assert_quiet(SLUG, run(falls(1)), allow_info=True)


def test_quiet_on_sharp_heads():
    assert_quiet(SLUG, run(falls(4, to=0.15)))


def test_near_miss_sharp_from_the_start():
    sinks = run(falls(4, at=1, to=0.05))
    assert_quiet(SLUG, sinks)
    assert_fires(SLUG, sinks, limits={"fell": 0})
    assert_quiet(SLUG, run(falls(4, to=0.08, start=0.12)))


def test_near_miss_two_measurements():
    two = run(lambda step: [0.02 if step in (130, 140) else 0.9] * 4)
    assert_quiet(SLUG, two)
    assert_fires(SLUG, two, limits={"observations": 2})


def test_near_miss_the_loss_is_at_its_best():
    learns = run(falls(4), loss=lambda i: 3.0 - i / 100)
    assert_quiet(SLUG, learns, allow_info=True)
    assert_fires(SLUG, learns, severity="warning", limits={"best_loss": 0})


def test_what_was_not_measured_is_no_collapse():
    assert_quiet(SLUG, run(lambda step: [None, 0.9, 0.9, 0.9]))
    engine, _ = run_check(SLUG, run(lambda step: [0.9] * 4, steps=20))
    assert "needs 3 measurements" in engine.not_run()[SLUG] or "interval" in engine.not_run()[SLUG]


class Attends(nn.Module):
    """One attention layer between two linear ones."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(8, 32), nn.Linear(32, 4)
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)

    def forward(self, x):
        x = self.embed(x)
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))


@pytest.mark.parametrize("rate", [0.3, 1e-3])
def test_a_real_rate_that_is_far_too_large(rate, tmp_path):
    def loss(model, step):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(32, 12, 8, generator=generator)
        return functional.cross_entropy(model(x), torch.randint(4, (32,), generator=generator))

    made = trained(
        tmp_path, Attends, loss, steps=100, activations_every=5,
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=rate),
    )  # fmt: skip
    if rate > 0.1:
        assert_fires(SLUG, made, severity="warning", layer="attention")
    else:
        assert_quiet(SLUG, made)
