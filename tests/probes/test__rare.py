"""Cosine, effective rank and CKA against their formulas in float64, and geometries that are known."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from tests.probes.truth import cka, effective_rank, mean_cosine, rows
from torchwatch.probes._rare import FEATURES, SAMPLES, Geometry, described, gram


def geometry(*outputs: torch.Tensor) -> list[Geometry]:
    """Of layers that were called in this order."""
    grams = []
    for output in outputs:
        found = gram(output)
        assert found is not None
        grams.append((output.shape[0], found.double().numpy()))
    return described(grams)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=60)
@given(
    samples=st.integers(4, 20),
    shapes=st.lists(st.sampled_from([(3,), (40,), (3, 4, 5), (6, 2), (700,)]), min_size=1, max_size=3),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]),
    level=st.sampled_from([0.0, 1.0, -30.0]),
    seed=st.integers(0, 1000),
)
def test_the_formulas_on_whole_outputs(samples, shapes, dtype, level, seed) -> None:
    """Up to 64 samples and 2,048 features nothing is left out; the types' rounding is in both."""
    outputs = [(level + normal(samples, *s, seed=seed + i)).to(dtype) for i, s in enumerate(shapes)]
    found = geometry(*outputs)
    for place, (output, own) in enumerate(zip(outputs, found, strict=True)):
        assert own.cosine == pytest.approx(mean_cosine(rows(output)), abs=1e-7)
        assert own.effective_rank == pytest.approx(effective_rank(rows(output)), rel=1e-4)
        if place + 1 == len(outputs):
            assert own.cka is None
        else:
            assert own.cka == pytest.approx(cka(rows(output), rows(outputs[place + 1])), abs=1e-6)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_the_order_of_memory_does_not_matter(memory: torch.memory_format) -> None:
    images, features = normal(12, 3, 5, 4), normal(12, 7, seed=1)
    assert geometry(images.to(memory_format=memory), features)[0] == pytest.approx(
        (
            mean_cosine(rows(images)),
            effective_rank(rows(images)),
            cka(rows(images), rows(features)),
        )
    )


def test_a_layer_that_turns_and_scales_its_input_is_as_similar_as_can_be() -> None:
    """CKA knows no rotation, no scale and no shift of the features; and it is 1 for the same thing."""
    x = normal(30, 12)
    turn = torch.linalg.qr(normal(12, 12, seed=1)).Q
    found = geometry(x, x.clone(), -7 * x @ turn + 100)
    assert [g.cka for g in found[:2]] == pytest.approx([1, 1], abs=1e-9)
    assert found[2].cka is None


def test_independent_layers_have_no_similarity_whatever_their_width() -> None:
    """The biased estimator would say 0.5 and more here: 40 samples of 400 features."""
    found = [geometry(normal(40, 400, seed=2 * i), normal(40, 400, seed=2 * i + 1))[0].cka for i in range(20)]
    assert abs(np.mean(found)) < 0.01
    assert np.abs(found).max() < 0.1


def test_the_neighbour_is_the_next_layer_with_as_many_samples() -> None:
    x, y, z = normal(8, 6), normal(5, 6), normal(8, 9, seed=3)
    found = geometry(x, y, z)
    assert found[0].cka == pytest.approx(cka(rows(x), rows(z)))
    assert (found[1].cka, found[2].cka) == (None, None)


def test_the_same_for_every_sample() -> None:
    same = normal(1, 50).expand(10, 50)
    found = geometry(same, normal(10, 50, seed=1), same)
    assert found[0].cosine == pytest.approx(1)
    assert found[0].effective_rank == pytest.approx(1, abs=1e-4)
    assert [g.cka for g in found] == [None, None, None], "similar to nothing"


def test_rank_one_orthogonal_and_opposite() -> None:
    directions, strength = normal(1, 30), torch.linspace(1, 4, 12, dtype=torch.float64)[:, None]
    assert geometry(strength @ directions)[0].effective_rank == pytest.approx(1, abs=1e-4)
    assert geometry(strength @ directions)[0].cosine == pytest.approx(1)
    assert geometry(3 * torch.eye(16))[0].effective_rank == pytest.approx(16)
    waves = torch.tensor([[1.0, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]])  # each adds up to 0
    assert geometry(waves)[0][:2] == pytest.approx((0, 3))
    assert geometry(torch.cat([waves[:1], -waves[:1]]))[0].cosine == pytest.approx(-1)


