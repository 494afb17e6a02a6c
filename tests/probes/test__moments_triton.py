"""What of the Triton path can be shown without a device: its launch grid, and that it falls back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchwatch.probes._moments import arrange, reference
from torchwatch.probes._moments_triton import TritonKernels, grid


@given(samples=st.integers(1, 100_000), features=st.integers(1, 10_000_000))
def test_the_grid_covers_every_sample_once_and_fills_the_device(samples: int, features: int) -> None:
    blocks, chunks, rows = grid(samples, features)
    assert blocks * 256 >= features
    assert (chunks - 1) * rows < samples <= chunks * rows
    assert chunks == 1 or rows >= 16
    assert chunks == 1 or blocks * (chunks - 1) < 1024  # no more programs than are useful


def test_what_cannot_be_launched_takes_the_plain_way_and_says_why(monkeypatch) -> None:
    kernels = TritonKernels()

    def launch(*_: object, **__: object) -> None:
        raise RuntimeError("no driver")

    monkeypatch.setattr(kernels, "_launch", launch)
    lying, arrangement = arrange(torch.randn(4, 5), 1)
    found = kernels.moments(lying, arrangement, per_unit=True)
    wanted = reference(lying, arrangement)
    torch.testing.assert_close(found.vector, wanted.vector, rtol=0, atol=0, equal_nan=True)
    assert found.units is not None
    assert kernels.failed == "RuntimeError: no driver"


@pytest.mark.parametrize("dtype", [torch.float64])
def test_double_precision_takes_the_plain_way(dtype: torch.dtype, monkeypatch) -> None:
    kernels = TritonKernels()
    monkeypatch.setattr(kernels, "_launch", lambda *_, **__: pytest.fail("launched"))
    lying, arrangement = arrange(torch.randn(4, 5, dtype=dtype), 1)
    kernels.moments(lying, arrangement)
    assert kernels.failed == ""
