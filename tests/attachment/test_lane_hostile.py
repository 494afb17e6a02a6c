"""Loops that do to the fast lane what no tidy loop does: every step stays in the file with its own loss."""

from __future__ import annotations

import copy
import itertools
import multiprocessing
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from tests.helpers_replay import assert_live_equals_replay, steps_in
from torchwatch import WatchConfig, Watcher
from torchwatch.errors import WatcherClosed
from torchwatch.records import Interval, Step

RARELY = WatchConfig(terminal=False, activations_every=100, gradients_every=50, dense_steps=3)
STEPS = 230
BATCH = 16

Log = Callable[[Watcher, torch.Tensor, int], object]
Act = Callable[[Watcher, torch.optim.Optimizer, int], object]


def by_default(watch: Watcher, loss: torch.Tensor, number: int) -> None:
    watch.log(loss=loss)


class Loop:
    """A small training; ``log`` says the loss, ``step`` makes the step, ``then`` comes after both."""

    def __init__(self, path: Path, make: Callable[..., torch.optim.Optimizer] = torch.optim.SGD) -> None:
        torch.manual_seed(0)
        self.path = path
        self.model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        self.optimizer = make(self.model.parameters(), lr=0.1)
        self.batch = torch.randn(BATCH, 4), torch.randint(0, 3, (BATCH,))
        self.losses: list[float] = []

    def run(
        self,
        log: Log = by_default,
        step: Callable[[torch.optim.Optimizer, int], object] = lambda optimizer, _: optimizer.step(),
        then: Act | None = None,
        *,
        loader: bool = False,
    ) -> list[Step]:
        with Watcher(self.model, self.path, config=RARELY) as watch:
            batches = itertools.repeat(self.batch, STEPS)
            for number, (x, y) in enumerate(watch.batches(batches) if loader else batches, 1):
                loss = functional.cross_entropy(self.model(x), y)
                self.optimizer.zero_grad()
                loss.backward()
                step(self.optimizer, number)
                self.losses.append(loss.item())
                log(watch, loss, number)
                if then is not None:
                    then(watch, self.optimizer, number)
        return self.recorded()

    def recorded(self) -> list[Step]:
        """The steps of the file: all there are, each with its loss, most of them plain ones."""
        steps = steps_in(assert_live_equals_replay(self.path))
        assert [s.step for s in steps] == list(range(1, len(self.losses) + 1))
        assert [s.loss for s in steps] == pytest.approx(self.losses, rel=1e-6)
        assert sum(s.grad_norm is None for s in steps) > len(steps) // 2
        return steps


@pytest.fixture
def loop(tmp_path) -> Loop:
    return Loop(tmp_path / "run.jsonl")


# ---------------------------------------------------------------------- what is logged


def log_in_inference_mode(watch: Watcher, loss: torch.Tensor, number: int) -> None:
    with torch.inference_mode():
        watch.log(loss=loss * 1.0, other=torch.ones(()))


def log_twice(watch: Watcher, loss: torch.Tensor, number: int) -> None:
    watch.log(loss=loss)
    watch.log(loss=loss)


def log_after_a_derivative(watch: Watcher, loss: torch.Tensor, number: int) -> None:
    watch.log(loss=loss)

    def inner(x: torch.Tensor) -> torch.Tensor:
        total = x.sum()
        watch.log(inner=total)
        return total

    torch.func.grad(inner)(torch.ones(2))


def log_as_parameter(watch: Watcher, loss: torch.Tensor, number: int) -> None:
    watch.log(loss=nn.Parameter(loss.detach()))


def log_and_evaluate(watch: Watcher, loss: torch.Tensor, number: int) -> None:
    watch.log(loss=loss)
    if number % 10 == 0:
        watch.log(val_loss=1.0)


@pytest.mark.parametrize(
    "log", [log_in_inference_mode, log_twice, log_after_a_derivative, log_as_parameter, log_and_evaluate]
)
def test_the_loss_of_a_step_is_its_own(loop: Loop, log: Log) -> None:
    loop.run(log)


def test_numbers_of_all_kinds_are_metrics(loop: Loop) -> None:
    def log(watch: Watcher, loss: torch.Tensor, number: int) -> None:
        watch.log(
            loss=loss, zero_d=torch.tensor(number), whole=number, yes=True, half=torch.tensor(0.5).bfloat16()
        )

    for step in loop.run(log):
        assert step.metrics == {"zero_d": step.step, "whole": step.step, "yes": 1.0, "half": 0.5}


