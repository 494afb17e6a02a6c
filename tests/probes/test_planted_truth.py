"""A small training, and its run file against what plain hooks of the host saved of it.

Units are killed and put to sleep, samples are made the same: what the file says of them is the truth.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.helpers_watch import record, steps_of
from tests.probes.truth import Saved, batch_std, cka, effective_rank, mean_cosine, per_unit, rows
from torchwatch import WatchConfig
from torchwatch.records import Layout, is_bad, is_missing

BATCH, WINDOW, STEPS = 16, 64, 14
STRETCH = WINDOW // BATCH
CONFIG = WatchConfig(
    budget=None,
    activations_every=1,
    rare_every=1,
    dense_steps=0,
    dead_window_samples=WINDOW,
    terminal=False,
    energy=False,
)
ROUNDED = 6e-4
"""Columns have four significant digits."""

Between = Callable[[nn.Module, int], None]


@dataclass
class Seen:
    """What the file says, and what was saved."""

    saved: Saved
    names: list[str]
    said: list[dict[str, np.ndarray]]

    def of(self, statistic: str, layer: str) -> list[float | None]:
        """What the file says of a layer, step by step; None where it says nothing."""
        place = self.names.index(layer)
        columns = [step.get(statistic) for step in self.said]
        return [None if c is None or is_missing(c)[place] else float(c[place]) for c in columns]


def nothing(model: nn.Module, step: int) -> None:
    """Between the steps."""


def train(model: nn.Module, path: Path, *shape: int, passes: int = 1, between: Between = nothing) -> Seen:
    """Each step has ``passes`` backward passes, together of BATCH samples; evaluation is in between."""
    saved, generator = Saved(model), torch.Generator().manual_seed(3)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.001)

    def body(watch) -> None:
        for step in range(STEPS):
            between(model, step)
            saved.step()
            optimizer.zero_grad()
            for _ in range(passes):
                x = torch.randn(BATCH // passes, *shape, generator=generator)
                loss = F.mse_loss(model(x), torch.zeros(len(x), 3)) / passes
                loss.backward()
            optimizer.step()
            watch.log(loss=loss)
            with torch.no_grad():
                model(1000 * torch.randn(5, *shape, generator=generator))

    records = record(model, body, path, CONFIG)
    layout = next(r for r in records if isinstance(r, Layout))
    said = [step.activations or {} for step in steps_of(records)]
    assert len(said) == STEPS
    return Seen(saved, [layer.name for layer in layout.layers], said)


def assert_units(seen: Seen, layer: str, outputs: list[list[torch.Tensor]], axis: int = 1) -> None:
    """Dead over the last window; dormant over the last stretch that is full and what came after it."""
    for step in range(STEPS):
        dead, dormant = seen.of("dead_fraction", layer)[step], seen.of("dormant_fraction", layer)[step]
        if step + 1 < STRETCH:
            assert (dead, dormant) == (None, None)
            continue
        window = per_unit(list(chain(*outputs[step + 1 - STRETCH : step + 1])), axis)
        assert dead == pytest.approx(float((window.abs().amax(1) <= 1e-6).double().mean()), rel=ROUNDED)
        full = (step + 1) // STRETCH * STRETCH
        activity = per_unit(list(chain(*outputs[full - STRETCH : step + 1])), axis).abs().mean(1)
        asleep = (activity <= 0.025 * activity.mean()).double().mean()
        assert dormant == pytest.approx(float(asleep), rel=ROUNDED)


def assert_level(seen: Seen) -> None:
    """Of every layer that has outputs, at every step."""
    for layer, outputs in seen.saved.outputs.items():
        for step, calls in enumerate(outputs):
            x = torch.cat([call.double().reshape(-1) for call in calls])
            expected = {
                "mean": x.mean(), "std": x.std(correction=0), "rms": x.square().mean().sqrt(),
                "zero_fraction": (x == 0).double().mean(), "absmax": x.abs().max(), "nonfinite": 0.0,
                "batch_std": batch_std(calls),
            }  # fmt: skip
            gradients = seen.saved.gradients[layer][step]
            if gradients:
                arrived = torch.cat([gradient.double().reshape(-1) for gradient in gradients])
                expected["grad_rms"] = arrived.square().mean().sqrt()
            for name, value in expected.items():
                said = seen.of(name, layer)[step]
                assert said == pytest.approx(float(value), rel=ROUNDED, abs=3e-7), (layer, step, name)


def assert_geometry(seen: Seen, order: list[str]) -> None:
    """Of the first pass of each step; ``order``: the layers as they are called."""
    for step in range(STEPS):
        first = [rows(seen.saved.outputs[layer][step][0]) for layer in order]
        for layer, x, following in zip(order, first, [*first[1:], None], strict=True):
            assert seen.of("cosine", layer)[step] == pytest.approx(mean_cosine(x), rel=ROUNDED, abs=1e-4)
            assert seen.of("effective_rank", layer)[step] == pytest.approx(effective_rank(x), rel=ROUNDED)
            said = seen.of("cka", layer)[step]
            if following is None:
                assert said is None
            else:
                assert said == pytest.approx(cka(x, following), rel=ROUNDED, abs=1e-4)


def kill(layer: nn.Linear | nn.Conv2d, units: int) -> None:
    """Nothing gets these above a rectifier's zero again, and no gradient arrives at them."""
    with torch.no_grad():
        layer.bias[:units] = -1e3


