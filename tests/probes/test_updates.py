"""Update ratios against a full copy, and exactly 0 where nothing moved."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers_probe import Bench, parameters
from tests.helpers_watch import record, steps_of
from torchwatch import WatchConfig
from torchwatch.probe import Frame
from torchwatch.probes import updates
from torchwatch.probes.updates import UpdateProbe
from torchwatch.schedule import Plan


def train(model, optimizer, steps: int, truth: list[np.ndarray] | None = None, before=lambda step: None):
    def body(watch) -> None:
        generator = torch.Generator().manual_seed(0)
        for step in range(steps):
            before(step)
            old = [p.detach().clone() for p in model.parameters()]
            optimizer.zero_grad()
            loss = model(torch.randn(8, 4, generator=generator, dtype=old[0].dtype)).square().mean()
            loss.backward()
            optimizer.step()
            if truth is not None:
                moved = [(p.detach() - o).norm().item() for p, o in zip(model.parameters(), old, strict=True)]
                truth.append(np.array([m / o.norm().item() for m, o in zip(moved, old, strict=True)]))
            watch.log(loss=loss)

    return body


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_small_parameters_are_exact(tmp_path, dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2)).to(dtype)
    truth: list[np.ndarray] = []
    body = train(model, torch.optim.Adam(model.parameters(), lr=0.01), 5, truth)
    for step, exact in zip(steps_of(record(model, body, tmp_path / "r.jsonl")), truth, strict=True):
        np.testing.assert_allclose(step.update_ratios, exact, rtol=2e-3)


def test_large_parameters_are_estimated_from_a_slice(tmp_path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3000), nn.Tanh(), nn.Linear(3000, 2))
    truth: list[np.ndarray] = []
    config = WatchConfig(update_slice=512, activations_every=1, terminal=False)
    body = train(model, torch.optim.Adam(model.parameters(), lr=0.01), 4, truth)
    records = record(model, body, tmp_path / "r.jsonl", config=config)
    steps = steps_of(records)
    np.testing.assert_allclose(steps[0].update_ratios, truth[0], rtol=2e-3)  # a thorough step: in full
    for step, exact in zip(steps[1:], truth[1:], strict=True):
        np.testing.assert_allclose(step.update_ratios, exact, rtol=0.2)


def test_nothing_moved_is_exactly_zero(tmp_path) -> None:
    model = nn.Linear(4, 2)
    other = nn.Linear(4, 2)
    optimizer = torch.optim.SGD([*model.parameters(), *other.parameters()], lr=0.0)
    steps = steps_of(record(model, train(model, optimizer, 3), tmp_path / "r.jsonl"))
    assert [s.update_ratio for s in steps] == [0.0, 0.0, 0.0]


def test_tiny_updates_of_double_precision_are_not_zero(tmp_path) -> None:
    model = nn.Linear(4, 2).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-12)
    steps = steps_of(record(model, train(model, optimizer, 2), tmp_path / "r.jsonl"))
    assert all(0 < s.update_ratio < 1e-9 for s in steps)


def test_a_zero_weight_that_moves_has_ratio_one_and_nan_is_nan(tmp_path) -> None:
    model = nn.Linear(4, 2)
    nn.init.zeros_(model.bias)

    def before(step: int) -> None:
        if step == 1:
            with torch.no_grad():
                model.weight[0, 0] = float("nan")

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    steps = steps_of(record(model, train(model, optimizer, 2, before=before), tmp_path / "r.jsonl"))
    assert steps[0].update_ratios[1] == 1.0
    assert math.isnan(steps[1].update_ratios[0])
    assert math.isnan(steps[1].update_ratio)


def test_weights_that_move_in_memory_are_followed(tmp_path) -> None:
    model = nn.Linear(4, 2)

    def before(step: int) -> None:
        if step == 2:
            model.weight.data = model.weight.data.clone()

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    steps = steps_of(record(model, train(model, optimizer, 4, before=before), tmp_path / "r.jsonl"))
    assert all(s.update_ratio > 0 for s in steps)


def moved(model: nn.ParameterList, ratio: float = 1e-2):
    """An update that moves every element by a share of its own size, in a random direction."""

    def update() -> None:
        for parameter in model:
            sign = torch.randint(0, 2, parameter.shape).mul(2).sub(1).to(parameter.dtype)
            parameter.data.add_(parameter.data * ratio * sign)

    return update


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
def test_thorough_steps_are_exact_and_the_others_near(dtype) -> None:
    model = parameters((300, 200), (64,), (70_000,), (), dtype=torch.float64)
    for parameter in model:
        parameter.data = parameter.data.to(dtype)
    bench = Bench(UpdateProbe(), model)
    for number in range(52):
        before = [p.detach().clone() for p in model]
        fields = bench.step(sampled=True, update=moved(model))
        pairs = list(zip(model, before, strict=True))
        exact = [((p - b).norm() / b.norm()).item() for p, b in pairs]
        total = math.sqrt(sum((p - b).norm().item() ** 2 for p, b in pairs))
        overall = total / math.sqrt(sum(b.norm().item() ** 2 for b in before))
        tolerance = 1e-3 if number in (0, 50) else 0.1
        np.testing.assert_allclose(fields["update_ratios"], exact, rtol=tolerance)
        assert fields["update_ratio"] == pytest.approx(overall, rel=tolerance)


def test_full_copies_are_bounded_and_that_is_said(monkeypatch) -> None:
    monkeypatch.setattr(updates, "FULL_BYTES", 4 * 70_000)
    model = parameters((80_000,), (70_000,), (64,))
    bench = Bench(UpdateProbe(), model)
    version = bench.patient.version
    assert bench.probe.coverage() == "ok"
    bench.step(sampled=True)
    assert [w.indices.tolist() for w in bench.probe._whole] == []  # let go of after the step
    assert bench.probe.coverage() == "slices only of the 1 largest parameters: copies are bounded"
    assert bench.patient.version == version + 1


def test_without_memory_for_copies_the_slices_stay(monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise torch.OutOfMemoryError("none left")

    model = parameters((80_000,))
    bench = Bench(UpdateProbe(), model)
    monkeypatch.setattr(torch.Tensor, "clone", refuse)
    assert bench.step(sampled=True, update=moved(model))["update_ratios"][0] == pytest.approx(1e-2, rel=0.1)


def test_the_overall_ratio_is_of_all_elements_not_of_the_slices() -> None:
    """A large parameter that stands still outweighs a small one that moves."""
    model = parameters((1_000_000,), (1000,))

    def update() -> None:
        model[1].data.mul_(2.0)

    fields = Bench(UpdateProbe(), model).step(update=update)
    assert fields["update_ratios"].tolist() == [0.0, 1.0]
    assert fields["update_ratio"] == pytest.approx(math.sqrt(1e-3), rel=0.1)


def test_a_single_element_of_a_small_parameter_is_seen() -> None:
    model = parameters((64, 64), (10,), dtype=torch.bfloat16)

    def update() -> None:
        model[0].data[63, 63] += 1

    ratios = Bench(UpdateProbe(), model).step(update=update)["update_ratios"]
    assert ratios[0] > 0
    assert ratios[1] == 0


def test_two_optimizers_in_one_step() -> None:
    model = parameters((5000,), (5000,))
    bench = Bench(UpdateProbe(), model, torch.optim.SGD([model[0]], lr=0.1))
    other = torch.optim.SGD([model[1]], lr=0.1)
    held = bench.patient.held_by(other)
    frame = Frame(Plan(1, gradients=True, sampled=True, rare=True, sentinel=False))
    for optimizer, indices, factor in ((bench.optimizer, bench.held, 1.5), (other, held, 1.25)):
        bench.probe.before_step(frame, optimizer, indices)
        model[indices[0]].data.mul_(factor)
        bench.probe.after_step(frame, optimizer, indices)
    np.testing.assert_allclose(bench.decode(frame)["update_ratios"], [0.5, 0.25], rtol=1e-4)
