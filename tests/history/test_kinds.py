"""Kinds of models, from real layouts."""

import pytest
import torch
from torch import nn

from tests.checks.architecture.real import layout_of, recorded, zoo
from torchwatch.history.attentions import attentions
from torchwatch.history.kinds import convolutions, kinds_of, recurrents


class Sum(nn.Module):
    """Adds up what a recurrent layer puts out."""

    def __init__(self, core: nn.Module) -> None:
        super().__init__()
        self.core = core

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        put_out = self.core(x)
        return put_out[0] if isinstance(put_out, tuple) else put_out


IMAGE = torch.randn(2, 3, 16, 16)
SERIES = torch.randn(2, 9, 4)
OWN = {
    "perceptron": (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), SERIES, {"generic"}),
    "images": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(784, 2)), IMAGE, {"cnn"}),
    "volumes": (nn.Conv3d(1, 2, 3), torch.randn(1, 1, 5, 5, 5), {"cnn"}),
    "patches": (nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Flatten(2), nn.Linear(16, 2)), IMAGE, {"generic"}),
    "pixels": (nn.Conv2d(3, 8, 1), IMAGE, {"generic"}),
    "series": (nn.Sequential(nn.Conv1d(9, 9, 3), nn.Conv1d(9, 4, 2)), SERIES, {"cnn"}),
    "one over a series": (nn.Conv1d(9, 9, 3), SERIES, {"generic"}),
    "depthwise over a series": (
        nn.Sequential(nn.Conv1d(9, 9, 3, groups=9, padding=1), nn.Conv1d(9, 9, 3, groups=9)), SERIES,
        {"generic"},
    ),
    "lstm": (Sum(nn.LSTM(4, 5)), SERIES, {"rnn"}),
    "cell": (nn.GRUCell(4, 5), torch.randn(2, 4), {"rnn"}),
    "attention of torch": (nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), SERIES, {"transformer"}),
    "both": (
        nn.Sequential(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), Sum(nn.GRU(4, 5))), SERIES,
        {"transformer", "rnn"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OWN)
def test_of_our_own(name):
    model, given, expected = OWN[name]
    assert kinds_of(layout_of(recorded(model, given))) == expected


ZOO = {
    "bert": "transformer", "gpt2": "transformer", "llama": "transformer", "t5": "transformer",
    "xlnet": "transformer", "mamba": "generic", "wav2vec2": "cnn transformer", "whisper": "cnn transformer",
    "vit": "transformer", "vit-hybrid": "cnn transformer", "resnet": "cnn", "convnext": "cnn",
    "seresnet-blur": "cnn", "convmixer": "cnn", "mlp-mixer": "generic", "sequencer": "rnn",
}  # fmt: skip


@pytest.mark.parametrize("name", ZOO)
def test_of_the_zoo(name):
    assert kinds_of(layout_of(zoo(name))) == set(ZOO[name].split())


def test_attentions_say_their_heads():
    (own,) = attentions(layout_of(recorded(OWN["attention of torch"][0], SERIES)))
    assert (own.name, own.layer, own.heads, own.head_size, own.width) == ("self_attn", "self_attn", 2, 2, 4)
    for name, path in [("bert", "bert.encoder.layer.0.attention.self"), ("gpt2", "transformer.h.0.attn")]:
        first = attentions(layout_of(zoo(name)))[0]
        assert (first.name, first.heads, first.head_size, first.width) == (path, 2, 8, 16)


def test_a_gate_over_channels_is_no_attention():
    """Squeeze-and-excitation calls itself an attention, and has neither queries nor heads."""
    assert attentions(layout_of(zoo("seresnet-blur"))) == []


def test_convolutions_are_told_by_what_they_hold():
    class Special(nn.Conv2d):
        pass

    model = nn.Sequential(Special(3, 6, 3, stride=2, groups=3, dilation=2), nn.ConvTranspose2d(6, 3, 2, 2))
    first, second = convolutions(layout_of(recorded(model, IMAGE)))
    assert (first.channels, first.filters, first.kernel, first.stride) == (3, 6, (3, 3), (2, 2))
    assert (first.dilation, first.is_depthwise, first.transposed) == ((2, 2), True, False)
    assert (first.given, first.put_out) == ([2, 3, 16, 16], [2, 6, 6, 6])
    assert (second.transposed, second.is_patching, second.is_depthwise) == (True, True, False)


def test_an_unbatched_image_gets_its_axis():
    (conv,) = convolutions(layout_of(recorded(nn.Conv2d(3, 4, 3), IMAGE[0])))
    assert (conv.given, conv.put_out) == ([1, 3, 16, 16], [1, 4, 14, 14])


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.core = nn.LSTM(4, 5, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, [9, 5], batch_first=True)
        return self.core(packed)[0].data


@pytest.mark.parametrize(
    ("model", "given", "length"),
    [
        (Sum(nn.LSTM(4, 5)), SERIES, 2),
        (Sum(nn.GRU(4, 5, batch_first=True)), SERIES, 9),
        (Sum(nn.RNN(4, 5)), SERIES[0], 9),
        (Packed(), SERIES, 7),
        (nn.LSTMCell(4, 5), SERIES[0], None),
    ],
    ids=["time first", "batch first", "unbatched", "packed: the mean", "cell"],
)
def test_length_of_a_sequence(model, given, length):
    (layer,) = recurrents(layout_of(recorded(model, given)))
    assert layer.length == length