def test_a_dispatch_mode_of_the_host_sees_nothing(loop: Loop) -> None:
    seen: list[Any] = []

    class Spy(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(func)
            return func(*args, **(kwargs or {}))

    def log(watch: Watcher, loss: torch.Tensor, number: int) -> None:
        with Spy():
            watch.log(loss=loss)

    loop.run(log)
    assert seen == []


def test_another_thread_may_log(loop: Loop) -> None:
    stop = threading.Event()
    threads: list[threading.Thread] = []

    def start(watch: Watcher, optimizer: torch.optim.Optimizer, number: int) -> None:
        def chatter() -> None:
            while not stop.wait(0.0005):
                watch.log(other=1.0)

        if number == 20:
            threads.append(threading.Thread(target=chatter))
            threads[0].start()
        if number == STEPS - 10:
            stop.set()
            threads[0].join()

    steps = loop.run(then=start)
    assert {s.metrics["other"] for s in steps if s.metrics} <= {1.0}


# ---------------------------------------------------------------------- what the optimizer does


class Flaky(torch.optim.SGD):
    """Raises on every seventh call."""

    calls = 0

    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        self.calls += 1
        if self.calls % 7 == 0:
            raise ValueError("not this time")
        return super().step(closure)


def test_a_step_that_raised_and_was_tried_again_is_one_step(tmp_path) -> None:
    def try_again(optimizer: torch.optim.Optimizer, number: int) -> None:
        try:
            optimizer.step()
        except ValueError:
            optimizer.step()

    Loop(tmp_path / "run.jsonl", Flaky).run(step=try_again)


def test_a_closure_now_and_then(loop: Loop) -> None:
    def step(optimizer: torch.optim.Optimizer, number: int) -> None:
        if number % 40 == 0:
            optimizer.step(lambda: torch.zeros(()))
        else:
            optimizer.step(closure=None)

    loop.run(step=step)


def test_copies_of_optimizer_and_model_are_the_hosts_own(loop: Loop) -> None:
    def copies(watch: Watcher, optimizer: torch.optim.Optimizer, number: int) -> None:
        if number % 60 == 0:
            again = pickle.loads(pickle.dumps(optimizer))
            assert again.state_dict() == copy.deepcopy(optimizer).state_dict() == optimizer.state_dict()
            copy.deepcopy(loop.model)

    loop.run(then=copies)


def test_a_parameter_group_that_is_added_has_its_rate(loop: Loop) -> None:
    extra = nn.Parameter(torch.zeros(1))

    def add(watch: Watcher, optimizer: torch.optim.Optimizer, number: int) -> None:
        if number == 120:
            optimizer.add_param_group({"params": [extra], "lr": 0.5})

    steps = loop.run(then=add)
    assert [s.step for s in steps if s.lr == [0.1]] == list(range(1, 121))
    assert all(s.lr == [0.1, 0.5] for s in steps[120:])


# ---------------------------------------------------------------------- what the watcher is told


def test_a_loader_and_evaluations_between(loop: Loop) -> None:
    assert all(step.samples == BATCH for step in loop.run(log_and_evaluate, loader=True))


def test_boundaries_that_are_named_late_have_their_samples(loop: Loop) -> None:
    def confirm(watch: Watcher, optimizer: torch.optim.Optimizer, number: int) -> None:
        if number > 130:
            watch.step(samples=7)

    with_loader = loop.run(then=confirm, loader=True)
    assert [s.samples for s in with_loader] == [BATCH] * 130 + [7] * (STEPS - 130)


def test_a_warning_zooms_in_from_the_lane(loop: Loop) -> None:
    def warn(watch: Watcher, optimizer: torch.optim.Optimizer, number: int) -> None:
        if number == 120:
            watch._session.attachment.schedule.request_zoom()

    steps = loop.run(then=warn)
    dense = [s.step for s in steps if s.activations is not None and 110 < s.step < 195]
    assert dense == list(range(122, 122 + RARELY.zoom_steps))


def test_watchers_of_one_model_do_not_mind_each_other(loop: Loop) -> None:
    with Watcher(loop.model, loop.path.with_name("other.jsonl"), config=RARELY) as other:
        loop.run(lambda watch, loss, number: (watch.log(loss=loss), other.log(loss=loss)))
    again = Loop(loop.path.with_name("other.jsonl"))
    again.losses = loop.losses
    again.recorded()


def test_closed_inside_of_a_step(loop: Loop) -> None:
    found: list[Watcher] = []

    def close(*_: Any) -> None:
        found[0].close()

    def arrange(watch: Watcher, optimizer: torch.optim.Optimizer, number: int) -> None:
        if number == 160:  # a plain one follows
            found.append(watch)
            optimizer.register_step_pre_hook(close)

    with pytest.raises(WatcherClosed):
        loop.run(then=arrange)
    loop.losses.pop()
    loop.recorded()


def test_a_forked_child_changes_nothing(loop: Loop) -> None:
    def child(watch: Watcher) -> None:
        for _ in range(50):
            watch.log(loss=1.0)
            loop.optimizer.step()
        watch.close()

    def fork(watch: Watcher, optimizer: torch.optim.Optimizer, number: int) -> None:
        if number == 120:
            process = multiprocessing.get_context("fork").Process(target=child, args=(watch,))
            process.start()
            process.join(20)
            assert process.exitcode == 0

    loop.run(then=fork)


# ---------------------------------------------------------------------- time


def test_a_loop_that_is_fast_then_slow_then_fast_has_whole_intervals(loop: Loop) -> None:
    pauses = threading.Event()

    def pause(watch: Watcher, optimizer: torch.optim.Optimizer, number: int) -> None:
        if 100 < number <= 130:
            pauses.wait(0.01)

    loop.run(then=pause)
    intervals = [r for r in assert_live_equals_replay(loop.path) if isinstance(r, Interval)]
    assert sum(i.steps for i in intervals) == STEPS
    assert [i.steps for i in intervals[:-1]] == [200] * (len(intervals) - 1)
