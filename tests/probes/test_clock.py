"""Parts of a step on a clock of the test's own: every pass, backward pass and step takes what it says."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from torchwatch.attachment import Attachment
from torchwatch.config import WatchConfig
from torchwatch.guard import Guard
from torchwatch.probe import Block, Frame, Probe
from torchwatch.probes import clock as clock_module
from torchwatch.probes.clock import ClockProbe, Stretch, elapsed
from torchwatch.schedule import unmeasured

CONFIG = WatchConfig(terminal=False, activations_every=1)
FORWARD, BACKWARD, STEP, OTHER = 2.0, 3.0, 5.0, 100.0


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Takes(torch.autograd.Function):
    """Identity whose backward takes time."""

    @staticmethod
    def forward(ctx, x, clock, seconds):
        ctx.clock, ctx.seconds = clock, seconds
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        ctx.clock.now += ctx.seconds
        return gradient, None, None


class Slow(nn.Module):
    """A model that takes its time."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock, self.inner = clock, nn.Linear(4, 2)

    def forward(self, x):
        self.clock.now += FORWARD
        return self.inner(Takes.apply(x.clone().requires_grad_(), self.clock, BACKWARD))


class SlowSGD(torch.optim.SGD):
    """An optimizer that does."""

    def __init__(self, parameters, clock: Clock) -> None:
        super().__init__(parameters, lr=0.01)
        self.clock = clock

    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.clock.now += STEP
        super().step()
        return loss


