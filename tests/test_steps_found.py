"""Steps are found by themselves: as many in the file as the loop took, whatever the loop's shape.

Longer than other files: a flat list of loops.
"""

from __future__ import annotations

import functools
import math
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.helpers_replay import assert_live_equals_replay, steps_in
from tests.zoo import CASES, Stage, mean_square, numbers
from tests.zoo_loops import Gan, critic_loss
from tests.zoo_models import mlp
from tests.zoo_optimizers import Lookahead, Twofold
from torchwatch import WatchConfig, Watcher
from torchwatch.records import End, Note, Step

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONFIG = WatchConfig(terminal=False, activations_every=1)
WITHOUT_GRADIENTS = {"functional-model", "manual-descent"}
"""Loops that have no ``grad`` any more when a step ends."""
CHANGES_LAYERS = {"new-head-in-mid-training"}
WITHOUT_ACTIVATIONS = {"functional-model", "per-sample-gradients"}
"""Loops whose forward passes run under a functorch transform only."""


def steps_of(path: Path) -> list[Step]:
    """The steps of a complete run, numbered from 1, as many as its end record says."""
    records = assert_live_equals_replay(path)
    steps = steps_in(records)
    end = records[-1]
    assert isinstance(end, End)
    assert [step.step for step in steps] == list(range(1, end.steps + 1))
    return steps


@pytest.mark.parametrize("name", CASES)
def test_every_loop_of_the_zoo_has_its_steps(name: str, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    stage = CASES[name].run(functools.partial(Watcher, path=path, config=CONFIG))
    steps = steps_of(path)
    assert len(steps) == stage.steps
    assert all(step.grad_norm is not None for step in steps) == (name not in WITHOUT_GRADIENTS)
    if name in CHANGES_LAYERS:  # the step at which that was found has no columns: they would have wrong names
        assert sum(not step.activations for step in steps) == 1
    else:
        assert all(step.activations for step in steps) == (name not in WITHOUT_ACTIVATIONS)


@pytest.mark.parametrize("name", sorted(CASES.keys() - {"loss-becomes-nan"}))
def test_the_loss_of_each_step_is_the_one_logged_in_it(name: str, tmp_path: Path) -> None:
    """A boundary that is off by one would shift the losses against the steps."""
    path = tmp_path / "run.jsonl"
    logged: list[list[Tensor | float]] = [[]]

    class Listening(Watcher):
        def log(self, **values: Any) -> None:
            if "loss" in values:
                logged[-1].append(values["loss"])
            super().log(**values)

        def step(self, loss: Any = None, samples: int | None = None) -> None:
            logged[-1].append(loss)
            super().step(loss=loss, samples=samples)

    stage_step = Stage.step

    def count(self: Stage, loss: Any) -> None:
        stage_step(self, loss)
        logged.append([])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stage, "step", count)
        CASES[name].run(functools.partial(Listening, path=path, config=CONFIG))
    expected = [np.mean([float(torch.as_tensor(v).detach()) for v in values]) for values in logged if values]
    found = [step.loss for step in steps_of(path) if step.loss is not None and step.loss_source == "log"]
    assert found == pytest.approx(expected, rel=1e-6, nan_ok=True)


