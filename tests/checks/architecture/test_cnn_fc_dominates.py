"""cnn-fc-dominates: a Linear layer behind a flatten holds nearly all parameters."""

import dataclasses

import torch
import torch.nn.functional as F
from torch import nn

from tests.checks.architecture.real import changed, layout_of, recorded, zoo
from tests.helpers_checks import assert_fires, assert_quiet, run_check
from torchwatch.checks.architecture._flatten import flattened

SLUG = "cnn-fc-dominates"
DIGITS = torch.randn(2, 1, 28, 28)


def small(*between: nn.Module, features: int, hidden: int = 128) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), *between, nn.Flatten(), nn.Linear(features, hidden), nn.ReLU(),
        nn.Linear(hidden, 10),
    )  # fmt: skip


class Example(nn.Module):
    """PyTorch's own MNIST example: pooling and flatten are functions, dropout is a module."""

    def __init__(self, *, dropout: bool = True) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3)
        self.drop = nn.Dropout(0.25) if dropout else None
        self.fc1, self.fc2 = nn.Linear(9216, 128), nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(x)))), 2)
        x = self.drop(x) if self.drop is not None else x
        return self.fc2(F.relu(self.fc1(torch.flatten(x, 1))))


def test_fires_and_says_how_much():
    alert = assert_fires(
        SLUG, recorded(small(features=5408), DIGITS), layer="3", severity="info", since=(0, 1)
    )
    assert alert.title.startswith("100% of all parameters")
    assert "8 channels at 676 places" in alert.detail
    assert alert.threshold == 0.92


def test_fires_on_the_mnist_example_with_functions_between():
    assert_fires(SLUG, recorded(Example(), DIGITS), layer="fc1")
    assert_fires(SLUG, recorded(Example(dropout=False), DIGITS), layer="fc1")


def test_quiet_where_the_map_is_pooled_to_one_place():
    assert_quiet(SLUG, recorded(small(nn.AdaptiveAvgPool2d(1), features=8, hidden=4000), DIGITS))


def test_quiet_where_a_later_linear_layer_is_the_large_one():
    model = small(nn.MaxPool2d(13), features=32, hidden=20)
    model.extend([nn.ReLU(), nn.Linear(10, 4000)])
    assert_quiet(SLUG, recorded(model, DIGITS))


def test_near_the_share():
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten(), nn.Linear(5408, 1), nn.Linear(1, 220))
    run = recorded(model, DIGITS)  # 5409 of 5929 parameters: 91 %
    assert_quiet(SLUG, run)
    assert_fires(SLUG, run, limits={"share": 0.9})


def test_models_without_convolutions_are_not_judged():
    engine, alerts = run_check(SLUG, recorded(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), DIGITS))
    assert not alerts
    assert engine.not_run()[SLUG] == "not ready: the model has no convolutions"


def never_ran(run):
    return [dataclasses.replace(x, order=None, inputs=[], outputs=[]) for x in layout_of(run).layers]


def test_not_ready_where_nothing_ran():
    engine, alerts = run_check(SLUG, changed(zoo("resnetv2"), layers=never_ran(zoo("resnetv2"))))
    assert not alerts
    assert engine.not_run()[SLUG] == "not ready: no forward pass was seen"


def test_known_architectures_are_quiet():
    for name in ("resnet", "convnext", "efficientnet", "densenet", "vit-hybrid"):
        assert_quiet(SLUG, zoo(name))


def test_what_is_no_flatten():
    """Two poolings side by side give twice the channels, and tokens are no map of positions."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 8, 3), nn.Linear(16, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.conv(x)
            return self.head(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1))

    assert flattened(layout_of(recorded(Both(), DIGITS))) == []
    assert flattened(layout_of(zoo("vit"))) == []
