"""Hosts with awkward modules, callbacks, and watchers that come and go in odd places."""

from __future__ import annotations

import io
import math
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.helpers_host import CONFIG, Loop
from tests.helpers_replay import assert_live_equals_replay, steps_in
from tests.zoo import Stage, numbers
from tests.zoo_models import Encoder
from torchwatch import Watcher
from torchwatch.records import Alert, End, encode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Awkward(nn.Module):
    """Comparable to nothing, empty when asked, with attributes that are too long or raise."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(5, 3)
        self.shape = (3, float("nan"), "\x1b[31m<script>")
        self.line.tag = "x" * 10_000  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not comparable")

    __hash__ = nn.Module.__hash__

    def __len__(self) -> int:
        return 0

    def __bool__(self) -> bool:
        raise RuntimeError("no truth in me")

    def __repr__(self) -> str:
        raise RuntimeError("nothing to see")

    @property
    def loss(self) -> Tensor:
        raise RuntimeError("no loss")

    def forward(self, x: Tensor) -> Any:
        return Output(self.line(x))


class Output:
    """An output whose attributes raise."""

    def __init__(self, value: Tensor) -> None:
        self.value = value

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name} here")

    def __bool__(self) -> bool:
        raise RuntimeError("no truth in me")


def test_awkward_modules_and_outputs(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    stage = Stage()
    module = Awkward()
    model = nn.ModuleDict({"<script>alert(1)</script>\x1b[2J\n": module})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Watcher(model, path, config=CONFIG) as watch:
        for x, y in numbers(6, 5, count=4):
            loss = F.mse_loss(module(x).value, y)
            loss.backward()
            optimizer.step()
            watch.log(
                **{"loss": loss, "<b>\x1b[31m": 1.0, "n" * 10_000: 2.0, "object": object(), "text": "x"}
            )
            stage.step(loss)
    records = assert_live_equals_replay(path, troubled=True)
    assert len(steps_in(records)) == 4
    assert all(step.grad_norm for step in steps_in(records))


def test_a_model_on_the_meta_device(tmp_path: Path) -> None:
    """Shapes only: nothing can be read, and nothing is claimed."""
    path = tmp_path / "run.jsonl"
    model = nn.Linear(5, 3, device="meta")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Watcher(model, path, config=CONFIG):
        for _ in range(3):
            model(torch.randn(6, 5, device="meta")).sum().backward()
            optimizer.step()
    steps = steps_in(assert_live_equals_replay(path))
    assert len(steps) == 3
    assert all(step.grad_norm is None and step.loss is None for step in steps)


def test_fake_tensors(tmp_path: Path) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    path = tmp_path / "run.jsonl"
    with FakeTensorMode():
        model = nn.Linear(5, 3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with Watcher(model, path, config=CONFIG) as watch:
            for _ in range(3):
                loss = model(torch.randn(6, 5)).sum()
                loss.backward()
                optimizer.step()
                watch.log(loss=loss)
    steps = steps_in(assert_live_equals_replay(path, troubled=True))
    assert len(steps) == 3
    assert all(step.grad_norm is None for step in steps)


def test_outputs_and_losses_can_be_pickled(tmp_path: Path) -> None:
    """A hook of ours on an output must not make torch warn that a hook is not saved."""
    loop = Loop()
    with Watcher(loop.model, tmp_path / "run.jsonl", config=CONFIG):
        for _ in range(2):
            loop.step()
        out = loop.model(loop.batches[0][0])
        stream = io.BytesIO()
        torch.save({"out": out, "loss": nn.MSELoss()(out, loop.batches[0][1])}, stream)
        loop.step()
    stream.seek(0)
    assert torch.load(stream)["out"].equal(out)


def test_a_patch_of_the_host_on_top_of_ours_stays(tmp_path: Path) -> None:
    """Somebody else replaces the same private function while we watch: leaving must not undo that."""
    loop = Loop()
    original = nn.utils.clip_grad._get_total_norm
    called = []
    try:
        with Watcher(loop.model, tmp_path / "run.jsonl", config=CONFIG):
            ours = nn.utils.clip_grad._get_total_norm

            def theirs(*args: Any, **kwargs: Any) -> Tensor:
                called.append(1)
                return ours(*args, **kwargs)

            nn.utils.clip_grad._get_total_norm = theirs  # type: ignore[assignment]
            nn.utils.clip_grad_norm_(loop.model.parameters(), 1.0)
        loop.step()
        nn.utils.clip_grad_norm_(loop.model.parameters(), 1.0)
        assert nn.utils.clip_grad._get_total_norm is theirs
        assert len(called) == 2
    finally:
        nn.utils.clip_grad._get_total_norm = original


class Enough(Exception):
    """What a host raises in its callback."""


def until_alert(watch: Watcher, loop: Loop) -> None:
    """Log a sick loss until the callback has been called, or for a long time."""
    give_up = time.monotonic() + 10
    while time.monotonic() < give_up:
        loop.step()
        watch.log(loss=math.nan)


def test_what_on_alert_raises_passes_to_the_host(tmp_path: Path) -> None:
    path, loop, told = tmp_path / "run.jsonl", Loop(), []

    def on_alert(alert: Alert) -> None:
        told.append((alert.check, threading.current_thread()))
        raise Enough

    def train() -> None:
        with Watcher(loop.model, path, config=CONFIG, on_alert=on_alert) as watch:
            until_alert(watch, loop)

    with pytest.raises(Enough):
        train()
    assert told == [("loss-nonfinite", threading.main_thread())]
    records = assert_live_equals_replay(path)
    assert any(isinstance(record, Alert) and record.check == "loss-nonfinite" for record in records)
    end = records[-1]
    assert isinstance(end, End)
    assert end.status == "crashed"


def test_on_alert_gets_every_alert_once_in_order(tmp_path: Path) -> None:
    path, loop, told = tmp_path / "run.jsonl", Loop(), []
    with Watcher(loop.model, path, config=CONFIG, on_alert=told.append) as watch:
        for i in range(60):
            loop.step()
            watch.log(loss=math.nan if i % 20 < 3 else 1.0)
    records = assert_live_equals_replay(path)
    assert told
    written = [encode(record) for record in records if isinstance(record, Alert)]  # there NaN equals NaN
    assert list(map(encode, told)) == written == list(map(encode, watch.alerts))


def test_should_stop_turns_true_in_the_loop(tmp_path: Path) -> None:
    loop = Loop()
    with Watcher(loop.model, tmp_path / "run.jsonl", config=CONFIG, stop_on="critical") as watch:
        assert not watch.should_stop
        give_up = time.monotonic() + 10
        while not watch.should_stop and time.monotonic() < give_up:
            loop.step()
            watch.log(loss=math.nan)
        assert watch.should_stop
    assert_live_equals_replay(tmp_path / "run.jsonl")


def in_a_forward_hook(loop: Loop, act: Callable[[], None]) -> Any:
    return loop.model[1].register_forward_hook(lambda *args: act())  # type: ignore[index]


def in_a_gradient_hook(loop: Loop, act: Callable[[], None]) -> Any:
    return loop.model[2].weight.register_hook(lambda gradient: act())  # type: ignore[index, union-attr]


def before_an_optimizer_step(loop: Loop, act: Callable[[], None]) -> Any:
    return loop.optimizer.register_step_pre_hook(lambda *args: act())


def after_an_optimizer_step(loop: Loop, act: Callable[[], None]) -> Any:
    return loop.optimizer.register_step_post_hook(lambda *args: act())


PLACES = [in_a_forward_hook, in_a_gradient_hook, before_an_optimizer_step, after_an_optimizer_step]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_leaving_in_mid_step(place: Callable[..., Any], tmp_path: Path) -> None:
    """The host closes the watcher inside one of its own hooks; its step runs on undisturbed."""
    bare, loop = Loop(), Loop()
    expected = [bare.step().item() for _ in range(5)]
    watch = Watcher(loop.model, tmp_path / "run.jsonl", config=CONFIG)
    watch.__enter__()
    losses = [loop.step().item() for _ in range(2)]
    handle = place(loop, watch.close)
    losses.append(loop.step().item())
    handle.remove()
    losses += [loop.step().item() for _ in range(2)]
    assert losses == expected
    records = assert_live_equals_replay(tmp_path / "run.jsonl")
    assert len(steps_in(records)) in {2, 3}


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_entering_in_mid_step(place: Callable[..., Any], tmp_path: Path) -> None:
    bare, loop = Loop(), Loop()
    expected = [bare.step().item() for _ in range(5)]
    watch = Watcher(loop.model, tmp_path / "run.jsonl", config=CONFIG)
    losses = [loop.step().item()]
    handle = place(loop, lambda: watch.__enter__() and None)
    losses.append(loop.step().item())
    handle.remove()
    losses += [loop.step().item() for _ in range(3)]
    watch.close()
    assert losses == expected
    records = assert_live_equals_replay(tmp_path / "run.jsonl")
    assert len(steps_in(records)) in {3, 4}


def test_the_fast_path_of_the_encoder_stays_fast(tmp_path: Path) -> None:
    """Its fused kernel is used in evaluation while watched, as without."""
    torch.manual_seed(0)
    model, x = Encoder().eval(), torch.randint(11, (2, 4))
    with (
        Watcher(model, tmp_path / "run.jsonl", config=CONFIG),
        torch.no_grad(),
        torch.profiler.profile() as profile,
    ):
        model(x)
    assert any("_transformer_encoder_layer_fwd" in event.key for event in profile.key_averages())
