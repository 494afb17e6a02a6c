"""Gradient norms as the optimizer sees them, with what is odd about gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.helpers_probe import Bench, parameters
from tests.helpers_watch import record, steps_of
from torchwatch import WatchConfig
from torchwatch.probes._parts import readable
from torchwatch.probes.gradients import GradientProbe
from torchwatch.records import Layout, is_bad, is_missing


def loop(model, optimizer, steps: int, seen: list[list[float]], change=lambda step: None):
    def body(watch) -> None:
        generator = torch.Generator().manual_seed(0)
        for step in range(steps):
            optimizer.zero_grad()
            loss = model(torch.randn(8, 4, generator=generator)).square().mean()
            loss.backward()
            change(step)
            seen.append(
                [
                    float("nan") if p.grad is None else p.grad.double().norm().item()
                    for p in model.parameters()
                ]
            )
            optimizer.step()
            watch.log(loss=loss)

    return body


def test_norms_are_those_of_the_gradients(tmp_path) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    seen: list[list[float]] = []
    records = record(model, loop(model, torch.optim.Adam(model.parameters()), 6, seen), tmp_path / "r.jsonl")
    for step, norms in zip(steps_of(records), seen, strict=True):
        assert step.grad_norm == pytest.approx(math.hypot(*norms), rel=1e-4)
        if step.grad_norms is not None:
            np.testing.assert_allclose(step.grad_norms, norms, rtol=2e-3)


def test_frozen_and_forgotten_parameters(tmp_path) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2), nn.Linear(2, 2))
    model[0].requires_grad_(requires_grad=False)
    optimizer = torch.optim.SGD(model[1].parameters(), lr=0.1)  # model[2] is forgotten
    seen: list[list[float]] = []
    records = record(model, loop(model, optimizer, 4, seen), tmp_path / "r.jsonl")
    step = next(s for s in steps_of(records) if s.grad_norms is not None)
    assert is_missing(step.grad_norms).tolist() == [True, True, False, False, False, False]
    assert step.grad_norm == pytest.approx(
        math.hypot(*seen[0][2:4]), rel=1e-4
    )  # only what the optimizer steps
    layout = [r for r in records if isinstance(r, Layout)][-1]
    assert [p.optimizer for p in layout.parameters] == [None, None, 0, 0, None, None]
    assert [p.trainable for p in layout.parameters] == [False, False, True, True, True, True]


def test_nan_and_overflow(tmp_path) -> None:
    model = nn.Linear(4, 2).double()

    def change(step: int) -> None:
        if step == 1:
            model.weight.grad[0, 0] = float("nan")
        if step == 2:
            model.weight.grad[:] = 1e100  # finite in double precision, larger than any float32

    def body(watch) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        for step in range(3):
            optimizer.zero_grad()
            model(torch.ones(3, 4, dtype=torch.float64)).sum().backward()
            change(step)
            optimizer.step()
            watch.log(loss=1.0)

    steps = steps_of(record(model, body, tmp_path / "r.jsonl"))
    assert [is_bad(s.grad_norms).any() for s in steps] == [False, True, False]
    assert math.isnan(steps[1].grad_norm)
    assert steps[2].grad_norm == pytest.approx(1e100 * math.sqrt(8), rel=1e-5)


def test_sparse_and_complex_gradients(tmp_path) -> None:
    model = nn.ModuleDict({"table": nn.Embedding(10, 3, sparse=True)})
    model.register_parameter("phase", nn.Parameter(torch.tensor([3 + 4j])))

    def body(watch) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            loss = model["table"](torch.tensor([1, 1, 2])).sum() + (model.phase.abs() ** 2).sum()
            loss.backward()
            optimizer.step()
            watch.log(loss=loss)

    records = record(model, body, tmp_path / "r.jsonl")
    names = [p.name for p in next(r for r in records if isinstance(r, Layout)).parameters]
    norms = dict(zip(names, steps_of(records)[0].grad_norms, strict=True))
    assert norms["table.weight"] == pytest.approx(math.sqrt(3 * 4 + 3), rel=1e-5)
    assert norms["phase"] == pytest.approx(10.0, rel=1e-5)


def test_gradients_every(tmp_path) -> None:
    model = nn.Linear(4, 2)
    config = WatchConfig(gradients_every=3, activations_every=100, dense_steps=0, terminal=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    records = record(model, loop(model, optimizer, 7, []), tmp_path / "r.jsonl", config=config)
    assert [s.step for s in steps_of(records) if s.grad_norm is not None] == [1, 4, 7]


def test_readable_refuses_what_has_no_values() -> None:
    assert readable(torch.zeros(0)) is None
    assert readable(torch.ones(2, device="meta")) is None
    assert readable(torch.ones(2, dtype=torch.long)) is None
    assert readable(torch.ones(2, dtype=torch.complex64)).shape == (2, 2)


_SHAPES = st.lists(st.lists(st.integers(1, 40), min_size=0, max_size=3).map(tuple), min_size=1, max_size=6)
_DTYPES = st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16])
_BAD = st.sampled_from([None, math.nan, math.inf, -math.inf])


@settings(max_examples=40, deadline=None)
@given(_SHAPES, _DTYPES, st.lists(_BAD, min_size=6, max_size=6), st.booleans(), st.integers(0, 5))
def test_statistics_are_those_of_a_reference(shapes, dtype, bad, strided, absent) -> None:
    """Norm, largest magnitude and non-finite count of every gradient, in float64 on the same tensors."""
    model = parameters(*shapes, dtype=dtype)
    gradients = {}
    for index, parameter in enumerate(model):
        gradient = torch.randn(parameter.shape, dtype=torch.float64).to(dtype) * 3
        if strided and gradient.dim() > 1:
            gradient = gradient.transpose(0, -1).contiguous().transpose(0, -1)
        if bad[index] is not None:
            gradient[(0,) * gradient.dim()] = bad[index]
        if index != absent:
            parameter.grad = gradients[index] = gradient
    fields = Bench(GradientProbe(), model).step(sampled=True)
    if not gradients:
        assert fields == {}
        return
    for index in range(len(model)):
        if index not in gradients:
            assert is_missing(fields["grad_norms"])[index]
            continue
        exact = gradients[index].double()
        finite = bool(exact.isfinite().all())
        if finite:
            np.testing.assert_allclose(fields["grad_norms"][index], exact.norm().item(), rtol=1e-5)
            np.testing.assert_allclose(fields["grad_absmax"][index], exact.abs().max().item(), rtol=1e-6)
        else:
            assert not np.isfinite(fields["grad_norms"][index])
            assert not np.isfinite(fields["grad_absmax"][index])
        assert fields["grad_nonfinite"][index] == (~exact.isfinite()).sum().item()
    total = math.sqrt(sum(g.double().square().sum().item() for g in gradients.values()))
    if math.isfinite(total):
        assert fields["grad_norm"] == pytest.approx(total, rel=1e-5)
    else:
        assert not math.isfinite(fields["grad_norm"])


def test_magnitudes_only_on_sampled_steps() -> None:
    model = parameters((4, 3), (2000,))
    for parameter in model:
        parameter.grad = torch.ones_like(parameter)
    bench = Bench(GradientProbe(), model)
    assert "grad_absmax" not in bench.step()
    assert bench.step(sampled=True)["grad_absmax"].tolist() == [1.0, 1.0]


def test_what_overflows_in_the_norm_alone_is_counted_as_finite() -> None:
    model = parameters((2000,), (10,), (10,))
    for parameter in model:
        parameter.grad = torch.full_like(parameter, 1e25)
    fields = Bench(GradientProbe(), model).step(sampled=True)
    assert np.isinf(fields["grad_norms"]).all()
    assert fields["grad_nonfinite"].tolist() == [0.0, 0.0, 0.0]


def test_gradients_come_and_go_and_change_their_kind() -> None:
    model = parameters((4,), (5,), (3000,))
    bench = Bench(GradientProbe(), model)
    assert bench.step() == {}
    model[0].grad = torch.ones(4)
    assert is_missing(bench.step()["grad_norms"]).tolist() == [False, True, True]
    model[2].grad = torch.ones(3000)
    assert is_missing(bench.step()["grad_norms"]).tolist() == [False, True, False]
    model[0].grad = torch.ones(4).to_sparse()
    model[1].grad = torch.ones(5)
    np.testing.assert_allclose(bench.step()["grad_norms"], np.sqrt([4, 5, 3000]), rtol=1e-6)
    model[0].data = model[0].data.double()
    model[0].grad = torch.ones(4, dtype=torch.float64)
    np.testing.assert_allclose(bench.step()["grad_norms"], np.sqrt([4, 5, 3000]), rtol=1e-6)


def test_a_lazy_parameter_is_measured_once_it_is_there() -> None:
    model = nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2))
    bench = Bench(GradientProbe(), model)
    bench.step()
    model(torch.ones(2, 4)).sum().backward()
    assert not is_missing(bench.step()["grad_norms"]).any()


def test_a_fused_optimizers_gradients_are_unscaled() -> None:
    model = parameters((4,), (3000,))
    for parameter in model:
        parameter.grad = torch.full_like(parameter, 1024.0)
    bench = Bench(GradientProbe(), model)
    bench.optimizer.grad_scale, bench.optimizer.found_inf = torch.tensor(512.0), torch.tensor(0.0)
    fields = bench.step(sampled=True)
    assert fields["grad_scale"] == 512.0
    assert fields["skipped"] is False
    assert fields["grad_absmax"].tolist() == [2.0, 2.0]
    assert fields["grad_norm"] == pytest.approx(2 * math.sqrt(3004))


def test_storages_of_the_host_stay_resizable() -> None:
    """``Tensor.numpy()`` would pin a storage's size, which breaks hosts that free sharded parameters."""
    model = parameters((4,), (4,))
    for parameter in model:
        parameter.grad = torch.ones(4)
    Bench(GradientProbe(), model).step(sampled=True)
    assert all(p.grad.untyped_storage().resizable() for p in model)
    assert all(p.untyped_storage().resizable() for p in model)