class Loop:
    """A model, an optimizer, and one ordinary step; counts the steps it took."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = mlp()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05)
        self.batches = iter(numbers(6, 5, count=100))
        self.taken = 0

    def backward(self) -> Tensor:
        loss = mean_square(self.model, *next(self.batches))
        loss.backward()
        return loss

    def step(self) -> Tensor:
        self.optimizer.zero_grad()
        loss = self.backward()
        self.optimizer.step()
        self.taken += 1
        return loss.detach()


def nothing_at_all(loop: Loop, watch: Watcher) -> None:
    """Zero steps."""


def evaluation_only(loop: Loop, watch: Watcher) -> None:
    with torch.no_grad():
        watch.log(val_loss=mean_square(loop.model, *next(loop.batches)))


def one_step(loop: Loop, watch: Watcher) -> None:
    loop.step()


def without_any_call(loop: Loop, watch: Watcher) -> None:
    for _ in range(7):
        loop.step()


def two_optimizers_on_all_weights(loop: Loop, watch: Watcher) -> None:
    """Each touches every weight, so each is a step of its own."""
    other = torch.optim.Adam(loop.model.parameters())
    for _ in range(4):
        loop.step()
        other.step()
        loop.taken += 1


def overlapping_optimizers(loop: Loop, watch: Watcher) -> None:
    """Both hold the last layer: the second closes the step of the first."""
    front = torch.optim.SGD([*loop.model[0].parameters(), *loop.model[4].parameters()], lr=0.01)
    back = torch.optim.SGD([*loop.model[2].parameters(), *loop.model[4].parameters()], lr=0.01)
    for _ in range(4):
        loop.backward()
        front.step()
        back.step()
        loop.taken += 2


def alternating_optimizers(loop: Loop, watch: Watcher) -> None:
    """One after the other on disjoint weights, each with its own forward pass: a pair is one step."""
    front = torch.optim.SGD(loop.model[0].parameters(), lr=0.01)
    back = torch.optim.SGD(loop.model[4].parameters(), lr=0.01)
    for _ in range(4):
        for optimizer in (front, back):
            loop.model.zero_grad()
            loop.backward()
            optimizer.step()
        loop.taken += 1


def one_optimizer_only_at_times(loop: Loop, watch: Watcher) -> None:
    """The embedding's optimizer joins every third step."""
    front = torch.optim.SGD(loop.model[0].parameters(), lr=0.01)
    back = torch.optim.SGD(loop.model[4].parameters(), lr=0.01)
    for i in range(9):
        loop.backward()
        back.step()
        if i % 3 == 0:
            front.step()
        loop.taken += 1


def critic_trained_alone_first(loop: Loop, watch: Watcher) -> None:
    """Half of the watched model is trained for a while, then both halves together."""
    front = torch.optim.SGD(loop.model[0].parameters(), lr=0.01)
    back = torch.optim.SGD(loop.model[4].parameters(), lr=0.01)
    for i in range(8):
        loop.backward()
        front.step()
        if i >= 4:
            back.step()
        loop.taken += 1


def optimizer_replaced(loop: Loop, watch: Watcher) -> None:
    for _ in range(3):
        loop.step()
    loop.optimizer = torch.optim.AdamW(loop.model.parameters())
    for _ in range(3):
        loop.step()


def optimizer_of_another_model(loop: Loop, watch: Watcher) -> None:
    """Before, between and after our steps."""
    other = Loop()
    for _ in range(4):
        other.step()
        loop.step()
        other.step()
        other.step()


def distillation_of_another_model(loop: Loop, watch: Watcher) -> None:
    """The watched model teaches: it runs in every step of the other, and is never trained."""
    student = Loop()
    for x, _ in numbers(6, 5, count=5):
        with torch.no_grad():
            target = loop.model(x)
        student.optimizer.zero_grad()
        F.mse_loss(student.model(x), target).backward()
        student.optimizer.step()


def gradients_but_no_step(loop: Loop, watch: Watcher) -> None:
    """Backward passes for saliency maps, then the weights' gradients are thrown away."""
    for _ in range(4):
        loop.backward()
        loop.model.zero_grad()


def zeroed_after_instead_of_before(loop: Loop, watch: Watcher) -> None:
    for _ in range(4):
        loop.backward()
        loop.optimizer.step()
        loop.optimizer.zero_grad()
        loop.taken += 1


def step_without_gradients(loop: Loop, watch: Watcher) -> None:
    """An optimizer that is stepped without any gradient has still been stepped."""
    for _ in range(3):
        loop.step()
    loop.optimizer.zero_grad()
    loop.optimizer.step()
    loop.taken += 1


def scheduler_between(loop: Loop, watch: Watcher) -> None:
    schedule = torch.optim.lr_scheduler.OneCycleLR(loop.optimizer, max_lr=0.1, total_steps=10)
    for _ in range(8):
        loop.step()
        schedule.step()


def step_in_a_helper_thread(loop: Loop, watch: Watcher) -> None:
    """The host trains our model in a thread of its own."""
    for _ in range(3):
        loop.step()
    thread = threading.Thread(target=lambda: [loop.step() for _ in range(3)])
    thread.start()
    thread.join()


def another_model_in_another_thread(loop: Loop, watch: Watcher) -> None:
    """Its optimizer, its loss module and its clipping are not ours."""
    other, criterion, stop = Loop(), nn.MSELoss(), threading.Event()
    error: list[BaseException] = []

    def train() -> None:
        try:
            x, y = next(other.batches)
            while not stop.is_set():
                other.optimizer.zero_grad()
                criterion(other.model(x) + 1e4, y).backward()
                nn.utils.clip_grad_norm_(other.model.parameters(), 1e-9)
                other.optimizer.step()
                other.taken += 1
        except BaseException as raised:
            error.append(raised)

    thread = threading.Thread(target=train)
    thread.start()
    while loop.taken < 60 or (other.taken < 60 and thread.is_alive()):
        if loop.taken < 60:
            loop.step()
    stop.set()
    thread.join()
    assert error == []
    assert other.taken >= 60