def test_two_singular_values() -> None:
    """Of 3 to 1: exp of the entropy of (3/4, 1/4)."""
    x = torch.tensor([[3.0, 0, 0], [0, 1, 0], [0, 0, 0]])
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert geometry(x)[0].effective_rank == pytest.approx(expected, rel=1e-6)


def test_samples_without_a_direction_are_left_out() -> None:
    """What is left of a row of equal features, once its mean is gone, is rounding."""
    x = normal(9, 37)
    x[2], x[4], x[6], x[7], x[8] = 0.0, 5.0, 0.1, -1 / 3, 7e5 / 9
    kept = rows(x)[[0, 1, 3, 5]]
    assert geometry(x)[0].cosine == pytest.approx(mean_cosine(kept), abs=1e-9)
    x = normal(6, 20)
    assert geometry(torch.full((6, 20), 0.1))[0].cosine is None
    assert geometry(torch.zeros(6, 20))[0] == (None, None, None)
    assert geometry(torch.cat([x[:1], torch.ones(5, 20)]))[0].cosine is None


def test_small_differences_on_a_large_level_are_seen() -> None:
    """Float64 products: a part in 1e4 of the level still has its own correlation."""
    x = 1e4 + normal(20, 64)
    assert geometry(x)[0].cosine == pytest.approx(mean_cosine(rows(x)), abs=1e-4)
    shared = 1e4 * normal(1, 64, seed=9) + normal(20, 64)
    assert geometry(shared)[0].cosine == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_said_and_stays_in_its_layer(bad: float) -> None:
    x, broken, z = normal(6, 5), normal(6, 5, seed=1), normal(6, 5, seed=2)
    broken[3, 2] = bad
    with np.errstate(invalid="ignore"):
        found = geometry(x, broken, z, x)
    assert all(math.isnan(value) for value in (found[0].cka, *found[1]) if value is not None)
    assert None not in (found[0].cka, *found[1])
    assert found[0].cosine == pytest.approx(mean_cosine(rows(x)))
    assert found[2].cka == pytest.approx(cka(rows(z), rows(x)))


@pytest.mark.parametrize(("samples", "expected"), [(2, False), (3, False), (4, True)])
def test_how_many_samples_are_needed(samples: int, expected: bool) -> None:
    x, y = normal(samples, 5), normal(samples, 5, seed=1)
    found = geometry(x, y)[0]
    assert found.cosine == pytest.approx(mean_cosine(rows(x)))
    assert (found.cka is not None) is expected


def test_without_two_samples_there_is_no_geometry() -> None:
    assert gram(torch.zeros(())) is None
    assert gram(torch.zeros(1, 5)) is None
    assert gram(torch.zeros(0, 5)) is None


def test_large_outputs_are_looked_at_at_evenly_spaced_places() -> None:
    """What is looked at are the rows and columns of the tensor itself, at most so many of them."""
    x = normal(200, 10_000)
    found = gram(x)
    assert found is not None
    assert found.shape[0] <= SAMPLES + 1
    features = int(found[-1, -1])
    assert FEATURES / 2 < features <= FEATURES
    picked = rows(x)[::4]
    columns = picked[:, :: math.ceil(10_000 / FEATURES) | 1]
    assert columns.shape == (len(found) - 1, features)
    np.testing.assert_allclose(found[:-1, :-1].numpy(), columns @ columns.T, rtol=1e-9)
    np.testing.assert_allclose(found[-1, :-1].numpy(), columns.sum(1), rtol=1e-9, atol=1e-9)


def test_a_part_of_the_features_shows_every_channel_of_an_image() -> None:
    """Channels last, 64 of them: a step of 32 would look at two channels for ever."""
    images = torch.zeros(8, 64, 32, 32).to(memory_format=torch.channels_last)
    images[:] = torch.arange(64.0)[:, None, None]
    found = gram(images)
    assert found is not None
    level = found[-1, :-1] / found[-1, -1]
    assert level.tolist() == pytest.approx([31.5] * 8, rel=0.02)
    square = (found.diagonal()[:-1] / found[-1, -1]).tolist()
    assert square == pytest.approx([float((torch.arange(64.0) ** 2).mean())] * 8, rel=0.03)


def test_the_gram_matrix_is_of_the_batch_and_leaves_it_alone() -> None:
    x = normal(5, 7)
    before = x.clone()
    found = gram(x)
    assert found is not None
    with_ones = np.vstack([rows(x), np.ones(7)])
    np.testing.assert_allclose(found.numpy(), with_ones @ with_ones.T, rtol=1e-12, atol=1e-12)
    assert torch.equal(x, before)
    assert not found.requires_grad
