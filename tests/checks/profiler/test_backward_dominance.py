"""backward-dominance: the backward pass takes much more than its usual two thirds."""

import torch
from torch import nn

from tests.checks.windows import profiled, train_and_profile
from tests.helpers_checks import assert_fires, assert_quiet
from torchwatch.diagnosis import diagnose

SLUG = "backward-dominance"
LAYERS = {"0": ("Linear", 10, 0.5), "1": ("Linear", 10, 0.5)}


def run(forward_s, backward_s, **more):
    return profiled(LAYERS, forward_s=forward_s, backward_s=backward_s, **more)


def test_fires():
    alert = assert_fires(SLUG, run(1.0, 4.0), severity="info", layer=None, since=(58, 58))
    assert alert.title == "The backward pass takes 80 % of both passes"
    assert alert.value == 0.8


def test_quiet_at_two_thirds_and_near_miss():
    assert_quiet(SLUG, run(1.0, 2.0))
    assert_quiet(SLUG, run(1.0, 2.99))


def test_near_miss_the_window_does_not_see_all_of_the_forward_pass():
    """Functional attention runs in no layer: by the clock of sampled steps the passes are as usual."""
    clock = {"forward_share": 0.3, "backward_share": 0.6}
    assert_quiet(SLUG, run(1.0, 4.0, intervals=clock))
    alert = assert_fires(SLUG, run(1.0, 4.0, intervals={"forward_share": 0.15, "backward_share": 0.8}))
    assert "the clock" in alert.detail


def test_near_miss_nothing_was_timed():
    assert_quiet(SLUG, run(None, None), ready=False)
    assert_quiet(SLUG, run(0.0, 0.0), ready=False)


def test_the_limit_is_the_share():
    assert_fires(SLUG, run(1.0, 1.5), limits={"share": 0.45})


class _Slow(torch.autograd.Function):
    """Its backward pass multiplies again and again."""

    @staticmethod
    def forward(ctx, x):
        return x * 1.0

    @staticmethod
    def backward(ctx, grad):
        square = torch.ones(400, 400)
        for _ in range(20):
            square = square @ square / 400
        return grad * square[0, 0]


class _Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(64, 64), nn.Linear(64, 8)

    def forward(self, x):
        return self.last(_Slow.apply(self.first(x)))


def test_a_real_model_with_a_slow_backward(tmp_path):
    train_and_profile(_Net(), torch.randn(256, 64), tmp_path / "run.jsonl")
    found = diagnose(tmp_path / "run.jsonl")
    assert SLUG in {i.check for i in found.issues}
    assert found.replay_matches
