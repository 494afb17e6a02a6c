"""A torch that lacks one private name: training is the same, every step is there, nothing of ours fails."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests import helpers_footprint as footprint
from tests.survival.conduct import EVERYTHING, survive
from tests.zoo import numbers
from torchwatch.probes import _torch

if TYPE_CHECKING:
    from tests.zoo import Stage

NOT_OF_TORCH = {"extra_dict_ref", "grad_scale", "found_inf"}
"""Attributes that are asked of objects which may rightly lack them."""


def names_asked_for() -> list[str]:
    """Every name that the module for private names asks for with ``getattr``."""
    found = set()
    for node in ast.walk(ast.parse(Path(_torch.__file__).read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
            name = node.args[1]
            if isinstance(name, ast.Constant) and len(node.args) == 3:
                found.add(str(name.value))
    return sorted(found - NOT_OF_TORCH)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Dropout(0.1))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.body(x)[:, None]
        return self.head((hidden + self.attention(hidden, hidden, hidden)[0])[:, 0])


def clipped(stage: Stage) -> None:
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    with stage.watch(model) as watch:
        for x, y in numbers(6, 5):
            optimizer.zero_grad()
            loss = F.mse_loss(model(x), y)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            stage.gradients(model)
            scaler.step(optimizer)
            scaler.update()
            watch.log(loss=loss)
            stage.step(loss)
    stage.end(model, optimizer)


@pytest.fixture(scope="module", autouse=True)
def _warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What torch imports and replaces by itself in a first training is there before anything is compared."""
    survive(clipped, tmp_path_factory.mktemp("warm") / "run.jsonl", EVERYTHING)


@pytest.mark.slow
@pytest.mark.parametrize("gone", names_asked_for())
def test_a_release_without_a_private_name(gone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(thing: Any, name: str, *default: Any) -> Any:
        return default[0] if name == gone and default else getattr(thing, name, *default)

    monkeypatch.setattr(nn.utils.clip_grad, "_get_total_norm", nn.utils.clip_grad._get_total_norm)
    before = footprint.functions()
    monkeypatch.setattr(_torch, "getattr", without, raising=False)
    survival = survive(clipped, tmp_path / "run.jsonl", EVERYTHING)
    assert footprint.changed(before, footprint.functions()) == {}
    assert all(step.grad_norm > 0 and step.update_ratio > 0 for step in survival.steps)


def test_a_release_whose_optimizers_step_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their steps cannot be told from steps within steps by the stack; hooks find them all the same."""
    monkeypatch.setattr(_torch, "_STEP_CODE", None)
    assert _torch.optimizer_depth() == 0
    survival = survive(clipped, tmp_path / "run.jsonl", EVERYTHING)
    assert all(step.grad_norm > 0 and step.update_ratio > 0 for step in survival.steps)
    assert all(step.grad_norm_preclip >= step.grad_norm for step in survival.steps)
    assert all(step.activations is not None and step.grad_scale == 8.0 for step in survival.steps)


def test_every_private_name_has_a_fallback() -> None:
    """Asked for with a default, or found to be missing when it is called: never a bare attribute."""
    assert len(names_asked_for()) > 10
    for node in ast.walk(ast.parse(Path(_torch.__file__).read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
            assert len(node.args) == 3 or not isinstance(node.args[1], ast.Constant), ast.unparse(node)
