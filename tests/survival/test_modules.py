"""Modules that are not plain: scripted, parametrised, pruned, lazy, without memory, and twelve thousand."""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune

from tests.helpers_replay import assert_live_equals_replay, steps_in
from tests.survival.conduct import BOTH, CONFIGS, SPARSE, survive
from tests.zoo import numbers, train
from torchwatch import Watcher
from torchwatch.records import Layout, is_missing

if TYPE_CHECKING:
    from pathlib import Path

    from tests.zoo import Stage

DEPRECATED = (r"`torch\.jit\.",)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def scripted_whole() -> nn.Module:
    return torch.jit.script(Net())


def scripted_in_part() -> nn.Module:
    net = Net()
    net.body = torch.jit.script(net.body)  # type: ignore[assignment]
    return net


def traced() -> nn.Module:
    return torch.jit.trace(nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(6, 5))


@pytest.mark.filterwarnings(f"ignore:{DEPRECATED[0]}:DeprecationWarning")
@pytest.mark.parametrize("config", BOTH)
@pytest.mark.parametrize("make", [scripted_whole, scripted_in_part, traced])
def test_scripted_modules_are_trained_the_same(make: Any, config: str, tmp_path: Path) -> None:
    """Their layers run where no hook sees them: gradients and weights are all there, activations are not."""
    survival = survive(
        lambda stage: train(stage, make(), numbers(6, 5)),
        tmp_path / "run.jsonl",
        CONFIGS[config],
        warns=DEPRECATED,
    )
    assert all(step.grad_norm > 0 and step.update_ratio > 0 for step in survival.steps)
    assert {p.name for p in survival.layouts[-1].parameters} == {n for n, _ in make().named_parameters()}


@pytest.mark.parametrize(("make", "seen"), [(scripted_whole, 0), (scripted_in_part, 1), (traced, 0)])
def test_scripted_layers_are_said_to_be_unseen(make: Any, seen: int, tmp_path: Path) -> None:
    survival = survive(
        lambda stage: train(stage, make(), numbers(6, 5)), tmp_path / "run.jsonl", warns=DEPRECATED
    )
    assert "scripted" in survival.coverage["activations"]
    assert sum(layer.watched for layer in survival.layouts[-1].layers) == seen
    columns = [step.activations["rms"] for step in survival.steps if step.activations]
    assert all((~is_missing(column)).sum() == seen for column in columns)


class Symmetric(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.triu() + x.triu(1).transpose(-1, -2)


def parametrised() -> nn.Module:
    model = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5), nn.Linear(5, 3))
    parametrizations.orthogonal(model[0])
    parametrizations.weight_norm(model[2])
    parametrize.register_parametrization(model[2], "bias", nn.Tanh())
    parametrizations.spectral_norm(model[3])
    return model


def parametrised_by_hand() -> nn.Module:
    model = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 3))
    parametrize.register_parametrization(model[0], "weight", Symmetric())
    return model


def pruned() -> nn.Module:
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    prune.l1_unstructured(model[0], "weight", amount=0.5)
    prune.ln_structured(model[2], "weight", amount=0.3, n=2, dim=0)
    return model


@pytest.mark.parametrize("config", BOTH)
@pytest.mark.parametrize("make", [parametrised, parametrised_by_hand, pruned])
def test_parametrised_modules_are_trained_the_same(make: Any, config: str, tmp_path: Path) -> None:
    survival = survive(
        lambda stage: train(stage, make(), numbers(6, 5)), tmp_path / "run.jsonl", CONFIGS[config]
    )
    names = [p.name for p in survival.layouts[-1].parameters]
    assert sorted(names) == sorted(n for n, _ in make().named_parameters())
    assert all(step.grad_norm > 0 for step in survival.steps)


def test_parametrised_and_unparametrised_in_mid_run(tmp_path: Path) -> None:
    """``cached()``, and a parametrization that is taken off, which replaces the parameter."""

    def play(stage: Stage) -> None:
        model = parametrised_by_hand()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        with stage.watch(model) as watch:
            for i, (x, y) in enumerate(numbers(6, 5)):
                if i == 6:
                    parametrize.remove_parametrizations(model[0], "weight")
                    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
                optimizer.zero_grad()
                with parametrize.cached():
                    loss = F.mse_loss(model(x), y)
                loss.backward()
                stage.gradients(model)
                optimizer.step()
                watch.log(loss=loss)
                stage.step(loss)
        stage.end(model, optimizer)

    survival = survive(play, tmp_path / "run.jsonl")
    assert [p.name for p in survival.layouts[0].parameters] == [
        "0.bias", "0.parametrizations.weight.original", "2.weight", "2.bias",
    ]  # fmt: skip
    assert [p.name for p in survival.layouts[-1].parameters] == ["0.bias", "0.weight", "2.weight", "2.bias"]


@pytest.mark.parametrize("config", BOTH)
def test_lazy_modules_are_named_once_they_have_a_shape(config: str, tmp_path: Path) -> None:
    """Entered while nothing has a shape: the parameters come to be in the first forward pass."""

    def play(stage: Stage) -> None:
        model = nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(3))
        with stage.watch(model) as watch:
            optimizer = None
            for x, y in numbers(6, 5):
                loss = F.mse_loss(model(x), y)
                if optimizer is None:
                    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
                optimizer.zero_grad()
                loss.backward()
                stage.gradients(model)
                optimizer.step()
                watch.log(loss=loss)
                stage.step(loss)
        assert optimizer is not None
        stage.end(model, optimizer)

    survival = survive(
        play, tmp_path / "run.jsonl", CONFIGS[config], warns=("Lazy modules are a new feature",)
    )
    layout = survival.layouts[-1]
    assert {p.name: p.shape for p in layout.parameters}["0.weight"] == [8, 5]
    assert all(layer.order is not None for layer in layout.layers)
    assert all(step.grad_norm > 0 for step in survival.steps)


