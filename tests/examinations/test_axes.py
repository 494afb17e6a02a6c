import pytest
import torch
from torch import nn

from torchwatch.errors import UsageError
from torchwatch.examinations.axes import name_axes


@pytest.mark.parametrize(
    ("shape", "model", "names"),
    [
        ((5,), nn.Linear(5, 1), ("feature",)),
        ((3, 40), nn.Conv1d(3, 4, 3), ("channel", "time")),
        ((40, 3), nn.LSTM(3, 4), ("time", "channel")),
        ((40, 3), nn.Linear(3, 4), ("time", "channel")),
        ((40, 3), nn.Sequential(nn.Flatten(), nn.Linear(120, 4)), ("channel", "time")),
        ((8, 8), nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), ("height", "width")),
        ((1, 8, 8), nn.Conv2d(1, 4, 3), ("channel", "height", "width")),
        ((1, 4, 8, 8), nn.Conv3d(1, 4, 3), ("channel", "depth", "height", "width")),
    ],
)
def test_axes_are_named_by_shape_and_first_layer(shape, model, names):
    assert name_axes(None, torch.zeros(2, *shape), model) == names


def test_integers_are_tokens_and_the_user_knows_best():
    assert name_axes(None, torch.zeros(2, 5, dtype=torch.long), nn.Embedding(3, 2)) == ("token",)
    assert name_axes(["sensor", "day"], torch.zeros(2, 3, 4), nn.Flatten()) == ("sensor", "day")
    assert name_axes("gene", torch.zeros(2, 3), nn.Flatten()) == ("gene",)


@pytest.mark.parametrize("given", [("a",), ("a", "a"), ("a", "b", "c")])
def test_wrong_names_are_refused(given):
    with pytest.raises(UsageError, match="2 axes"):
        name_axes(given, torch.zeros(2, 3, 4), nn.Flatten())
