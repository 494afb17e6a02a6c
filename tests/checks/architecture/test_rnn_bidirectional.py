"""rnn-bidirectional: both directions in a model declared causal."""

import torch
from torch import nn

from tests.checks.architecture.real import recorded
from tests.helpers_checks import assert_fires, assert_quiet

SLUG = "rnn-bidirectional"
SERIES = torch.randn(2, 5, 4)


def run(*, bidirectional: bool, **declare: bool):
    return recorded(nn.GRU(4, 6, bidirectional=bidirectional), SERIES, declare=declare)


def test_fires_where_causal_is_declared():
    alert = assert_fires(SLUG, run(bidirectional=True, causal=True), layer="", severity="info", since=(0, 1))
    assert alert.title == "A bidirectional GRU reads the future of a causal model"


def test_near_misses_one_direction_and_nothing_declared():
    assert_quiet(SLUG, run(bidirectional=False, causal=True))
    assert_quiet(SLUG, run(bidirectional=True, causal=False))
    assert_quiet(SLUG, run(bidirectional=True))


def test_the_bare_trigger():
    assert_fires(SLUG, run(bidirectional=True), limits={"declared": 0})
    assert_quiet(SLUG, run(bidirectional=False), limits={"declared": 0})
