"""What a module's class promises, and that the promises are kept by what it puts out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torchwatch.probes._roles import role_of, unit_axis

ACTIVATIONS = [
    nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(), nn.PReLU(), nn.RReLU(), nn.ELU(), nn.SELU(), nn.CELU(), nn.GELU(),
    nn.SiLU(), nn.Mish(), nn.Softplus(), nn.Softsign(), nn.Hardswish(), nn.Hardtanh(), nn.Hardsigmoid(),
    nn.Sigmoid(), nn.Tanh(), nn.Threshold(0.1, 20), nn.Softshrink(), nn.Hardshrink(), nn.Tanhshrink(),
    nn.LogSigmoid(), nn.GLU(),
]  # fmt: skip
FIRST = [
    nn.Conv1d(2, 2, 1), nn.Conv2d(2, 2, 1), nn.Conv3d(2, 2, 1), nn.ConvTranspose1d(2, 2, 1),
    nn.ConvTranspose2d(2, 2, 1), nn.ConvTranspose3d(2, 2, 1), nn.BatchNorm1d(2), nn.BatchNorm2d(2),
    nn.BatchNorm3d(2),
]  # fmt: skip
OTHERS = [nn.Identity(), nn.Dropout(), nn.LayerNorm(2), nn.Embedding(2, 2), nn.Flatten(), nn.Softmax(1)]


def named(modules: list[nn.Module]) -> list:
    return [pytest.param(module, id=type(module).__name__) for module in modules]


@pytest.mark.parametrize("module", named(ACTIVATIONS))
def test_activations_have_units_and_keep_what_they_promise(module: nn.Module) -> None:
    role = role_of(module)
    assert role.activates
    assert role.channels_first is None
    with torch.no_grad():
        output = module(torch.linspace(-200, 200, 4004).view(2, -1))
    if role.nonnegative:
        assert output.min() >= 0
    if role.bounds is not None:
        low, high = role.bounds
        assert (float(output.min()), float(output.max())) == pytest.approx((low, high), abs=0.01)


@pytest.mark.parametrize(
    "module", named([nn.ReLU(), nn.ReLU6(), nn.Sigmoid(), nn.Hardsigmoid(), nn.Softplus()])
)
def test_what_is_never_below_zero_is_known_as_such(module: nn.Module) -> None:
    """Only then is it read in half the time."""
    assert role_of(module).nonnegative


@pytest.mark.parametrize("module", named([*FIRST, nn.Linear(2, 2), *OTHERS]))
def test_other_modules_have_none_and_promise_nothing(module: nn.Module) -> None:
    role = role_of(module)
    assert (role.activates, role.bounds, role.nonnegative) == (False, None, False)


def test_where_the_units_of_what_follows_are() -> None:
    assert [role_of(module).channels_first for module in FIRST] == [True] * len(FIRST)
    assert role_of(nn.Linear(2, 2)).channels_first is False
    assert [role_of(module).channels_first for module in OTHERS] == [None] * len(OTHERS)


def test_bounds_that_mean_saturation() -> None:
    assert role_of(nn.Hardtanh(-3, 5)).bounds == (-3, 5)
    assert role_of(nn.Hardtanh(0, 0.015)).bounds is None, "nearer to each other than what counts as near"
    assert role_of(nn.ReLU6()).bounds is None, "a rectifier's zero is no saturation"
    assert role_of(nn.Tanh()).bounds == role_of(nn.Softsign()).bounds == (-1, 1)
    assert role_of(nn.Sigmoid()).bounds == role_of(nn.Hardsigmoid()).bounds == (0, 1)


class Shifted(nn.Sigmoid):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) - 5


class Leaking(nn.ReLU):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) - 1


class Wide(nn.Hardtanh):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 9 * super().forward(x)


@pytest.mark.parametrize("module", named([Shifted(), Leaking(), Wide()]))
def test_subclasses_activate_but_are_promised_nothing(module: nn.Module) -> None:
    role = role_of(module)
    assert role.activates
    assert (role.bounds, role.nonnegative) == (None, False)


@pytest.mark.parametrize(
    ("shape", "told", "axis"),
    [
        ((), None, None),
        ((5,), True, None),
        ((5, 7), None, 1),
        ((5, 7), True, 1),
        ((5, 7), False, 1),
        ((5, 9, 7), None, 2),
        ((5, 9, 7), False, 2),
        ((5, 7, 9), True, 1),
        ((5, 7, 9, 9), None, 1),
        ((5, 7, 9, 9), True, 1),
        ((5, 9, 9, 7), False, 3),
        ((5, 7, 2, 9, 9), None, 1),
    ],
)
def test_the_axis_of_the_units(shape: tuple[int, ...], told: bool | None, axis: int | None) -> None:
    """Channels of images, else features; ``told``: what the last convolution or linear layer said."""
    assert unit_axis(torch.zeros(shape), channels_first=told) == axis
    assert axis is None or shape[axis] == 7