def interrupted_in_mid_step(loop: Loop, watch: Watcher) -> None:
    """Ctrl-C inside the optimizer, before any weight has moved: no step, no post-hook; it goes on."""

    def fail(*args: Any) -> None:
        raise KeyboardInterrupt

    loop.step()
    handle = loop.optimizer.register_step_pre_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        loop.step()
    handle.remove()
    loop.step()
    loop.step()


def forward_that_failed(loop: Loop, watch: Watcher) -> None:
    for _ in range(3):
        loop.step()
        with pytest.raises(RuntimeError, match="shapes"):
            loop.model(torch.randn(2, 9))


def step_said_twice(loop: Loop, watch: Watcher) -> None:
    """``watch.step`` again, with nothing done in between, is no step."""
    for _ in range(3):
        loop.step()
        watch.step()
        watch.step()


def epochs_said(loop: Loop, watch: Watcher) -> None:
    for epoch in range(3):
        for _ in watch.batches(range(3)):
            watch.log(loss=loop.step())
        watch.epoch(val_loss=float(epoch))


def another_model_stepped_in_backward(loop: Loop, watch: Watcher) -> None:
    """A gradient hook of the host steps another model's optimizer in mid-backward."""
    loop.step()
    other = Loop()

    def step_other(gradient: Tensor) -> None:
        with torch.enable_grad():
            other.step()

    loop.model[0].weight.register_hook(step_other)
    for _ in range(4):
        loop.step()


