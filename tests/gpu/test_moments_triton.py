"""The one-pass kernel against its definition: every shape, type and layout, with NaN and infinity.

On a CUDA device by benchmarks/gpu/run.sh; without one, with Triton's interpreter:
``TRITON_INTERPRET=1 pytest -m gpu tests/gpu/test_moments_triton.py``.
"""

from __future__ import annotations

import math
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchwatch.probes._moments import MOMENTS, arrange, reference
from torchwatch.probes._moments_triton import TritonKernels

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not (INTERPRETED or torch.cuda.is_available()), reason="needs a CUDA device or Triton's interpreter"
    ),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # NumPy's of NaN, inside the interpreter
]

SHAPES = [(8, 3, 5, 5), (40, 7), (4, 6, 10), (1, 300), (100, 1), (5, 600), (3,), (64, 8, 16), (2, 3, 4, 5, 6)]


def compare(x: torch.Tensor, axis: int | None, bounds: tuple[float, float] | None = None) -> None:
    lying, arrangement = arrange(x, axis)
    wanted = reference(lying, arrangement, per_unit=axis is not None, bounds=bounds)
    kernels = TritonKernels()
    found = kernels.moments(lying, arrangement, per_unit=axis is not None, bounds=bounds)
    assert kernels.failed == ""
    assert isinstance(found.vector, torch.Tensor)
    assert isinstance(wanted.vector, torch.Tensor)
    for name, one, other in zip(MOMENTS, found.vector.tolist(), wanted.vector.tolist(), strict=True):
        if math.isinf(other):
            assert not math.isfinite(one), name
        else:
            scale = wanted.vector[1].item() if math.isfinite(wanted.vector[1].item()) else 0.0
            assert one == pytest.approx(other, rel=2e-5, abs=1e-5 * scale + 1e-6, nan_ok=True), name
    assert (found.units is None) == (wanted.units is None)
    if found.units is not None and wanted.units is not None:
        for one, other in zip(found.units, wanted.units, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6, equal_nan=True)


@settings(max_examples=30 if INTERPRETED else 300, deadline=None)
@given(
    shape=st.sampled_from(SHAPES),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    layout=st.sampled_from(["plain", "channels_last", "strided", "expanded"]),
    hole=st.sampled_from([None, math.nan, math.inf, -math.inf]),
    relu=st.booleans(),
    bounds=st.sampled_from([None, (0.0, 1.0), (-1.0, 1.0)]),
    seed=st.integers(0, 99),
)
def test_as_defined(shape, dtype, layout, hole, relu, bounds, seed) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    x = x.relu() if relu else x
    if hole is not None:
        x.view(-1)[seed % x.numel()] = hole
    x = x.to(DEVICE)
    if layout == "channels_last" and x.dim() == 4:
        x = x.to(memory_format=torch.channels_last)
    elif layout == "strided":
        x = torch.stack([x, x], -1)[..., 0]
    elif layout == "expanded":
        x = x[:1].expand_as(x)
    compare(x, 1 if x.dim() > 1 else None, bounds)


def test_a_small_spread_is_no_difference_of_large_sums() -> None:
    x = 100 + 1e-3 * torch.randn(256, 64, device=DEVICE)
    lying, arrangement = arrange(x, 1)
    found, wanted = (f(lying, arrangement) for f in (TritonKernels().moments, reference))
    assert float(found.vector[2]) == pytest.approx(float(wanted.vector[2]), rel=1e-2)


@pytest.mark.skipif(INTERPRETED, reason="much for an interpreter")
@pytest.mark.parametrize("shape", [(8, 1024, 768), (64, 256, 56, 56), (8192, 50257), (4096, 10)])
def test_sizes_of_real_layers(shape) -> None:
    compare(torch.randn(shape, device=DEVICE, dtype=torch.bfloat16), len(shape) - 1 if len(shape) == 3 else 1)


@pytest.mark.skipif(INTERPRETED, reason="needs a device")
def test_it_does_not_synchronise() -> None:
    x = torch.randn(64, 128, device=DEVICE)
    lying, arrangement = arrange(x, 1)
    kernels = TritonKernels()
    kernels.moments(lying, arrangement, per_unit=True)  # builds the kernels
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        kernels.moments(lying, arrangement, per_unit=True)
    finally:
        torch.cuda.set_sync_debug_mode("default")