def lull(layer: nn.Linear, units: int) -> None:
    """The last ones are a thousandth of what they were, and not dead."""
    with torch.no_grad():
        layer.weight[-units:] *= 1e-3
        layer.bias[-units:] = 5e-3


def net() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 20), nn.ReLU(), nn.Linear(20, 3))
    with torch.no_grad():
        model[0].bias[:] = model[2].bias[:] = 0.5  # nobody else is near either state
    return model


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize(("killed", "lulled"), [(0, 0), (7, 0), (0, 5), (7, 5), (24, 0)])
def test_killed_and_dormant_units(killed: int, lulled: int, passes: int, tmp_path: Path) -> None:
    model = net()
    kill(model[0], killed)
    if lulled:
        lull(model[2], lulled)
    seen = train(model, tmp_path / "run.jsonl", 6, passes=passes)
    outputs, inputs = seen.saved.outputs, seen.saved.inputs
    assert_units(seen, "1", outputs["1"])
    assert_units(seen, "2", inputs["2"])
    assert_units(seen, "3", outputs["3"])
    assert_units(seen, "4", inputs["4"])
    assert seen.of("dead_fraction", "1")[-1] == pytest.approx(killed / 24, rel=ROUNDED)
    assert seen.of("dormant_fraction", "1")[-1] == pytest.approx(killed / 24, rel=ROUNDED)
    assert seen.of("dead_fraction", "3")[-1] == 0
    assert seen.of("dormant_fraction", "3")[-1] == pytest.approx(lulled / 20, rel=ROUNDED)
    assert_level(seen)


def test_units_that_die_in_mid_run_and_come_back(tmp_path: Path) -> None:
    def between(model: nn.Module, step: int) -> None:
        if step == 3:
            kill(model[0], 9)
        elif step == 10:
            with torch.no_grad():
                model[0].bias[:4] = 0.5

    seen = train(net(), tmp_path / "run.jsonl", 6, between=between)
    assert_units(seen, "1", seen.saved.outputs["1"])
    dead = seen.of("dead_fraction", "1")
    assert dead[3 : 3 + STRETCH - 1] == [0] * (STRETCH - 1)
    assert dead[3 + STRETCH - 1 : 10] == [0.375] * (10 - 3 - STRETCH + 1)
    assert dead[10:] == pytest.approx([5 / 24] * 4, rel=ROUNDED)


class Images(nn.Module):
    """Channels are units; the second rectifier is a function, seen only as what the next layer is given."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.relu, self.second = nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 10, 3)
        self.last = nn.Linear(10, 3)
        with torch.no_grad():
            self.first.bias[:] = self.second.bias[:] = 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(F.relu(self.second(self.relu(self.first(x)))).mean((2, 3)))


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_channels_of_images_and_functional_activations(memory: torch.memory_format, tmp_path: Path) -> None:
    model = Images().to(memory_format=memory)
    kill(model.first, 3)
    kill(model.second, 4)
    seen = train(model, tmp_path / "run.jsonl", 2, 7, 7)
    assert_units(seen, "relu", seen.saved.outputs["relu"])
    assert_units(seen, "second", seen.saved.inputs["second"])
    assert_units(seen, "last", seen.saved.inputs["last"])
    dead = [seen.of("dead_fraction", layer)[-1] for layer in ("relu", "second", "last")]
    assert dead == pytest.approx([3 / 8, 3 / 8, 4 / 10], rel=ROUNDED)
    assert_level(seen)
    assert_geometry(seen, ["first", "relu", "second", "last"])


class Signals(nn.Module):
    """Three axes twice: after a convolution the units are on the second, after a linear layer on the last."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.wave, self.relu = nn.Conv1d(2, 8, 3), nn.ReLU()
        self.token, self.gelu = nn.Linear(8, 12), nn.GELU()
        self.last = nn.Linear(12, 3)
        with torch.no_grad():
            self.wave.bias[:] = self.token.bias[:] = 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        waves = self.relu(self.wave(x))
        return self.last(self.gelu(self.token(waves.transpose(1, 2)))).mean(1)