SHAPES = [
    nothing_at_all, evaluation_only, one_step, without_any_call, two_optimizers_on_all_weights,
    overlapping_optimizers, alternating_optimizers, one_optimizer_only_at_times, critic_trained_alone_first,
    optimizer_replaced, optimizer_of_another_model, distillation_of_another_model, gradients_but_no_step,
    zeroed_after_instead_of_before, step_without_gradients, scheduler_between, step_in_a_helper_thread,
    another_model_in_another_thread, interrupted_in_mid_step, forward_that_failed, step_said_twice,
    epochs_said,    another_model_stepped_in_backward,
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_the_steps_of_a_loop(shape: Callable[[Loop, Watcher], None], tmp_path: Path) -> None:
    loop, path = Loop(), tmp_path / "run.jsonl"
    with Watcher(loop.model, path, config=CONFIG) as watch:
        shape(loop, watch)
    steps = steps_of(path)
    assert len(steps) == loop.taken
    assert not any(step.foreign_optimizer for step in steps)
    if shape is another_model_in_another_thread:
        assert max(step.loss or 0.0 for step in steps) < 100
        assert not any(step.clipped or step.grad_norm_preclip for step in steps)


def test_a_foreign_optimizer_that_steps_our_weights_is_said(tmp_path: Path) -> None:
    """Its parameters are master copies: ours are written by the host, and no optimizer holds them."""
    loop, path = Loop(), tmp_path / "run.jsonl"
    masters = [p.detach().clone().requires_grad_() for p in loop.model.parameters()]
    optimizer = torch.optim.SGD(masters, lr=0.05)
    with Watcher(loop.model, path, config=CONFIG) as watch:
        for _ in range(5):
            loop.model.zero_grad()
            watch.log(loss=loop.backward())
            for master, parameter in zip(masters, loop.model.parameters(), strict=True):
                assert parameter.grad is not None
                master.grad = parameter.grad.clone()
            optimizer.step()
            with torch.no_grad():
                for master, parameter in zip(masters, loop.model.parameters(), strict=True):
                    parameter.copy_(master)
    steps = steps_of(path)
    assert len(steps) == 5
    assert all(step.foreign_optimizer for step in steps)
    assert all(step.grad_norm for step in steps)


def test_a_loop_without_an_optimizer_is_told_once_to_call_step(tmp_path: Path) -> None:
    loop, path = Loop(), tmp_path / "run.jsonl"
    with Watcher(loop.model, path, config=CONFIG):
        for _ in range(50):
            loop.backward()
            with torch.no_grad():
                for parameter in loop.model.parameters():
                    assert parameter.grad is not None
                    parameter.sub_(parameter.grad, alpha=0.01)
                    parameter.grad = None
    records = assert_live_equals_replay(path)
    hints = [r.message for r in records if isinstance(r, Note) and "watch.step" in r.message]
    assert len(hints) == 1


def test_a_generator_and_a_critic_watched_apart(tmp_path: Path) -> None:
    """Two watchers on the halves of a GAN: each sees the steps of its own optimizer only."""
    torch.manual_seed(0)
    gan = Gan()
    g, c = torch.optim.Adam(gan.generator.parameters()), torch.optim.Adam(gan.critic.parameters())
    paths = tmp_path / "generator.jsonl", tmp_path / "critic.jsonl"
    with Watcher(gan.generator, paths[0], config=CONFIG), Watcher(gan.critic, paths[1], config=CONFIG):
        for x, _ in numbers(6, 5, count=4):
            for _ in range(3):
                c.zero_grad()
                critic_loss(gan, x).backward()
                c.step()
            g.zero_grad()
            F.softplus(-gan.critic(gan.fake(6))).mean().backward()
            g.step()
    assert [len(steps_of(path)) for path in paths] == [4, 12]


@pytest.mark.parametrize(
    "make",
    [
        functools.partial(torch.optim.SGD, lr=0.05),
        lambda parameters: Lookahead(torch.optim.Adam(parameters, lr=0.01), every=2),
        lambda parameters: Twofold(torch.optim.SGD(parameters, lr=0.01), every=2),
        functools.partial(torch.optim.LBFGS, lr=0.5, max_iter=3),
    ],
    ids=["plain", "lookahead", "two-inner-steps", "closure"],
)
def test_the_update_is_that_of_the_whole_step(make: Callable[[Any], Any], tmp_path: Path) -> None:
    """From before the outermost ``step`` to after it, and relative to the weights before."""
    torch.manual_seed(0)
    model, path, expected = mlp(), tmp_path / "run.jsonl", []
    optimizer = make(list(model.parameters()))
    with Watcher(model, path, config=CONFIG):
        for x, y in numbers(6, 5, count=5):

            def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
                optimizer.zero_grad()
                loss = mean_square(model, x, y)
                loss.backward()
                return loss

            before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
            if isinstance(optimizer, torch.optim.LBFGS):
                optimizer.step(closure)
            else:
                closure()
                optimizer.step()
            moved = nn.utils.parameters_to_vector(model.parameters()).detach() - before
            expected.append((moved.norm() / before.norm()).item())
    assert [step.update_ratio for step in steps_of(path)] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_the_scaler_skips_is_told_apart(fused: bool, tmp_path: Path) -> None:
    """With the scaler known and the boundary confirmed, plain and fused optimizers say the same."""
    torch.manual_seed(0)
    model, path = mlp(), tmp_path / "run.jsonl"
    optimizer = torch.optim.Adam(model.parameters(), fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    norms = []
    with Watcher(model, path, config=CONFIG, scaler=scaler) as watch:
        for i, (x, y) in enumerate(numbers(6, 5, count=6)):
            optimizer.zero_grad()
            loss = mean_square(model, x * (math.inf if i == 3 else 1.0), y)
            scale = scaler.get_scale()
            scaler.scale(loss).backward()
            norms.append(nn.utils.get_total_norm([p.grad for p in model.parameters()]).item() / scale)
            scaler.step(optimizer)
            scaler.update()
            watch.step(loss=loss)
    steps = steps_of(path)
    assert len(steps) == 6
    assert [bool(step.skipped) for step in steps] == [False, False, False, True, False, False]
    good = [i for i in range(6) if i != 3]
    assert [steps[i].grad_norm for i in good] == pytest.approx([norms[i] for i in good], rel=1e-4)


def test_accumulated_losses_are_averaged(tmp_path: Path) -> None:
    loop, path = Loop(), tmp_path / "run.jsonl"
    expected = []
    with Watcher(loop.model, path, config=CONFIG) as watch:
        for _ in range(3):
            losses = []
            for _ in range(4):
                loss = loop.backward()
                watch.log(loss=loss)
                losses.append(loss.item())
            loop.optimizer.step()
            loop.optimizer.zero_grad()
            expected.append(sum(losses) / 4)
    assert [step.loss for step in steps_of(path)] == pytest.approx(expected, rel=1e-6)
