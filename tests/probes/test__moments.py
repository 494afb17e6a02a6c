"""Moments against a float64 reference of the saved tensor: shapes, types, strides, NaN, empty axes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchwatch.probes._kernels import Kernels
from torchwatch.probes._moments import MOMENTS, arrange, reference, reference_units

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
KINDS = ["normal", "rectified", "offset", "constant", "zeros", "tiny", "huge"]
LAYOUTS = ["plain", "channels_last", "strided", "expanded", "transposed", "sliced"]


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Tensors of 0 to 5 dimensions as layers put them out."""
    shape = draw(st.lists(st.integers(1, 7), min_size=0, max_size=5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    tensor = torch.randn(shape, generator=generator)
    kind = draw(st.sampled_from(KINDS))
    match kind:
        case "rectified":
            tensor = tensor.relu()
        case "offset":
            tensor = 3 + tensor / 256
        case "constant" if shape:
            tensor = tensor[:1].expand(shape).clone()
        case "zeros":
            tensor = tensor * 0
        case "tiny":
            tensor = tensor * 1e-3
        case "huge":
            tensor = tensor * 1e4
    tensor = _laid_out(tensor.to(draw(st.sampled_from(DTYPES))), draw(st.sampled_from(LAYOUTS)))
    hole = draw(st.sampled_from([None, None, None, math.nan, math.inf, -math.inf]))
    if hole is not None:
        tensor = tensor.clone(memory_format=torch.preserve_format)
        tensor[tuple(draw(st.integers(0, n - 1)) for n in tensor.shape)] = hole
    return tensor


def _laid_out(tensor: torch.Tensor, layout: str) -> torch.Tensor:
    axes = tensor.dim()
    match layout:
        case "channels_last" if axes == 4:
            return tensor.to(memory_format=torch.channels_last)
        case "strided" if axes:
            return tensor.repeat_interleave(2, -1)[..., ::2]
        case "expanded" if axes > 1:
            return tensor[:, :1].expand(tensor.shape)
        case "transposed" if axes > 1:
            return tensor.transpose(0, -1)
        case "sliced" if axes:
            return torch.cat([tensor, tensor])[: len(tensor)]
    return tensor


def exact(tensor: torch.Tensor, bounds: tuple[float, float] | None) -> dict[str, float]:
    """Every moment, in float64, as the definitions say and in no clever way."""
    x = tensor.detach().double().numpy()
    rows = x.reshape(x.shape[0] if x.ndim else 1, -1)
    with np.errstate(all="ignore"):
        return {
            "total": x.sum(),
            "square": (x**2).sum(),
            "spread": ((rows - rows.mean(0)) ** 2).sum(),
            "deviation": ((x - x.mean()) ** 2).sum(),
            "absmax": np.abs(x).max(),
            "zeros": (x == 0).sum(),
            "nonfinite": (~np.isfinite(x)).sum(),
            "saturated": math.nan
            if bounds is None
            else ((x <= bounds[0] + 0.01) | (x >= bounds[1] - 0.01)).sum(),
        }


def check_moments(found: dict[str, float], expected: dict[str, float], entries: int) -> None:
    """Within float32 rounding; what is small beside the entries has room for the rounding of the entries."""
    for name in ("zeros", "nonfinite", "saturated"):
        assert found[name] == expected[name] or math.isnan(expected[name]) == math.isnan(found[name]) is True
    if expected["nonfinite"]:
        if math.isnan(expected["absmax"]):
            assert all(
                math.isnan(found[name]) for name in ("total", "square", "spread", "deviation", "absmax")
            )
        else:
            assert found["absmax"] == found["square"] == math.inf
            assert not any(math.isfinite(found[n]) for n in ("total", "spread", "deviation"))
        return
    square = expected["square"]
    near = {
        "total": 1e-5 * math.sqrt(entries * square),
        "square": 1e-5 * square,
        "spread": 1e-3 * expected["spread"] + 1e-11 * square,
        "deviation": 1e-3 * expected["deviation"] + 1e-11 * square,
        "absmax": 0.0,
    }
    for name, allowed in near.items():
        assert abs(found[name] - expected[name]) <= allowed, name


def by_name(vector: object) -> dict[str, float]:
    numbers = vector.tolist() if isinstance(vector, torch.Tensor) else vector
    assert isinstance(numbers, list)
    return dict(zip(MOMENTS, numbers, strict=True))


@settings(max_examples=300, deadline=None)
@given(tensor=tensors(), bounds=st.sampled_from([None, (0.0, 1.0), (-1.0, 1.0)]))
def test_moments_equal_a_float64_reference(tensor, bounds) -> None:
    before = tensor.clone()
    expected = exact(tensor, bounds)
    lying, arrangement = arrange(tensor, None)
    plain = by_name(reference(lying, arrangement, bounds=bounds).vector)
    check_moments(plain, expected, tensor.numel())
    fast = by_name(Kernels().moments(tensor, None, bounds=bounds).vector)
    check_moments(fast, expected, tensor.numel())
    assert torch.equal(before.nan_to_num(), tensor.nan_to_num())


@settings(max_examples=200, deadline=None)
@given(tensor=tensors(), last=st.booleans(), data=st.data())
def test_units_equal_a_float64_reference(tensor, last, data) -> None:
    if tensor.dim() < 2:
        return
    axis = tensor.dim() - 1 if last else 1
    magnitudes = np.abs(np.moveaxis(tensor.double().numpy(), axis, 0)).reshape(tensor.shape[axis], -1)
    with np.errstate(all="ignore"):
        peaks, activity = magnitudes.max(1), magnitudes.mean(1)
    kernels = Kernels()
    ways = [
        reference_units(*arrange(tensor, axis)),
        kernels.units(tensor, axis),
        kernels.moments(tensor, axis).units,
    ]
    if (tensor >= 0).all() or (tensor.isnan() | (tensor >= 0)).all():
        ways.append(kernels.moments(tensor, axis, nonnegative=True).units)
        check_moments(
            by_name(kernels.moments(tensor, axis, nonnegative=True).vector),
            exact(tensor, None),
            tensor.numel(),
        )
    for found in ways:
        assert found is not None
        np.testing.assert_array_equal(found[0].numpy(), peaks.astype(np.float32))
        np.testing.assert_allclose(found[1].numpy(), activity, rtol=2e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [(5, 40_000), (3, 2, 70_000), (1, 70_001), (2500, 3), (9, 4, 65, 65), (2, 80_000)]
)
def test_tensors_larger_than_a_piece(shape, dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    tensor = (torch.randn(shape, generator=generator) + 0.2).to(dtype)
    tensor[0, 1] = 0
    for axis in (None, 1, len(shape) - 1):
        for values, promise in ((tensor, False), (tensor.abs(), True)):
            found = Kernels().moments(values, axis, nonnegative=promise)
            check_moments(by_name(found.vector), exact(values, None), values.numel())
            if axis is not None and found.units is not None:
                expected = reference_units(*arrange(values, axis))
                torch.testing.assert_close(found.units, expected, rtol=2e-5, atol=0.0)


def test_a_spread_of_one_in_ten_thousand_comes_out_right() -> None:
    generator = torch.Generator().manual_seed(0)
    means = 1 + torch.rand(300, generator=generator)
    tensor = means + 1e-4 * torch.randn(64, 300, generator=generator)
    expected = exact(tensor, None)
    for vector in (reference(*arrange(tensor, None)).vector, Kernels().moments(tensor, None).vector):
        found = by_name(vector)
        assert found["spread"] == pytest.approx(expected["spread"], rel=1e-3)
        assert found["deviation"] == pytest.approx(expected["deviation"], rel=1e-4)


def test_squares_that_do_not_fit_are_no_infinity_in_the_data() -> None:
    found = by_name(Kernels().moments(torch.full((4, 3), -1e30), None).vector)
    assert found["nonfinite"] == 0
    assert found["square"] == pytest.approx(12e60)
    assert found["absmax"] == pytest.approx(1e30)


def test_negative_zero_is_zero() -> None:
    tensor = torch.tensor([[-0.0, 1e-42, -2.0]])
    assert by_name(Kernels().moments(tensor, None).vector)["zeros"] == 1


@settings(max_examples=100, deadline=None)
@given(tensor=tensors())
def test_squares_of_gradients(tensor) -> None:
    with np.errstate(all="ignore"):
        expected = float((tensor.double().numpy() ** 2).sum())
    np.testing.assert_allclose(float(Kernels().square(tensor)), expected, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_squares_beyond_float32(scale) -> None:
    assert float(Kernels().square(torch.full((10,), scale))) == pytest.approx(10 * scale**2, rel=1e-5)


def test_an_expanded_gradient_is_not_written_out() -> None:
    gradient = torch.full((), 0.5).expand(1000, 1000, 1000)
    assert float(Kernels().square(gradient)) == pytest.approx(0.25e9)


def test_buffers_made_in_inference_mode_can_be_used_outside_of_it() -> None:
    kernels = Kernels()
    tensor = torch.randn(4, 5)
    with torch.inference_mode():
        inside = kernels.moments(tensor, 1).vector
    assert kernels.moments(tensor, 1).vector == inside


def test_the_host_s_default_type_does_not_matter() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        found = Kernels().moments(torch.ones(4, 5, dtype=torch.float32), 1)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.units is not None
    assert found.units[0].dtype == torch.float32