def test_a_model_that_gets_its_memory_while_it_is_watched(tmp_path: Path) -> None:
    """Made on the meta device, as large models are, and materialised after entering."""

    def play(stage: Stage) -> None:
        source = Net()
        with torch.device("meta"):
            model = Net()
        with stage.watch(model) as watch:
            model.to_empty(device="cpu")
            model.load_state_dict(source.state_dict(), assign=True)
            optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
            for x, y in numbers(6, 5):
                optimizer.zero_grad()
                loss = F.mse_loss(model(x), y)
                loss.backward()
                stage.gradients(model)
                optimizer.step()
                watch.log(loss=loss)
                stage.step(loss)
        stage.end(model, optimizer)

    survival = survive(play, tmp_path / "run.jsonl")
    assert all(step.grad_norm > 0 and step.update_ratio > 0 for step in survival.steps)
    assert all(p.dtype == "float32" for p in survival.layouts[-1].parameters)


def test_parameters_that_take_the_places_of_dead_ones(tmp_path: Path) -> None:
    """New parameters may lie where the old ones lay: an address alone is no identity."""

    def play(stage: Stage) -> None:
        model = nn.Sequential(*(nn.Linear(5, 5) for _ in range(4)), nn.Linear(5, 3))
        with stage.watch(model) as watch:
            for i, (x, y) in enumerate(numbers(6, 5)):
                if i % 4 == 0:
                    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
                    model.load_state_dict(state, assign=True)
                    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
                optimizer.zero_grad()
                loss = F.mse_loss(model(x), y)
                loss.backward()
                stage.gradients(model)
                optimizer.step()
                watch.log(loss=loss)
                stage.step(loss)
        stage.end(model, optimizer)

    survival = survive(play, tmp_path / "run.jsonl")
    assert all(step.grad_norm > 0 and step.update_ratio > 0 for step in survival.steps)
    assert all(p.optimizer is not None for p in survival.layouts[-1].parameters)


@pytest.mark.parametrize("config", BOTH)
def test_an_average_and_a_teacher_are_not_counted(config: str, tmp_path: Path) -> None:
    """Deep copies made while watched: one follows the weights, one is trained by itself."""

    def play(stage: Stage) -> None:
        model = Net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        with stage.watch(model) as watch:
            average = torch.optim.swa_utils.AveragedModel(
                model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
            )
            twin = copy.deepcopy(model)
            other = torch.optim.SGD(twin.parameters(), lr=0.1)
            for x, y in numbers(6, 5):
                optimizer.zero_grad()
                loss = F.mse_loss(model(x), y)
                loss.backward()
                stage.gradients(model)
                optimizer.step()
                watch.log(loss=loss)
                average.update_parameters(model)
                other.zero_grad()
                F.mse_loss(twin(x * 100), average(x).detach()).backward()
                other.step()
                stage.step(loss)
        stage.end(model, optimizer)
        stage.end(twin, other)
        stage.end(average)

    survival = survive(play, tmp_path / "run.jsonl", CONFIGS[config])
    absmax = [float(s.activations["absmax"].max()) for s in survival.steps if s.activations]
    assert 0 < max(absmax) < 50  # the twin's inputs are a hundred times as large


def thousands(count: int = 3000) -> nn.Sequential:
    """Four modules each: a block, its two layers, and its activation."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Sequential(nn.Linear(3, 3, bias=False), nn.Tanh(), nn.Identity()) for _ in range(count))
    )


@pytest.mark.slow
def test_twelve_thousand_modules(tmp_path: Path) -> None:
    """Trained the same, all of them in the layout, and steps that are not sampled pay nothing per module."""
    model = thousands()
    assert len(list(model.modules())) == 12_001
    x, y = torch.randn(2, 3), torch.randn(2, 3)

    def play(path: Path | None) -> tuple[list[float], list[int]]:
        torch.manual_seed(1)
        net = copy.deepcopy(model)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
        losses, hooked = [], []
        config = dataclasses.replace(SPARSE, dense_steps=1, activations_every=1000, sentinel=False)
        watch = None if path is None else Watcher(net, path, config=config, sinks=[]).__enter__()
        for _ in range(4):
            hooked.append(len(torch.nn.modules.module._global_forward_hooks))
            assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
            optimizer.zero_grad()
            loss = F.mse_loss(net(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if watch is not None:
                watch.log(loss=loss)
        if watch is not None:
            watch.close()
        return [*losses, *(p.detach().double().sum().item() for p in net.parameters())], hooked

    bare, _ = play(None)
    watched, hooked = play(tmp_path / "run.jsonl")
    assert watched == bare
    assert 0 < hooked[0] <= 2, "one that observes and one that ends the count of operations, for all modules"
    assert hooked[2:] == [0, 0]
    records = assert_live_equals_replay(tmp_path / "run.jsonl")
    steps = steps_in(records)
    assert [step.step for step in steps] == [1, 2, 3, 4]
    layout = next(record for record in records if isinstance(record, Layout))
    assert (len(layout.layers), len(layout.parameters)) == (9000, 3000)
    assert steps[0].activations is not None
    assert len(steps[0].activations["rms"]) == 9000
