"""Equal batches have equal fingerprints, different ones different ones, whatever their type and layout."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from torchwatch.probes._fingerprint import MOST, Sketcher, combined, digest, sketchable

DTYPES = [
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8,
    torch.int16, torch.int8, torch.bool, torch.complex64,
]  # fmt: skip
SHAPES = [(1,), (3, 5), (64,), (127,), (128,), (32, 9), (4, 3, 8, 8), (16, 50), (2, 64, 64)]


def fingerprint(*tensors: torch.Tensor) -> str:
    sketcher = Sketcher()
    return digest([(list(t.shape), str(t.dtype), read(sketcher, t)) for t in tensors])


def read(sketcher: Sketcher, tensor: torch.Tensor) -> list[np.ndarray]:
    return [part.to(torch.float64).numpy() for part in sketcher.sketch(tensor)]


def values(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if dtype is torch.bool:
        return torch.rand(shape, generator=generator) < 0.5
    if not dtype.is_floating_point and not dtype.is_complex:
        return torch.randint(0, 100, shape, generator=generator).to(dtype)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


@settings(max_examples=80, deadline=None)
@given(
    shape=st.sampled_from(SHAPES),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 1000),
    place=st.integers(0, 10**6),
)
def test_one_changed_element_changes_it_and_an_equal_copy_does_not(shape, dtype, seed, place) -> None:
    tensor = values(shape, dtype, seed)
    other = tensor.clone()
    assert fingerprint(tensor) == fingerprint(other)
    flat = other.view(-1)
    flat[place % flat.numel()] = ~flat[place % flat.numel()] if dtype is torch.bool else 101
    assert fingerprint(tensor) != fingerprint(other)


@settings(max_examples=40, deadline=None)
@given(shape=st.sampled_from(SHAPES), dtype=st.sampled_from(DTYPES), seed=st.integers(0, 1000))
def test_the_layout_in_memory_does_not_matter(shape, dtype, seed) -> None:
    tensor = values(shape, dtype, seed)
    spread = tensor.repeat_interleave(2, -1)[..., ::2]
    turned = tensor.movedim(0, -1).contiguous().movedim(-1, 0)
    shifted = torch.cat([tensor.view(-1)[:1], tensor.view(-1)])[1:].view(shape)
    assert {fingerprint(t) for t in (tensor, spread, turned, shifted)} == {fingerprint(tensor)}


def test_nan_is_a_value_like_others() -> None:
    tensor = torch.full((300,), float("nan"))
    other = tensor.clone()
    other[200] = 1.0
    assert fingerprint(tensor) == fingerprint(tensor.clone()) != fingerprint(other)


def test_shape_and_type_belong_to_it() -> None:
    tensor = torch.zeros(6, 4)
    assert (
        len({fingerprint(tensor), fingerprint(tensor.view(4, 6)), fingerprint(tensor.to(torch.int32))}) == 3
    )


def test_the_same_samples_in_another_order_are_another_batch() -> None:
    """The sums alone cannot tell: a sample here is a whole number of rows."""
    tensor = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
    assert fingerprint(tensor) != fingerprint(tensor[torch.randperm(64)])


def test_one_hot_batches_are_told_apart() -> None:
    """Almost every element is 0: the few picked words alone cannot tell."""
    generator = torch.Generator().manual_seed(0)
    batches = [
        torch.nn.functional.one_hot(torch.randint(0, 5000, (32,), generator=generator), 5000).float()
        for _ in range(20)
    ]
    assert len({fingerprint(b) for b in batches}) == 20


def test_a_large_tensor_is_read_in_part_and_still_told_apart() -> None:
    tensor = torch.zeros(40, MOST // 20)
    other = tensor.clone()
    other[3, 7] = 1e-30
    assert fingerprint(tensor) == fingerprint(tensor.clone()) != fingerprint(other)
    spread = tensor.t().contiguous().t()
    assert not spread.is_contiguous()
    assert fingerprint(spread) == fingerprint(tensor)


def test_it_is_the_same_in_every_process_and_with_every_number_of_threads() -> None:
    tensor = torch.arange(70_000, dtype=torch.float32).view(700, 100) / 7
    threads = torch.get_num_threads()
    found = set()
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            found.add(fingerprint(tensor))
    finally:
        torch.set_num_threads(threads)
    assert found == {"79214fce"}


def test_random_batches_do_not_collide() -> None:
    generator = torch.Generator().manual_seed(0)
    found = {fingerprint(torch.randint(0, 2, (8, 16), generator=generator)) for _ in range(1500)}
    assert len(found) >= 1499  # 32 bits: 0.03 % chance of one pair among 1,500


def test_a_repeated_pass_counts_once() -> None:
    assert combined(["a", "a", "a"]) == "a"
    assert combined(["a", "b"]) == combined(["a", "a", "b"]) != combined(["b", "a"])


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_what_cannot_be_read_is_left_alone() -> None:
    for tensor in (
        torch.zeros(3, device="meta"),
        torch.eye(3).to_sparse(),
        torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        torch.zeros(2, dtype=torch.complex64).conj(),
        torch.zeros(2, dtype=torch.float8_e4m3fn),
    ):
        assert not sketchable(tensor)


def test_remembered_picks_are_bounded() -> None:
    sketcher = Sketcher()
    for n in range(200, 500):
        sketcher.sketch(torch.zeros(n))
    assert len(sketcher._picks) <= 64
