"""cnn-conv-bottleneck: one convolution holds most of the parameters."""

import torch
from torch import nn

from tests.checks.architecture.real import recorded, zoo
from tests.helpers_checks import assert_fires, assert_quiet

SLUG = "cnn-conv-bottleneck"
IMAGE = torch.randn(2, 3, 8, 8)


def net(*channels: int) -> nn.Sequential:
    pairs = zip((3, *channels), channels, strict=False)
    layers = [nn.Conv2d(given, filters, 3, padding=1) for given, filters in pairs]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], 2))


def test_fires_where_the_channels_jump():
    alert = assert_fires(SLUG, recorded(net(8, 16, 128, 4), IMAGE), layer="2", severity="info", since=(0, 1))
    assert "16 to 128 channels with a kernel of 3×3" in alert.detail
    assert alert.title == "76% of all parameters are in one of 4 convolutions"


def test_quiet_where_they_grow_step_by_step():
    assert_quiet(SLUG, recorded(net(8, 16, 24, 28), IMAGE))


def test_near_miss_fewer_than_three_convolutions():
    run = recorded(net(8, 128), IMAGE)
    assert_quiet(SLUG, run)
    assert_fires(SLUG, run, limits={"convolutions": 0}, layer="1")


def test_near_the_share():
    run = recorded(net(8, 16, 32), IMAGE)  # 4640 of 6098 parameters: 76 %
    assert_quiet(SLUG, run, limits={"share": 0.77})
    assert_fires(SLUG, run, limits={"share": 0.75})


def test_known_architectures_are_quiet():
    for name in ("densenet", "efficientnet", "convnextv2", "res2net"):
        assert_quiet(SLUG, zoo(name))
