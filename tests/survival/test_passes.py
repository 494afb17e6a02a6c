"""Which forward passes count: those that are trained on, each once. One row per way to run a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tests.survival.conduct import EVERYTHING, survive
from tests.zoo import numbers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.zoo import Stage

FAR = 1e4
"""What a pass that does not count is fed with: in any mean it would show."""


class Net(nn.Module):
    """Two watched layers; ``through`` says how the first is run."""

    def __init__(self, through: Callable[[nn.Module, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(5, 8), nn.Dropout(0.1), nn.Linear(8, 3)
        self.through = through or (lambda layer, x: layer(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.drop(self.through(self.first, x).relu()))


def ordinary(net: Net, x: Tensor, y: Tensor) -> Tensor:
    loss = F.mse_loss(net(x), y)
    loss.backward()
    return loss


def nothing(net: Net, x: Tensor) -> None:
    """No other pass."""


def without_gradients(net: Net, x: Tensor) -> None:
    with torch.no_grad():
        net(x * FAR)


def in_inference_mode(net: Net, x: Tensor) -> None:
    with torch.inference_mode():
        net(x * FAR)


def evaluating_with_gradients_on(net: Net, x: Tensor) -> None:
    net.eval()
    net(x * FAR)
    net.train()


def rolling_out(net: Net, x: Tensor) -> None:
    """Feeds on its own output, with gradients on, and never differentiates."""
    for _ in range(3):
        x = F.pad(net(x * FAR), (0, 2))


def throwing_a_loss_away(net: Net, x: Tensor) -> None:
    net(x * FAR).square().mean()


def retaining_the_graph(net: Net, x: Tensor, y: Tensor) -> Tensor:
    loss = F.mse_loss(net(x), y)
    loss.backward(retain_graph=True)
    loss.backward()
    return loss


def penalising_the_gradient(net: Net, x: Tensor, y: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    out = net(x)
    (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
    loss = F.mse_loss(out, y) + slope.square().mean()
    loss.backward()
    return loss


def by_autograd_grad(net: Net, x: Tensor, y: Tensor) -> Tensor:
    loss = F.mse_loss(net(x), y)
    parameters = list(net.parameters())
    for parameter, slope in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = slope
    return loss


def by_autograd_backward(net: Net, x: Tensor, y: Tensor) -> Tensor:
    loss = F.mse_loss(net(x), y)
    torch.autograd.backward([loss])
    return loss


def checkpointed(*, reentrant: bool) -> Callable[[nn.Module, Tensor], Tensor]:
    def through(layer: nn.Module, x: Tensor) -> Tensor:
        return checkpoint(layer, x.requires_grad_() if reentrant else x, use_reentrant=reentrant)

    return through


def fine_tuned(net: Net) -> Net:
    return net.eval()


ROWS: dict[str, dict[str, Any]] = {
    "plain": {},
    "checkpoint-reentrant": {"through": checkpointed(reentrant=True)},
    "checkpoint": {"through": checkpointed(reentrant=False)},
    "no-grad": {"between": without_gradients},
    "inference-mode": {"between": in_inference_mode},
    "eval-with-gradients-on": {"between": evaluating_with_gradients_on},
    "rollout": {"between": rolling_out},
    "discarded-loss": {"between": throwing_a_loss_away},
    "fine-tuning-in-eval": {"prepare": fine_tuned},
    "retain-graph": {"train": retaining_the_graph},
    "gradient-penalty": {"train": penalising_the_gradient},
    "autograd-grad": {"train": by_autograd_grad},
    "autograd-backward": {"train": by_autograd_backward},
}


@pytest.mark.parametrize("row", ROWS)
def test_a_pass_counts_once_and_only_if_it_is_trained_on(row: str, tmp_path: Path) -> None:
    how = ROWS[row]
    truth: list[tuple[float, float]] = []

    def play(stage: Stage) -> None:
        net = Net(how.get("through"))
        net = how.get("prepare", lambda n: n)(net)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
        truth.clear()
        with stage.watch(net) as watch:
            for x, y in numbers(6, 5, count=6):
                how.get("between", nothing)(net, x)
                with torch.no_grad():
                    out = F.linear(x, net.first.weight, net.first.bias).double()
                truth.append((out.mean().item(), out.square().mean().sqrt().item()))
                optimizer.zero_grad()
                loss = how.get("train", ordinary)(net, x, y)
                stage.gradients(net)
                how.get("between", nothing)(net, x)
                optimizer.step()
                watch.log(loss=loss)
                stage.step(loss)
        stage.end(net, optimizer)

    survival = survive(play, tmp_path / "run.jsonl", EVERYTHING)
    assert len(survival.steps) == 6
    place = [layer.name for layer in survival.layouts[-1].layers].index("first")
    for name, expected in zip(("mean", "rms"), np.array(truth).T, strict=True):
        seen = [float((step.activations or {})[name][place]) for step in survival.steps]
        assert seen == pytest.approx(list(expected), rel=1e-3, abs=1e-5), name
