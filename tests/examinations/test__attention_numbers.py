"""Entropy, sparsity and the rest against values by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchwatch.examinations._attention_calls import Call
from torchwatch.examinations._attention_numbers import Tally, cells, is_cross, numbers, pattern


def call(weights, valid=None, name="block.attn", cross=None):
    return Call(name, "softmax", torch.as_tensor(weights), valid, cross)


def test_one_row_by_hand():
    """Weights ½, ¼, ¼, 0 have 1.5 bits of entropy; four keys could have two."""
    found = numbers(call([[[[0.5, 0.25, 0.25, 0.0]] * 4]]))
    entropy, most, sparsity, mean, std, first = found.per_head[:, 0, 0]
    assert entropy == pytest.approx(0.75)
    assert most == pytest.approx(0.5)
    assert sparsity == pytest.approx(0.25)
    assert mean == pytest.approx(0.25)
    assert std == pytest.approx(math.sqrt((0.0625 + 0.0625) / 4))
    assert first == pytest.approx(0.5)
    np.testing.assert_allclose(found.top[1:, 0], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert len(set(found.top[0, 0])) == 3


def test_a_causal_mask_counts_only_what_a_query_may_see():
    """Row 0 has one key and is left out; rows 1 and 2 are uniform over two and three."""
    weights = torch.tril(torch.ones(3, 3)) / torch.tensor([1.0, 2.0, 3.0])[:, None]
    found = numbers(call(weights[None, None], torch.tril(torch.ones(1, 1, 3, 3)) > 0))
    entropy, most, sparsity, mean, std, _ = found.per_head[:, 0, 0]
    assert entropy == pytest.approx(1.0)
    assert most == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert sparsity == 0
    assert mean == pytest.approx(2 / 5)
    assert std == pytest.approx(np.std([1 / 2] * 2 + [1 / 3] * 3))


def test_rows_of_padding_are_left_out_of_self_attention_alone():
    weights = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.9, 0.1, 0.0]])[None, None]
    valid = torch.tensor([True, True, False]).expand(1, 1, 3, 3)
    own = numbers(call(weights, valid)).per_head[1, 0, 0]
    assert own == pytest.approx(0.75), "the third place is padding"
    other = numbers(call(weights, valid, cross=True)).per_head[1, 0, 0]
    assert other == pytest.approx((0.5 + 1 + 0.9) / 3)


def test_nan_makes_a_sample_unknown_and_no_other():
    weights = torch.full((3, 2, 4, 4), 0.25)
    weights[1, 0, 2, 1] = torch.nan
    found = numbers(call(weights))
    assert found.nan.tolist() == [False, True, False]
    assert np.isnan(found.per_head[:, 1]).all()
    assert np.isfinite(found.per_head[:, [0, 2]]).all()
    assert found.fine == 2
    torch.testing.assert_close(found.total, torch.full((4, 4), 0.5))


def test_nan_in_a_row_that_does_not_count_is_nobodys_business():
    weights = torch.full((1, 1, 3, 3), 1 / 3)
    weights[0, 0, 1] = torch.nan
    valid = torch.ones(1, 1, 3, 3, dtype=torch.bool)
    valid[0, 0, 1] = False
    found = numbers(call(weights, valid))
    assert not found.nan.any()
    assert found.per_head[0, 0, 0] == pytest.approx(1.0)


@given(
    st.integers(1, 4), st.integers(1, 3), st.integers(2, 9), st.floats(0.0, 30.0), st.integers(0, 10**6),
    st.booleans(),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_bounds_hold_for_all_weights(samples, heads, keys, sharpness, seed, masked):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(samples, heads, keys, keys, generator=generator, dtype=torch.float64) * sharpness
    valid = None
    if masked:
        valid = torch.rand(samples, 1, keys, keys, generator=generator) < 0.6
        valid[..., :2] = True
        valid = valid.expand(samples, heads, keys, keys)
        scores = scores.masked_fill(~valid, -torch.inf)
    found = numbers(call(scores.softmax(-1), valid))
    entropy, most, sparsity, mean, std, first = found.per_head
    for part in (entropy, most, sparsity, mean, first):
        assert (part >= 0).all()
        assert (part <= 1 + 1e-9).all()
    assert (std >= 0).all()
    assert (most >= mean - 1e-9).all()
    assert (most >= first - 1e-9).all()
    assert (np.diff(found.top[2], axis=1) <= 1e-12)[~np.isnan(found.top[2][:, 1:])].all()


def test_chunks_add_up_to_the_whole():
    weights = torch.randn(7, 2, 5, 5, dtype=torch.float64).softmax(-1)
    whole, parts = (Tally("a", "softmax", False, (2, 5, 5)) for _ in range(2))
    whole.add(numbers(call(weights)))
    for part in weights.split(3):
        parts.add(numbers(call(part)))
    np.testing.assert_allclose(whole.each, parts.each)
    np.testing.assert_allclose(whole.maps(), parts.maps(), rtol=1e-6)
    np.testing.assert_allclose(whole.pairs(), parts.pairs())
    mean = weights.mean((0, 1))
    query, key, weight = whole.pairs(1)[0]
    assert weight == pytest.approx(float(mean.max()))
    assert mean[query, key] == mean.max()


def test_cells_average_neighbours_and_a_short_last_one():
    maps = torch.arange(130.0).repeat(2, 1)[None]
    found = cells(maps)
    assert found.shape == (1, 2, 44)
    torch.testing.assert_close(found[0, 0, :2], torch.tensor([1.0, 4.0]))
    assert found[0, 0, -1] == 129.0


def test_cells_outside_of_the_mask_are_not_measured():
    tally = Tally("a", "softmax", False, (1, 3, 3))
    mask = torch.tril(torch.ones(2, 1, 3, 3)) > 0
    tally.add(numbers(call(torch.randn(2, 1, 3, 3).masked_fill(~mask, -torch.inf).softmax(-1), mask)))
    shown = tally.maps()[0]
    assert np.isnan(shown[1, 2])
    assert np.isfinite(shown[2]).all()
    assert np.isnan(shown[0]).all(), "a query with one key says nothing"


@pytest.mark.parametrize(
    ("numbers_of", "word"),
    [
        ((0.2, 0.9, 0.9), "focused"),
        ((0.95, 0.2, 0.1), "diffuse"),
        ((0.2, 0.9, 0.5), "mixed"),
        ((0.5, 0.7, 0.9), "mixed"),
        ((0.8, 0.3, 0.2), "mixed"),
        ((float("nan"), 0.9, 0.9), "unknown"),
    ],
)
def test_patterns(numbers_of, word):
    assert pattern(*numbers_of) == word


def test_cross_attention_is_told_by_what_is_known():
    square = torch.ones(1, 1, 4, 4) / 4
    assert is_cross(call(square[..., :3]))
    assert not is_cross(call(square))
    assert is_cross(call(square, name="decoder.layers.0.encoder_attn"))
    assert is_cross(call(square, name="layer.EncDecAttention"))
    assert not is_cross(call(square, name="cross.attn", cross=False))
    assert not is_cross(call(square, name="blocks.2.attn"))
