"""Steps under a GradScaler: made, skipped, in mixed company; the scale as it was at the step."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tests.helpers_watch import record, steps_of
from torchwatch.probes import _torch


class Loop:
    """Trains under a scaler whose gradients overflow at chosen steps."""

    def __init__(self, bad: set[int], *, fused: bool = False, confirm: bool = False, steps: int = 6) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(4, 2)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01, fused=fused)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1000)
        self.bad, self.confirm, self.steps = bad, confirm, steps
        self.scales: list[float] = []

    def __call__(self, watch) -> None:
        for step in range(1, self.steps + 1):
            self.optimizer.zero_grad()
            loss = self.model(torch.ones(3, 4)).square().mean()
            self.scaler.scale(loss).backward()
            if step in self.bad:
                self.model.weight.grad[0, 0] = math.inf
            self.scales.append(self.scaler.get_scale())
            self.scaler.step(self.optimizer)
            self.scaler.update()
            watch.log(loss=loss)
            if self.confirm:
                watch.step()


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("confirm", [False, True])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("bad", [set(), {1, 2}, {4}, {3, 6}])
def test_every_step_is_a_record_and_says_whether_it_was_skipped(tmp_path, fused, confirm, given, bad) -> None:
    loop = Loop(bad, fused=fused, confirm=confirm)
    scaler = loop.scaler if given else None
    steps = steps_of(record(loop.model, loop, tmp_path / "r.jsonl", scaler=scaler))
    assert [s.step for s in steps] == [1, 2, 3, 4, 5, 6]
    assert {s.step for s in steps if s.skipped} == bad
    assert [s.grad_scale for s in steps] == loop.scales
    assert [math.isfinite(s.grad_norm) for s in steps] == [s.step not in bad for s in steps]


def test_scaled_gradients_are_recorded_unscaled(tmp_path) -> None:
    norms = []
    for scale in (1.0, 1024.0):
        loop = Loop(set(), steps=2)
        loop.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        norms.append([s.grad_norm for s in steps_of(record(loop.model, loop, tmp_path / f"{scale}.jsonl"))])
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)


def test_without_a_scaler_nothing_is_said(tmp_path) -> None:
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def body(watch) -> None:
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(1, 4)).sum().backward()
            optimizer.step()

    for step in steps_of(record(model, body, tmp_path / "r.jsonl")):
        assert step.skipped is None
        assert step.grad_scale is None


def test_the_method_is_put_back_also_when_watchers_overlap(tmp_path) -> None:
    original = vars(torch.amp.GradScaler)["_maybe_opt_step"]
    seen: list[torch.optim.Optimizer] = []
    first, second = seen.append, lambda optimizer: seen.extend([optimizer])
    assert _torch.SCALERS.observe(first)
    assert _torch.SCALERS.observe(second)
    assert vars(torch.amp.GradScaler)["_maybe_opt_step"] is not original
    loop = Loop({1}, steps=1)

    class Silent:
        def log(self, **_: object) -> None: ...

    loop(Silent())
    assert seen == [loop.optimizer, loop.optimizer]
    _torch.SCALERS.leave(first)
    assert vars(torch.amp.GradScaler)["_maybe_opt_step"] is not original
    _torch.SCALERS.leave(second)
    assert vars(torch.amp.GradScaler)["_maybe_opt_step"] is original
    _torch.SCALERS.leave(second)
    assert vars(torch.amp.GradScaler)["_maybe_opt_step"] is original


def test_what_the_optimizer_raises_passes_and_nothing_stays_behind() -> None:
    loop = Loop(set(), steps=1)
    loop.optimizer.step = lambda: 1 / 0
    _torch.SCALERS.observe(print)
    try:
        with pytest.raises(ZeroDivisionError):
            loop(None)
        assert _torch.SCALERS.scale(loop.optimizer) is None
        assert not _torch.SCALERS._running
    finally:
        _torch.SCALERS.leave(print)


def test_a_release_without_the_method_is_said(monkeypatch) -> None:
    from torchwatch.config import WatchConfig
    from torchwatch.patient import Patient
    from torchwatch.probes.scaling import ScalingProbe

    monkeypatch.setattr(_torch._Scalers, "_name", "_gone")
    probe = ScalingProbe(print)
    probe.attach(Patient(nn.Linear(1, 1)), WatchConfig())
    assert "not seen" in probe.coverage()
    probe.detach()
