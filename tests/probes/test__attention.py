"""Sampled rows of attention against an explicit softmax in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from torchwatch.probes import _attention


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def explicit(query, key, mask=None, is_causal=False, scale=None):
    """All weights and which keys are valid, in float64, shape (batch, heads, queries, keys)."""
    q, k = query.double(), key.double()
    if k.shape[-3] != q.shape[-3]:
        k = k.repeat_interleave(q.shape[-3] // k.shape[-3], -3)
    scores = q @ k.transpose(-2, -1) * (scale if scale is not None else q.shape[-1] ** -0.5)
    valid = torch.ones_like(scores, dtype=torch.bool)
    if is_causal:
        valid = valid.tril()
    elif mask is not None and mask.dtype is torch.bool:
        valid = valid & mask
    elif mask is not None:
        scores, valid = scores + mask.double(), valid & (mask > -9999)
    return scores.masked_fill(~valid, -math.inf).softmax(-1), valid


def reference(weights, valid):
    """Entropy, maximum and sparsity per head over the sampled rows, straight from their definitions."""
    heads, queries = weights.shape[1], weights.shape[2]
    batches = list(range(weights.shape[0]))[_attention.spread(weights.shape[0], 4)]
    rows = list(range(queries))[_attention.spread(queries, 8)]
    found = []
    for head in range(heads):
        seen = []
        for batch in batches:
            for row in rows:
                w = weights[batch, head, row][valid[batch, head, row]].numpy()
                if len(w) > 1:
                    entropy = -sum(p * math.log(p) for p in w if p > 0) / math.log(len(w))
                    seen.append((entropy, w.max(), np.mean(w < 0.01 / len(w))))
        found.append(np.mean(seen, 0) if seen else [None] * 3)
    return found


def measured(rows) -> list:
    heads = _attention.per_head([_attention.summary(rows).double().numpy()])
    return list(zip(heads["entropy"], heads["max"], heads["sparsity"], strict=True))


def assert_same(found, wanted, sparsity_apart: float = 1e-3) -> None:
    assert len(found) == len(wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        if theirs[0] is None:
            assert ours == (None, None, None)
        else:
            np.testing.assert_allclose(ours[:2], theirs[:2], atol=1e-4)
            np.testing.assert_allclose(ours[2], theirs[2], atol=sparsity_apart)


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 9),
    groups=st.sampled_from([(1, 1), (4, 4), (4, 2), (6, 1)]),
    queries=st.sampled_from([1, 2, 7, 8, 17, 40]),
    keys=st.sampled_from([1, 2, 9, 33]),
    masking=st.sampled_from(["none", "causal", "bool", "float", "padding", "finfo"]),
    seed=st.integers(0, 1000),
    scale=st.sampled_from([None, 0.05, 2.0]),
)
def test_equal_to_an_explicit_softmax(batch, groups, queries, keys, masking, seed, scale) -> None:
    heads, key_heads = groups
    query, key = normal(batch, heads, queries, 5, seed=seed), normal(batch, key_heads, keys, 5, seed=seed + 1)
    mask = None
    hidden = torch.rand(batch, 1, queries, keys, generator=torch.Generator().manual_seed(seed)) < 0.3
    if masking == "bool":
        mask = ~hidden
    elif masking == "float":
        mask = torch.where(hidden, -math.inf, normal(1, heads, queries, keys, seed=seed))
    elif masking == "padding":
        mask = ~hidden[:, :, :1]
    elif masking == "finfo":
        mask = hidden * torch.finfo(torch.float32).min
    causal = masking == "causal"
    rows = _attention.recomputed(query, key, mask, is_causal=causal, scale=scale)
    assert_same(measured(rows), reference(*explicit(query, key, mask, causal, scale)))


def test_the_rows_give_what_torch_computes() -> None:
    """Weights times values are the outputs of the fused function at the sampled rows."""
    query, key, value = (normal(2, 4, 40, 8, seed=i) for i in range(3))
    rows = _attention.recomputed(query, key, is_causal=True)
    assert list(rows.positions) == [4, 9, 14, 19, 24, 29, 34, 39]
    out = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    torch.testing.assert_close(rows.weights @ value, out[:, :, list(rows.positions)], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_half_and_double(dtype) -> None:
    query, key = normal(2, 2, 16, 8).to(dtype), normal(2, 2, 16, 8, seed=1).to(dtype)
    mask = torch.zeros(16, 16, dtype=dtype).masked_fill(
        torch.ones(16, 16).triu(1).bool(), torch.finfo(dtype).min
    )
    wanted = reference(*explicit(query, key, is_causal=True))
    assert_same(measured(_attention.recomputed(query, key, mask)), wanted)


def test_rows_without_valid_keys_are_left_out() -> None:
    query, key = normal(1, 2, 4, 8), normal(1, 2, 4, 8, seed=1)
    mask = torch.ones(1, 2, 4, 4, dtype=torch.bool)
    mask[0, 0, 1:] = False
    mask[0, 1] = False
    mask[0, 1, :, 2] = True  # one key: its weight is 1 whatever the model learns
    found = measured(_attention.recomputed(query, key, mask))
    assert_same(found, reference(*explicit(query, key, mask)))
    assert found[1] == (None, None, None)


def test_uniform_and_collapsed_attention() -> None:
    uniform = measured(_attention.recomputed(torch.zeros(1, 1, 8, 4), normal(1, 1, 100, 4)))
    assert uniform == [(1.0, 0.01, 0.0)]
    peaked = measured(_attention.recomputed(1000 * torch.eye(8)[None, None], torch.eye(8)[None, None]))
    assert peaked == [(0.0, 1.0, 0.875)]


def test_nan_is_not_hidden() -> None:
    query, key = normal(1, 2, 8, 4), normal(1, 2, 8, 4)
    query[0, 1, 3, 0] = math.nan
    fine, broken = measured(_attention.recomputed(query, key))
    assert all(math.isfinite(v) for v in fine)
    assert math.isnan(broken[0])


def test_other_numbers_of_axes() -> None:
    query, key = normal(3, 10, 8), normal(3, 12, 8, seed=1)
    three = _attention.recomputed(query, key)
    assert_same(measured(three), reference(*explicit(query[:, None], key[:, None])))
    two = _attention.recomputed(query[0], key[0])
    assert_same(measured(two), reference(*explicit(query[:1, None], key[:1, None])))
    windows, others = normal(2, 5, 3, 10, 8), normal(2, 5, 3, 12, 8, seed=1)
    mask = torch.rand(5, 1, 10, 12, generator=torch.Generator().manual_seed(0)) < 0.5
    five = _attention.recomputed(windows, others, mask)
    assert_same(measured(five), reference(*explicit(windows[:, 0], others[:, 0], mask[0])))


def test_shapes_that_are_not_understood() -> None:
    assert _attention.recomputed(normal(2, 3, 4, 5), normal(3, 4, 5)) is None
    assert _attention.recomputed(normal(2, 3, 4, 5), normal(2, 2, 4, 5)) is None
    assert _attention.recomputed(normal(4, 3, 4, 5), normal(2, 3, 4, 5)) is None
    assert _attention.recomputed(normal(4), normal(4)) is None


def test_one_key_batch_for_all_queries() -> None:
    query, key = normal(6, 3, 9, 4), normal(1, 3, 11, 4, seed=1)
    assert_same(
        measured(_attention.recomputed(query, key)), reference(*explicit(query, key.expand(6, 3, 11, 4)))
    )


def test_work_is_bounded() -> None:
    rows = _attention.recomputed(normal(64, 2, 1000, 4), normal(64, 2, 1000, 4))
    assert rows.weights.shape == (4, 2, 8, 1000)


@given(length=st.integers(1, 5000), most=st.integers(1, 64))
def test_places_are_even_bounded_and_end_at_the_last(length, most) -> None:
    places = range(length)[_attention.spread(length, most)]
    assert 1 <= len(places) <= most
    assert places[-1] == length - 1
    assert len(places) > most // 2 or len(places) == length


def test_returned_weights_are_read_as_they_are() -> None:
    weights = normal(2, 3, 10, 12).softmax(-1)
    assert_same(measured(_attention.returned(weights)), reference(weights.double(), weights > 0))
    averaged = weights.mean(1)
    assert_same(
        measured(_attention.returned(averaged)), reference(averaged[:, None].double(), averaged[:, None] > 0)
    )


def test_returned_weights_after_dropout_are_scaled_back() -> None:
    weights = normal(2, 3, 10, 12).softmax(-1)
    kept = torch.rand(weights.shape, generator=torch.Generator().manual_seed(0)) < 0.8
    dropped = weights * kept / 0.8
    scaled = dropped / dropped.sum(-1, keepdim=True)
    assert_same(measured(_attention.returned(dropped)), reference(scaled.double(), kept))


def test_patterns_add_up() -> None:
    rows = _attention.recomputed(normal(2, 3, 10, 4), normal(2, 3, 150, 4, seed=1))
    pattern, width = _attention.pattern(rows)
    assert (pattern.shape, width) == ((5, 50), 3)
    torch.testing.assert_close(pattern.sum(-1), torch.ones(5))
    torch.testing.assert_close(pattern[2, 7], rows.weights[0, :, 2, 21:24].sum(-1).mean())
    short, one = _attention.pattern(_attention.recomputed(normal(1, 1, 3, 4), normal(1, 1, 5, 4)))
    assert (short.shape, one) == ((3, 5), 1)
