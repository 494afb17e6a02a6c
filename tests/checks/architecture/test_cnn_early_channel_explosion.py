"""cnn-early-channel-explosion: very many channels out of one, on a small image."""

import torch
from torch import nn

from tests.checks.architecture.real import recorded, zoo
from tests.helpers_checks import assert_fires, assert_quiet, run_check

SLUG = "cnn-early-channel-explosion"


def run(channels: int, filters: int, side: int, **options: int):
    first = nn.Conv2d(channels, filters, 3, **options)
    model = nn.Sequential(first, nn.ReLU(), nn.Conv2d(filters, 64, 3))
    return recorded(model, torch.randn(1, channels, side, side))


def test_fires():
    alert = assert_fires(SLUG, run(1, 64, 28), layer="0", severity="info", since=(0, 1))
    assert alert.title == "The first convolution makes 64 channels out of 1"
    assert "a kernel of 3×3 sees 9 numbers" in alert.detail


def test_near_misses_32_channels_colour_and_large_images():
    assert_quiet(SLUG, run(1, 32, 28))
    assert_quiet(SLUG, run(3, 64, 28))
    assert_quiet(SLUG, run(1, 64, 64))
    assert_fires(SLUG, run(1, 33, 63))
    assert_fires(SLUG, run(3, 64, 28), limits={"channels": 3})


def test_a_later_convolution_is_not_the_first():
    model = nn.Sequential(nn.Conv2d(3, 1, 1), nn.Conv2d(1, 64, 3))
    assert_quiet(SLUG, recorded(model, torch.randn(1, 3, 28, 28)))


def test_patches_and_their_guard():
    patches = run(1, 64, 28, stride=3)
    assert_quiet(SLUG, patches)
    assert_fires(SLUG, patches, limits={"patches": 0})


def test_series_are_not_judged():
    model = nn.Sequential(nn.Conv1d(1, 64, 3), nn.Conv1d(64, 64, 3))
    engine, alerts = run_check(SLUG, recorded(model, torch.randn(1, 1, 28)))
    assert not alerts
    assert "no convolution over an image" in engine.not_run()[SLUG]


def test_known_architectures_are_quiet():
    for name in ("convnext", "resnetv2", "mobilenetv3"):
        assert_quiet(SLUG, zoo(name))
