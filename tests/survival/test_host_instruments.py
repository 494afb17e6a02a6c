"""The host's profiler, FLOP counter and modes around a whole run that is watched with everything on."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from tests.helpers_host import Loop
from tests.helpers_replay import assert_live_equals_replay, steps_in
from tests.survival.conduct import EVERYTHING, survive
from tests.zoo import ITERATIONS, nobody, numbers
from tests.zoo_models import small_resnet
from torchwatch import Watcher
from torchwatch.records import Note, Profile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.zoo import Stage

PROFILING = dataclasses.replace(EVERYTHING, profile_every=2, profile_steps=1)
"""We run a profiler of our own as well, as often as can be."""


class Dispatched(TorchDispatchMode):
    """Counts every operator that reaches the dispatcher."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen[str(func)] += 1
        return func(*args, **(kwargs or {}))


class Flops(FlopCounterMode):
    def __init__(self) -> None:
        super().__init__(display=False)

    @property
    def seen(self) -> dict[str, dict[str, int]]:
        return {str(k): {str(op): n for op, n in v.items()} for k, v in self.get_flop_counts().items()}


@pytest.mark.parametrize("order", ["inside", "outside"])
@pytest.mark.parametrize("instrument", [Dispatched, Flops])
def test_what_the_host_counts_from_the_first_step_on(
    instrument: type[Any], order: str, tmp_path: Path
) -> None:
    """The first step is the one whose arithmetic we count ourselves: the host's count is its own."""

    def count(watch_with: Callable[..., Any]) -> Any:
        torch.manual_seed(0)
        loop, counter = Loop(small_resnet()), instrument()
        if order == "inside":
            with watch_with(loop.model) as watch, counter:
                losses = [train(loop, watch) for _ in range(6)]
        else:
            with counter, watch_with(loop.model) as watch:
                losses = [train(loop, watch) for _ in range(6)]
        return counter.seen, losses

    expected, losses = count(nobody)
    counted, watched = count(functools.partial(Watcher, path=tmp_path / "run.jsonl", config=PROFILING))
    assert watched == losses
    assert counted == expected
    assert len(steps_in(assert_live_equals_replay(tmp_path / "run.jsonl"))) == 6


def train(loop: Loop, watch: Any) -> float:
    loss = loop.step()
    watch.log(loss=loss)
    return loss.item()


def profiled_whole(loop: Loop, watch: Any) -> Any:
    with torch.profiler.profile() as profile:
        for _ in range(8):
            with torch.profiler.record_function("my region"):
                train(loop, watch)
    return profile


def profiled_by_schedule(loop: Loop, watch: Any) -> Any:
    """Half of the time it only waits; our windows must not get between."""
    schedule = torch.profiler.schedule(wait=2, warmup=1, active=2, repeat=1)
    with torch.profiler.profile(schedule=schedule) as profile:
        for _ in range(8):
            with torch.profiler.record_function("my region"):
                train(loop, watch)
            profile.step()
    return profile


def profiled_by_autograd(loop: Loop, watch: Any) -> Any:
    with torch.autograd.profiler.profile() as profile:
        for _ in range(8):
            with torch.profiler.record_function("my region"):
                train(loop, watch)
    return profile


@pytest.mark.slow
@pytest.mark.parametrize("profiled", [profiled_whole, profiled_by_schedule, profiled_by_autograd])
def test_a_profile_of_the_host_is_complete_while_we_profile_too(
    profiled: Callable[..., Any], tmp_path: Path
) -> None:
    """A second profiler would silently empty the first: ours keeps away, and windows before it are ours."""

    def events(watch_with: Callable[..., Any]) -> Counter[str]:
        loop = Loop(small_resnet())
        with watch_with(loop.model) as watch:
            train(loop, watch)
            profile = profiled(loop, watch)
            for _ in range(4):
                train(loop, watch)
        return Counter({event.key: event.count for event in profile.key_averages()})

    expected = events(nobody)
    seen = events(functools.partial(Watcher, path=tmp_path / "run.jsonl", config=PROFILING))
    for own in ("my region", "aten::convolution", "aten::batch_norm", "ConvolutionBackward0"):
        assert seen[own] == expected[own] > 0, own
    assert len(steps_in(assert_live_equals_replay(tmp_path / "run.jsonl"))) == 13


@pytest.mark.slow
def test_windows_of_our_own_change_nothing(tmp_path: Path) -> None:
    def play(stage: Stage) -> None:
        model = small_resnet()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        with stage.watch(model) as watch:
            for x, y in numbers(4, 1, 8, 8):
                optimizer.zero_grad()
                loss = F.mse_loss(model(x), y)
                loss.backward()
                stage.gradients(model)
                optimizer.step()
                watch.log(loss=loss)
                stage.step(loss)
        stage.end(model, optimizer)

    survival = survive(play, tmp_path / "run.jsonl", PROFILING)
    assert len(survival.steps) == ITERATIONS
    assert any(isinstance(record, Profile) for record in survival.records)
    assert not torch.autograd.profiler._is_profiler_enabled


class Attending(nn.Module):
    """Every way in which PyTorch attends: the fused function, with weights, and causal."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)
        self.explicit = nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True)
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, 2, 4).permute(2, 0, 3, 1, 4)
        hidden = F.scaled_dot_product_attention(q, k, v, dropout_p=0.1, is_causal=True)
        hidden = hidden.transpose(1, 2).flatten(2)
        hidden, _ = self.explicit(hidden, hidden, hidden, need_weights=True)
        hidden, _ = self.explicit(hidden, hidden, hidden, need_weights=False)
        return self.out(hidden.mean(1))


def test_attention_is_observed_without_a_changed_bit(tmp_path: Path) -> None:
    """Query rows are recomputed beside the fused kernel; dropout's generator is not touched by that."""
    original = F.scaled_dot_product_attention

    def play(stage: Stage) -> None:
        model = Attending()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        with stage.watch(model) as watch:
            for x, y in numbers(4, 6, 8):
                optimizer.zero_grad()
                loss = F.mse_loss(model(x), y)
                loss.backward()
                stage.gradients(model)
                optimizer.step()
                watch.log(loss=loss)
                stage.step(loss)
        stage.end(model, optimizer)

    survival = survive(play, tmp_path / "run.jsonl")
    assert F.scaled_dot_product_attention is original
    assert not [n for n in survival.records if isinstance(n, Note) and "attention" in n.topic]
