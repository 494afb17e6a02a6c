"""cnn-large-kernel: a large kernel on a small map."""

import pytest
import torch
from torch import nn

from tests.checks.architecture.real import recorded, zoo
from tests.helpers_checks import assert_fires, assert_quiet

SLUG = "cnn-large-kernel"
IMAGE = torch.randn(1, 4, 32, 32)


def beside(*layers: nn.Module) -> nn.Sequential:
    """With a 3×3 convolution behind, so that the model is a CNN in any case."""
    return nn.Sequential(*layers, nn.LazyConv2d(2, 3, padding=1))


def test_fires():
    run = recorded(beside(nn.Conv2d(4, 8, 7, stride=2, padding=3)), IMAGE)
    alert = assert_fires(SLUG, run, layer="0", severity="info", since=(0, 1))
    assert alert.title == "A kernel of 7×7 reads a map of 32×32"
    assert (alert.value, alert.threshold) == (7, 7)


def test_fires_on_a_network_for_photographs_that_was_given_thumbnails():
    assert_fires(SLUG, zoo("tnt"), layer="pixel_embed.proj")


@pytest.mark.parametrize("kernel", [5, 6, (1, 7), (7, 3)])
def test_near_miss_smaller_kernels_also_on_one_side(kernel):
    assert_quiet(SLUG, recorded(beside(nn.Conv2d(4, 8, kernel)), IMAGE))


def test_near_miss_larger_image():
    image = torch.randn(1, 4, 64, 64)
    run = recorded(beside(nn.Conv2d(4, 8, 7, stride=2, padding=3)), image)
    assert_quiet(SLUG, run)
    assert_fires(SLUG, run, limits={"side": 65})


@pytest.mark.parametrize(
    ("guard", "layer"),
    [
        ("depthwise", nn.Conv2d(4, 4, 7, padding=3, groups=4)),
        ("patches", nn.Conv2d(4, 8, 8, stride=8)),
        ("whole_map", nn.Conv2d(4, 8, 32)),
        ("single", nn.Conv2d(4, 1, 7, padding=3)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_guard_and_the_bare_trigger(guard, layer):
    run = recorded(beside(layer), IMAGE)
    assert_quiet(SLUG, run)
    assert_fires(SLUG, run, limits={guard: 0}, layer="0")


def test_series_and_its_guard():
    model = nn.Sequential(nn.Conv1d(4, 8, 9), nn.Conv1d(8, 8, 9))
    run = recorded(model, torch.randn(2, 4, 32))
    assert_quiet(SLUG, run)
    assert_fires(SLUG, run, limits={"series": 0}, layer="0")


def test_transposed_convolutions_are_left_alone():
    assert_quiet(SLUG, recorded(beside(nn.ConvTranspose2d(4, 8, 7)), IMAGE))


def test_known_architectures_are_quiet():
    for name in ("convnext", "convmixer", "inception-next", "efficientnet"):
        assert_quiet(SLUG, zoo(name))