def test_channels_of_signals_and_features_of_tokens(tmp_path: Path) -> None:
    model = Signals()
    kill(model.wave, 3)
    kill(model.token, 5)
    seen = train(model, tmp_path / "run.jsonl", 2, 7)
    outputs, inputs = seen.saved.outputs, seen.saved.inputs
    for layer, tensors, axis in (
        ("relu", outputs["relu"], 1),
        ("token", inputs["token"], 2),
        ("gelu", outputs["gelu"], 2),
        ("last", inputs["last"], 2),
    ):
        assert_units(seen, layer, tensors, axis)
    dead = [seen.of("dead_fraction", layer)[-1] for layer in ("relu", "token", "gelu", "last")]
    assert dead == pytest.approx([3 / 8, 3 / 8, 5 / 12, 5 / 12], rel=ROUNDED)
    assert_level(seen)
    assert_geometry(seen, ["wave", "relu", "token", "gelu", "last"])


@pytest.mark.parametrize("passes", [1, 2])
def test_geometry_of_a_healthy_net(passes: int, tmp_path: Path) -> None:
    seen = train(net(), tmp_path / "run.jsonl", 6, passes=passes)
    assert_geometry(seen, ["0", "1", "2", "3", "4"])
    assert all(value is not None and value > 0.3 for value in seen.of("batch_std", "0"))


def test_layers_that_are_the_same_and_layers_that_have_nothing_in_common(tmp_path: Path) -> None:
    class Layers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(2)
            self.one, self.same, self.other = nn.Linear(8, 8), nn.Identity(), nn.Linear(8, 400)
            self.last = nn.Linear(408, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            left = self.same(2 * self.one(x[:, :8]))
            return self.last(torch.cat([left, self.other(x[:, 8:])], 1))

    seen = train(Layers(), tmp_path / "run.jsonl", 16)
    assert_geometry(seen, ["one", "same", "other", "last"])
    assert seen.of("cka", "one") == pytest.approx([1.0] * STEPS, abs=1e-4)
    assert abs(np.mean([value for value in seen.of("cka", "same") if value is not None])) < 0.15


def collapsed(spread: float) -> nn.Sequential:
    """The first layer gives every sample the same features, and a part of ``spread`` of its own."""
    model = net()
    model[0].requires_grad_(requires_grad=False)
    model[0].weight *= spread
    model[0].bias[:] = torch.linspace(0.5, 1.5, 24)
    return model


def test_samples_that_all_get_the_same_features(tmp_path: Path) -> None:
    seen = train(collapsed(0.0), tmp_path / "run.jsonl", 6)
    for layer in seen.names:
        assert seen.of("batch_std", layer) == pytest.approx([0.0] * STEPS, abs=1e-6)
        assert seen.of("cosine", layer) == pytest.approx([1.0] * STEPS, abs=1e-4)
        assert seen.of("effective_rank", layer) == pytest.approx([1.0] * STEPS, abs=1e-3)
    assert seen.of("cka", "0") == seen.of("cka", "1") == [None] * STEPS, "similar to nothing"
    assert_level(seen)


@pytest.mark.parametrize("spread", [1e-2, 1e-4, 1e-6])
def test_samples_that_get_almost_the_same_features(spread: float, tmp_path: Path) -> None:
    """A spread of a millionth of the level is at the edge of float32; the outputs have it, and it is read."""
    seen = train(collapsed(spread), tmp_path / "run.jsonl", 6)
    for layer in ("0", "1", "2", "3"):
        truth = [batch_std(calls) for calls in seen.saved.outputs[layer]]
        assert 0.01 * spread < truth[0] < 10 * spread
        assert seen.of("batch_std", layer) == pytest.approx(truth, rel=1e-2, abs=3e-8)
    assert seen.of("cosine", "1") == pytest.approx([1.0] * STEPS, abs=1e-3)


def test_nan_in_the_middle_of_the_net(tmp_path: Path) -> None:
    """It is said where it is, and behind it; the layers before are as they are."""

    def between(model: nn.Module, step: int) -> None:
        if step == 6:
            with torch.no_grad():
                model[2].bias[4] = math.nan

    with np.errstate(invalid="ignore"):
        seen = train(net(), tmp_path / "run.jsonl", 6, between=between)
    bad = np.array([[is_bad(step["rms"])[place] for step in seen.said] for place in range(5)])
    assert bad[:, :6].sum() == 0
    assert bad[:, 6].tolist() == [False, False, True, True, True]
    assert seen.of("nonfinite", "2")[6] == BATCH
    assert seen.of("dead_fraction", "3")[6] == 0, "NaN is not silence"
    assert math.isnan(seen.of("dormant_fraction", "3")[6] or 0)
    assert seen.of("dead_fraction", "1")[6] == 0
