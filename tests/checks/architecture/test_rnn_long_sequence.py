"""rnn-long-sequence: recurrent layers unrolled over very many steps."""

import pytest
import torch
from torch import Tensor, nn

from tests.checks.architecture.real import recorded
from tests.helpers_checks import assert_fires, assert_quiet, run_check

SLUG = "rnn-long-sequence"


def test_fires():
    run = recorded(nn.GRU(2, 3, batch_first=True), torch.randn(1, 1001, 2))
    alert = assert_fires(SLUG, run, layer="", severity="info", since=(0, 1))
    assert alert.title == "The GRU is unrolled over 1,001 steps"
    assert "1×1001×2" in alert.detail


@pytest.mark.parametrize(
    ("shape", "options"),
    [((1, 1000, 2), {"batch_first": True}), ((2, 1001, 2), {}), ((3, 1001, 2), {"batch_first": False})],
    ids=["at the limit", "a large batch", "time first"],
)
def test_near_misses(shape, options):
    assert_quiet(SLUG, recorded(nn.GRU(2, 3, **options), torch.randn(*shape)))


def test_time_first_and_unbatched():
    assert_fires(SLUG, recorded(nn.RNN(2, 3), torch.randn(1001, 1, 2)))
    assert_fires(SLUG, recorded(nn.RNN(2, 3), torch.randn(1001, 2)))


class Packed(nn.Module):
    def __init__(self, *lengths: int) -> None:
        super().__init__()
        self.core, self.lengths = nn.GRU(2, 3, batch_first=True), lengths

    def forward(self, x: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, self.lengths, batch_first=True)
        return self.core(packed)[0].data


def test_packed_sequences_count_with_their_mean():
    x = torch.randn(2, 1010, 2)
    assert_fires(SLUG, recorded(Packed(1010, 1010), x), layer="core")
    assert_quiet(SLUG, recorded(Packed(1010, 800), x))


class Attentive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.core = nn.GRU(2, 4, batch_first=True)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.core(x)[0]
        return self.attention(h[:, -1:], h, h)[0]


def test_near_miss_attention_and_its_guard():
    run = recorded(Attentive(), torch.randn(1, 1001, 2))
    assert_quiet(SLUG, run)
    assert_fires(SLUG, run, limits={"attention": 0}, layer="core")


def test_cells_do_not_show_a_length():
    engine, alerts = run_check(SLUG, recorded(nn.LSTMCell(2, 3), torch.randn(20, 2)))
    assert not alerts
    assert "no length of a sequence was seen" in engine.not_run()[SLUG]
