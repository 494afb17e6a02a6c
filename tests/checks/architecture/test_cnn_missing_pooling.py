"""cnn-missing-pooling: a classifier reads a map that was never made smaller."""

import torch
import torch.nn.functional as F
from torch import nn

from tests.checks.architecture.real import recorded, zoo
from tests.helpers_checks import assert_fires, assert_quiet

SLUG = "cnn-missing-pooling"
IMAGE = torch.randn(2, 3, 28, 28)


def convs(count: int, channels: int = 4, given: int = 3, **options: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for index in range(count):
        layers += [nn.Conv2d(channels if index else given, channels, 3, **options), nn.ReLU()]
    return layers


def classifier(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(2))


def test_fires_where_a_full_map_is_flattened():
    alert = assert_fires(
        SLUG, recorded(classifier(*convs(3)), IMAGE), layer="0", severity="info", since=(0, 1)
    )
    assert alert.title == "3 convolutions in a row on maps of about 22×22 without down-sampling"
    assert "reach across 7 places" in alert.detail


def test_fires_where_a_full_map_is_averaged_at_once():
    assert_fires(SLUG, recorded(classifier(*convs(4, padding=1), nn.AdaptiveAvgPool2d(1)), IMAGE), layer="0")


def test_fires_behind_a_first_stage_that_was_down_sampled():
    model = classifier(*convs(2), nn.MaxPool2d(2), *convs(3, given=4, padding=1))
    assert_fires(SLUG, recorded(model, torch.randn(2, 3, 40, 40)), layer="5")


def test_near_miss_two_convolutions():
    assert_quiet(SLUG, recorded(classifier(*convs(2)), IMAGE))


def test_near_miss_small_maps():
    assert_quiet(SLUG, recorded(classifier(*convs(3, padding=1)), IMAGE[..., :14, :14]))
    assert_fires(SLUG, recorded(classifier(*convs(3, padding=1)), IMAGE[..., :15, :15]))


def test_near_miss_down_sampling_follows_and_the_bare_trigger():
    """As in VGG, whose third stage has three convolutions in a row."""
    run = recorded(classifier(*convs(3, padding=1), nn.MaxPool2d(2), *convs(1, given=4)), IMAGE)
    assert_quiet(SLUG, run)
    assert_fires(SLUG, run, limits={"last": 0}, layer="0")


def test_near_miss_a_pooling_that_is_a_function():
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Sequential(*convs(3)), nn.Linear(4 * 11 * 11, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(F.max_pool2d(self.body(x), 2).flatten(1))

    assert_quiet(SLUG, recorded(Functional(), IMAGE))


def test_near_miss_a_stride_within():
    model = classifier(*convs(2), nn.Conv2d(4, 4, 3, stride=2), *convs(1, given=4))
    assert_quiet(SLUG, recorded(model, torch.randn(2, 3, 40, 40)))


def test_near_miss_the_output_is_an_image():
    assert_quiet(SLUG, recorded(nn.Sequential(*convs(5, padding=1)), IMAGE))


def test_near_miss_board_games_reach_across_and_the_bare_trigger():
    """Networks for boards never make them smaller; a 1×1 convolution leads to the head."""
    model = classifier(*convs(8, padding=1), nn.Conv2d(4, 2, 1))
    run = recorded(model, torch.randn(2, 3, 17, 17))
    assert_quiet(SLUG, run)
    assert_fires(SLUG, run, limits={"reach": 0}, layer="0")
    assert_fires(SLUG, recorded(model, torch.randn(2, 3, 17, 17)), limits={"reach": 0})
    assert_fires(SLUG, recorded(classifier(*convs(7, padding=1)), torch.randn(2, 3, 17, 17)))


def test_dilation_reaches_further():
    layers = [nn.Conv2d(3 if d == 1 else 4, 4, 3, padding=d, dilation=d) for d in (1, 3, 5)]
    assert_quiet(SLUG, recorded(classifier(*layers), torch.randn(2, 3, 18, 18)))
    assert_fires(SLUG, recorded(classifier(*layers), torch.randn(2, 3, 24, 24)))


def test_pointwise_convolutions_do_not_count():
    layers = [*convs(2), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)]
    assert_quiet(SLUG, recorded(classifier(*layers), IMAGE))


def test_known_architectures_are_quiet():
    for name in ("convmixer", "densenet", "efficientnet", "resnetv2", "vovnet"):
        assert_quiet(SLUG, zoo(name))