class Host:
    """A model, its optimizer, and an attachment that lives on the same clock."""

    def __init__(self, config: WatchConfig = CONFIG, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.model = Slow(self.clock)
        self.optimizer = SlowSGD(self.model.parameters(), self.clock)
        self.frames: list[Frame] = []
        self.said: list[str] = []
        self.attachment = Attachment(
            self.model,
            config,
            self._emit,
            Guard(lambda _, message: self.said.append(message)),
            clock=self.clock,
        )

    def _emit(self, item) -> None:
        assert not isinstance(item, Block)
        if isinstance(item, Frame):
            self.frames.append(item)

    def loss(self) -> torch.Tensor:
        return self.model(torch.randn(3, 4)).square().mean()

    def other(self) -> None:
        self.clock.now += OTHER

    def run(self, step, steps: int = 3) -> list[dict[str, float]]:
        self.attachment.enter()
        for _ in range(steps):
            step()
        self.attachment.leave()
        assert not self.said
        return [ClockProbe.decode(f.payloads.get("clock", []), [], f) for f in self.frames]


def times(passes: int = 1, **changed: float) -> dict[str, float]:
    each = {"forward_s": passes * FORWARD, "backward_s": passes * BACKWARD, "optimizer_s": STEP}
    return {**each, **changed}


def test_the_parts_of_a_plain_step() -> None:
    host = Host()

    def step() -> None:
        host.other()
        host.optimizer.zero_grad()
        loss = host.loss()
        host.other()
        loss.backward()
        host.other()
        host.optimizer.step()
        host.other()

    assert host.run(step) == [times()] * 3


def test_accumulation_adds_passes_and_leaves_out_what_lies_between() -> None:
    host = Host()

    def step() -> None:
        for _ in range(3):
            host.loss().backward()
            host.other()
        host.optimizer.step()

    assert host.run(step) == [times(3)] * 3


def test_a_closure_is_not_the_optimizers_work() -> None:
    host = Host()

    def closure():
        host.optimizer.zero_grad()
        loss = host.loss()
        loss.backward()
        return loss

    assert host.run(lambda: host.optimizer.step(closure)) == [times()] * 3


@pytest.mark.parametrize("recording", [True, False])
def test_evaluation_does_not_count(recording) -> None:
    host = Host()

    def step() -> None:
        with torch.set_grad_enabled(recording):
            for _ in range(3):
                host.loss()
        kept = host.loss()
        with torch.set_grad_enabled(recording):
            host.loss()
        kept.backward()
        host.optimizer.step()

    assert host.run(step) == [times()] * 3


def test_one_backward_pass_through_two_forward_passes() -> None:
    host = Host()

    def step() -> None:
        (host.loss() + host.loss()).backward()
        host.optimizer.step()

    assert host.run(step) == [times(2)] * 3


def test_a_pass_that_raised_is_not_counted() -> None:
    host = Host()
    fail = nn.Module.register_forward_hook

    def refuse(*_: object) -> None:
        raise ValueError

    def step() -> None:
        handle = fail(host.model.inner, refuse)
        with pytest.raises(ValueError):
            host.loss()
        handle.remove()
        host.loss().backward()
        host.optimizer.step()

    assert host.run(step) == [times()] * 3


def test_a_backward_pass_that_raised_ends_where_the_next_pass_begins() -> None:
    host = Host()

    def step() -> None:
        handle = host.model.inner.weight.register_hook(lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            host.loss().backward()
        handle.remove()
        host.loss().backward()
        host.optimizer.step()

    found = host.run(step)
    assert [f["backward_s"] for f in found] == [pytest.approx(BACKWARD, abs=BACKWARD)] * 3
    assert [f["optimizer_s"] for f in found] == [STEP] * 3


def test_two_optimizers_of_one_step() -> None:
    host = Host()
    second = SlowSGD([host.model.inner.bias], host.clock)
    host.optimizer = SlowSGD([host.model.inner.weight], host.clock)

    def step() -> None:
        for optimizer in (host.optimizer, second):
            host.loss().backward()
            optimizer.step()

    assert host.run(step) == [times(2, optimizer_s=2 * STEP)] * 3


def test_a_reentrant_checkpoint_is_part_of_the_backward_pass() -> None:
    host = Host()
    inner = host.model

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return checkpoint(self.inner, x.requires_grad_(), use_reentrant=True)

    outer = Outer()
    host.attachment = Attachment(outer, CONFIG, host._emit, Guard(lambda *_: None), clock=host.clock)

    def step() -> None:
        outer(torch.randn(3, 4)).sum().backward()
        host.optimizer.step()

    assert host.run(step) == [times(backward_s=FORWARD + BACKWARD)] * 3


def test_our_own_time_is_taken_out(monkeypatch) -> None:
    clock = Clock()

    def slowly(*_: object, **__: object) -> None:
        clock.now += 50.0

    for kind in {type(p) for p in Host().attachment.probes} - {ClockProbe}:
        for moment in (
            "model_starts",
            "layer_ran",
            "layer_gradient",
            "gradients",
            "before_step",
            "after_step",
        ):
            if getattr(kind, moment) is not getattr(Probe, moment):
                monkeypatch.setattr(kind, moment, slowly)
    host = Host(clock=clock)

    def step() -> None:
        host.loss().backward()
        host.optimizer.step()

    assert host.run(step) == [times()] * 3
    assert clock.now > 3 * 6 * 50


def test_only_sampled_steps_are_timed() -> None:
    host = Host(WatchConfig(terminal=False, dense_steps=0, activations_every=2))

    def step() -> None:
        host.loss().backward()
        host.optimizer.step()

    assert host.run(step, steps=4) == [{}, times(), {}, times()]


def test_without_autograds_word_the_backward_pass_ends_at_the_optimizer(monkeypatch) -> None:
    monkeypatch.setattr(clock_module._torch, "after_backward", lambda _: False)
    host = Host()

    def step() -> None:
        host.loss().backward()
        host.clock.now += 0.5
        host.optimizer.step()

    assert host.run(step) == [times(backward_s=BACKWARD + 0.5)] * 3


def test_a_model_whose_forward_is_never_called_is_said() -> None:
    host = Host()

    def step() -> None:
        host.model.inner(torch.randn(3, 4)).sum().backward()
        host.optimizer.step()

    assert host.run(step) == [{"optimizer_s": STEP}] * 3
    probe = next(p for p in host.attachment.probes if isinstance(p, ClockProbe))
    assert probe.coverage() == "optimizer only: the model's own forward pass was not seen"


class FakeEvent:
    """A CUDA event that has been reached, or not."""

    def __init__(self, at_ms: float, reached: bool = True, device: int = 0) -> None:
        self.at_ms, self.reached, self.device = at_ms, reached, device

    def query(self) -> bool:
        return self.reached

    def elapsed_time(self, end: FakeEvent) -> float:
        if not (self.reached and end.reached):
            raise AssertionError("this would wait")
        if self.device != end.device:
            raise RuntimeError("invalid device")
        return end.at_ms - self.at_ms


def decoded(*stretches: Stretch) -> dict[str, float]:
    return ClockProbe.decode(list(stretches), [], Frame(unmeasured(1)))


def test_events_are_resolved_without_waiting() -> None:
    start, end = FakeEvent(0), FakeEvent(12)
    assert decoded(Stretch("forward", 1, start, end)) == {"forward_s": 0.012}
    assert decoded(Stretch("forward", 1, start, FakeEvent(12, reached=False))) == {}
    assert decoded(Stretch("forward", 1, FakeEvent(0, reached=False), end)) == {}
    assert decoded(Stretch("forward", 1, start, FakeEvent(5, device=1))) == {}


def test_a_part_with_a_missing_mark_is_missing_not_shorter() -> None:
    whole, broken = Stretch("backward", 1, 1.0, 2.0), Stretch("backward", 1, None, 2.0)
    assert decoded(whole, whole) == {"backward_s": 2.0}
    assert decoded(whole, broken) == {}
    assert decoded(broken, Stretch("forward", 1, 0.0, 1.5)) == {"forward_s": 1.5}


def test_a_part_is_never_negative() -> None:
    assert decoded(Stretch("optimizer", 1, 0.0, 1.0), Stretch("optimizer", -1, 0.0, 1.5)) == {
        "optimizer_s": 0.0
    }


def test_marks_of_two_clocks_do_not_mix() -> None:
    assert elapsed(1.0, FakeEvent(1)) is None
    assert elapsed(None, 1.0) is None


class OnDevice:
    """Just enough of a patient."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)

    def live_parameters(self):
        yield 0, self


def test_other_devices_are_not_measured_and_that_is_said() -> None:
    probe = ClockProbe()
    probe.attach(OnDevice("mps"), CONFIG)
    assert probe.coverage() == "not measured: the queue of mps cannot be timed without waiting for it"


def test_cuda_marks_are_events_and_stay_out_of_captured_graphs(monkeypatch) -> None:
    class Recorded(FakeEvent):
        def __init__(self, enable_timing: bool) -> None:
            super().__init__(0.0)
            assert enable_timing

        def record(self, stream: str) -> None:
            self.stream = stream

    monkeypatch.setattr(torch.cuda, "Event", Recorded)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    mark = clock_module.event(torch.device("cuda", 1))
    assert mark.stream == "stream of cuda:1"
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert clock_module.event(torch.device("cuda", 1)) is None
