"""torch.compile before and after attaching, whole graphs, in parts: trained the same, and the file says what
cannot be seen.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.survival.conduct import BOTH, CONFIGS, EVERYTHING, Survival, survive
from tests.zoo import Stage, numbers
from torchwatch.records import Note, is_missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

UNSEEN = "unavailable: compiled"
GLOBAL_HOOKS = "Using `torch.compile\\(module\\)` when there are global hooks"
"""Torch tells whoever compiles while one of our hooks is on, which is so before the first step."""

DYNAMO = ("`torch.jit.script_method` is deprecated", "The .grad attribute of a Tensor that is not a leaf")
"""What dynamo and inductor trip over by themselves."""

COMPILER = shutil.which("g++") or shutil.which("clang++")
BACKENDS = [
    "eager",
    pytest.param("aot_eager", marks=pytest.mark.slow),
    pytest.param(
        "inductor",
        marks=[
            pytest.mark.slow,
            pytest.mark.skipif(COMPILER is None, reason="inductor needs a C++ compiler, and there is none"),
        ],
    ),
]
WHOLE = [pytest.param(True, id="fullgraph"), pytest.param(False, id="breaks-allowed", marks=pytest.mark.slow)]


class Net(nn.Module):
    """A module with a forward of its own: dynamo passes a bare container over."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.2), nn.ReLU(inplace=True))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """What dynamo keeps is kept per process: a test must not see that of another."""
    yield
    torch.compiler.reset()


def train(
    stage: Stage,
    prepare: Callable[[nn.Module], nn.Module],
    attach: Callable[[nn.Module], nn.Module],
    step: Callable[..., Any] | None = None,
) -> None:
    """``prepare`` makes what is watched of the model, ``attach`` what is called of what is watched."""
    torch.compiler.reset()
    watched = prepare(Net())
    optimizer = torch.optim.AdamW(watched.parameters(), lr=0.01)
    with stage.watch(watched) as watch:
        run = attach(watched)
        for x, y in numbers(6, 5):
            optimizer.zero_grad()
            loss = F.mse_loss(run(x), y)
            loss.backward()
            stage.gradients(watched)
            (step or optimizer.step)()
            watch.log(loss=loss)
            stage.step(loss)
    stage.end(watched, optimizer)


def assert_said(survival: Survival) -> None:
    """Activations are not shown as fine: no value anywhere, and the coverage and one note say why."""
    assert survival.coverage["activations"] == UNSEEN
    assert survival.coverage["wiring"] == UNSEEN
    assert [n.topic for n in survival.records if isinstance(n, Note)] == ["activations"]
    assert not any(step.activations for step in survival.steps)
    assert all(step.grad_norm > 0 and step.update_ratio > 0 and step.loss for step in survival.steps)
    assert [p.name for p in survival.layouts[-1].parameters] == [
        "body.0.weight", "body.0.bias", "head.weight", "head.bias",
    ]  # fmt: skip


@pytest.mark.parametrize("config", BOTH)
@pytest.mark.parametrize("fullgraph", WHOLE)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("when", ["before", "in-place-before"])
def test_compiled_before_attaching(
    when: str, backend: str, fullgraph: bool, config: str, tmp_path: Path
) -> None:
    def prepare(model: nn.Module) -> nn.Module:
        if when == "before":
            return torch.compile(model, backend=backend, fullgraph=fullgraph)  # type: ignore[return-value]
        model.compile(backend=backend, fullgraph=fullgraph)
        return model

    def play(stage: Stage) -> None:
        counters = torch._dynamo.utils.counters
        counters.clear()  # of whatever this process compiled before
        train(stage, prepare, lambda model: model)
        stage.write("graphs", (dict(counters["stats"]), dict(counters["graph_break"])))
        counters.clear()

    survival = survive(play, tmp_path / "run.jsonl", CONFIGS[config], warns=DYNAMO)
    assert_said(survival)
    assert len(survival.layouts) == 1


@pytest.mark.parametrize("config", BOTH)
@pytest.mark.parametrize("fullgraph", WHOLE)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("how", ["after", "in-place-after"])
def test_compiled_after_attaching(
    how: str, backend: str, fullgraph: bool, config: str, tmp_path: Path
) -> None:
    """The hook of the first sampled step is on then; ours does nothing while dynamo looks at it."""

    def attach(model: nn.Module) -> nn.Module:
        if how == "after":
            return torch.compile(model, backend=backend, fullgraph=fullgraph)  # type: ignore[return-value]
        model.compile(backend=backend, fullgraph=fullgraph)
        return model

    survival = survive(
        lambda stage: train(stage, lambda model: model, attach),
        tmp_path / "run.jsonl",
        CONFIGS[config],
        warns=(GLOBAL_HOOKS, *DYNAMO),
    )
    assert_said(survival)


@pytest.mark.slow
def test_a_part_of_the_model_is_compiled(tmp_path: Path) -> None:
    """Hooks of the layers around it would break its graph: they are seen no more than it is."""

    def prepare(model: nn.Module) -> nn.Module:
        model.body = torch.compile(model.body, backend="aot_eager")  # type: ignore[assignment]
        return model

    assert_said(survive(lambda stage: train(stage, prepare, lambda m: m), tmp_path / "run.jsonl"))


@pytest.mark.slow
def test_a_compiled_loss_and_a_model_that_is_not(tmp_path: Path) -> None:
    """Dynamo is in use in the process, wherever that is."""

    def play(stage: Stage) -> None:
        torch.compiler.reset()
        squared = torch.compile(F.mse_loss, backend="eager", fullgraph=True)
        model = Net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        with stage.watch(model) as watch:
            for x, y in numbers(6, 5):
                optimizer.zero_grad()
                loss = squared(model(x), y)
                loss.backward()
                stage.gradients(model)
                optimizer.step()
                watch.log(loss=loss)
                stage.step(loss)
        stage.end(model, optimizer)

    survival = survive(play, tmp_path / "run.jsonl", warns=(GLOBAL_HOOKS, *DYNAMO))
    assert survival.coverage["activations"] == UNSEEN
    assert [layout.coverage["activations"] for layout in survival.layouts][-1] == UNSEEN
    late = survival.steps[2:]
    assert not any(step.activations for step in late)


@pytest.mark.slow
def test_a_compiled_optimizer_step(tmp_path: Path) -> None:
    """The optimizer's own step in a graph: no hook of it runs, so the loop has to say where a step ends."""

    def play(stage: Stage) -> None:
        torch.compiler.reset()
        model = Net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        step = torch.compile(optimizer.step, backend="eager")
        with stage.watch(model) as watch:
            for x, y in numbers(6, 5):
                optimizer.zero_grad()
                loss = F.mse_loss(model(x), y)
                loss.backward()
                stage.gradients(model)
                step()
                watch.step(loss=loss)
                stage.step(loss)
        stage.end(model, optimizer)

    survival = survive(play, tmp_path / "run.jsonl", EVERYTHING, warns=(GLOBAL_HOOKS, *DYNAMO))
    assert survival.coverage["activations"] == UNSEEN
    assert survival.coverage["updates"] == "no optimizer seen"
    assert all(step.loss is not None for step in survival.steps)


@pytest.mark.slow
def test_exported_and_run_while_watched(tmp_path: Path) -> None:
    """torch.export in mid-run gives the same program, and the training goes on."""

    def play(stage: Stage) -> None:
        model = Net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        with stage.watch(model) as watch:
            for i, (x, y) in enumerate(numbers(6, 5)):
                optimizer.zero_grad()
                loss = F.mse_loss(model(x), y)
                loss.backward()
                stage.gradients(model)
                optimizer.step()
                watch.log(loss=loss)
                if i == 4:
                    program = torch.export.export(model, (x,))
                    stage.write("graph", str(program.graph))
                    stage.write("exported", program.module()(x))
                stage.step(loss)
        stage.end(model, optimizer)

    survival = survive(play, tmp_path / "run.jsonl")
    assert {"step 4: graph", "step 4: exported"} <= {label for label, _ in survival.stage.diary}
    assert all(step.grad_norm > 0 and step.update_ratio > 0 for step in survival.steps)
    assert survival.coverage["activations"] == "ok"
    rms = [step.activations["rms"] for step in survival.steps if step.activations]
    assert len(rms) == len(survival.steps)
    assert not any(is_missing(column).any() for column in rms), "the layers are still seen, all of them"
