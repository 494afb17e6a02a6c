"""Mixed precision: the GradScaler with plain, foreach and fused optimizers, and autocast in bfloat16."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.survival.conduct import BOTH, CONFIGS, survive
from tests.zoo import ITERATIONS, numbers
from tests.zoo_models import mlp, small_resnet

if TYPE_CHECKING:
    from pathlib import Path

    from tests.zoo import Stage

SKIPPED = 5
"""The iteration whose batch overflows."""

KINDS: dict[str, dict[str, Any]] = {
    "plain": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}


def scaled(stage: Stage, *, kind: str, clip: bool, confirm: bool, norms: list[float]) -> None:
    """One iteration overflows, so that its step is skipped; ``norms`` get the true unscaled norms.

    ``confirm``: the watcher knows the scaler and is told where a step ends; else it has to see both.
    """
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, **KINDS[kind])
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=4)
    batches = numbers(6, 5)
    batches[SKIPPED] = (batches[SKIPPED][0] * math.inf, batches[SKIPPED][1])
    with stage.watch(model, scaler=scaler if confirm else None) as watch:
        for x, y in batches:
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.float16):
                loss = F.mse_loss(model(x), y)
            scale = scaler.get_scale()
            scaler.scale(loss).backward()
            if clip:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            stage.gradients(model)
            total = nn.utils.get_total_norm([p.grad for p in model.parameters()]).item()
            norms.append(total if clip else total / scale)
            scaler.step(optimizer)
            scaler.update()
            stage.write("scale", scaler.get_scale())
            if confirm:
                watch.step(loss=loss)
            else:
                watch.log(loss=loss)
            stage.step(loss)
    stage.end(model, optimizer)


@pytest.mark.parametrize("config", BOTH)
@pytest.mark.parametrize("confirm", [True, False], ids=["confirmed", "unconfirmed"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_scaled_loop(kind: str, confirm: bool, config: str, tmp_path: Path) -> None:
    """Gradient norms are those of unscaled gradients, whoever unscales them; skipped steps are told apart."""
    norms: list[float] = []
    loop = functools.partial(scaled, kind=kind, clip=False, confirm=confirm, norms=norms)
    steps = survive(loop, tmp_path / "run.jsonl", CONFIGS[config]).steps
    assert [bool(step.skipped) for step in steps] == [i == SKIPPED for i in range(ITERATIONS)]
    true = norms[ITERATIONS:]  # of the second, the watched run
    seen = [(step.grad_norm, norm) for step, norm in zip(steps, true, strict=True) if not step.skipped]
    assert [norm for norm, _ in seen] == pytest.approx([norm for _, norm in seen], rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_scaled_and_clipped_loop(kind: str, tmp_path: Path) -> None:
    """``unscale_`` comes before clipping: what the optimizer gets is neither scaled nor longer than 0.5."""
    norms: list[float] = []
    loop = functools.partial(scaled, kind=kind, clip=True, confirm=True, norms=norms)
    steps = survive(loop, tmp_path / "run.jsonl").steps
    true = norms[ITERATIONS:]
    seen = [(step.grad_norm, norm) for step, norm in zip(steps, true, strict=True) if not step.skipped]
    assert len(seen) == ITERATIONS - 1
    assert [norm for norm, _ in seen] == pytest.approx([norm for _, norm in seen], rel=1e-4)
    assert all(norm <= 0.5001 for norm, _ in seen)
    assert all(step.grad_norm_preclip >= 0.99 * step.grad_norm for step in steps if not step.skipped)


def autocast(stage: Stage, *, fused: bool, cache: bool) -> None:
    """The cached half-precision weights live as long as the outermost autocast: ours must not end them."""
    model = small_resnet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, fused=fused)
    with (
        stage.watch(model) as watch,
        torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=cache),
    ):
        for x, y in numbers(4, 1, 8, 8):
            optimizer.zero_grad()
            out = model(x)
            stage.write("output", out)
            loss = F.mse_loss(out.float(), y)
            with torch.autocast("cpu", enabled=False):
                loss.backward()
            stage.gradients(model)
            optimizer.step()
            watch.log(loss=loss)
            stage.step(loss)
    stage.end(model, optimizer)


@pytest.mark.parametrize(
    ("fused", "cache"), [(True, True), (False, True), (False, False)], ids=["fused", "plain", "no-cache"]
)
def test_autocast_in_bfloat16(fused: bool, cache: bool, tmp_path: Path) -> None:
    survival = survive(functools.partial(autocast, fused=fused, cache=cache), tmp_path / "run.jsonl")
    assert all(step.grad_norm > 0 and step.activations for step in survival.steps)


def accumulated(stage: Stage) -> None:
    """Three scaled micro-batches a step, two optimizers, one scaler."""
    model = mlp()
    halves = [
        torch.optim.SGD(model[0].parameters(), lr=0.05),
        torch.optim.Adam([*model[2].parameters(), *model[4].parameters()], lr=0.01, fused=True),
    ]
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    with stage.watch(model, scaler=scaler) as watch:
        for i, (x, y) in enumerate(numbers(6, 5, count=3 * ITERATIONS)):
            with torch.autocast("cpu", dtype=torch.float16):
                loss = F.mse_loss(model(x), y) / 3
            scaler.scale(loss).backward()
            watch.log(loss=loss)
            if i % 3 == 2:
                stage.gradients(model)
                for optimizer in halves:
                    scaler.step(optimizer)
                scaler.update()
                model.zero_grad()
                stage.step(loss)
    stage.end(model, *halves)


@pytest.mark.parametrize("config", BOTH)
def test_accumulation_with_two_optimizers_and_one_scaler(config: str, tmp_path: Path) -> None:
    steps = survive(accumulated, tmp_path / "run.jsonl", CONFIGS[config]).steps
    assert len(steps) == ITERATIONS
    assert {step.samples for step in steps if step.activations} == {18}
