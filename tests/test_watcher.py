"""The public API: what a loop can say and ask, epochs, evaluations, paths, callbacks, misuse.

Longer than other files: a flat list of cases.
"""

from __future__ import annotations

import gc
import json
import stat

import pytest
import torch
from torch import nn

from tests.helpers_replay import assert_live_equals_replay
from tests.helpers_watch import record, steps_of
from torchwatch import WatchConfig, Watcher, read_run
from torchwatch.errors import ConfigError, ModelError, RunBusy, WatcherClosed
from torchwatch.records import Alert, End, Epoch, Eval, Interval, Note, RunHeader, encode
from torchwatch.runfile import read_records

QUIET = WatchConfig(terminal=False)


class Loop:
    """A small regression, one step per call."""

    def __init__(self, lr: float = 0.01) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=lr)

    def __call__(self, watch=None, factor: float = 1.0) -> torch.Tensor:
        loss = self.model(torch.randn(8, 4)).square().mean() * factor
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if watch is not None:
            watch.log(loss=loss)
        return loss


def of(records, kind):
    return [r for r in records if isinstance(r, kind)]


def test_an_untouched_loop_is_recorded(tmp_path) -> None:
    loop = Loop()
    records = record(loop.model, lambda watch: [loop() for _ in range(30)], tmp_path / "run.jsonl")
    steps = steps_of(records)
    assert [s.step for s in steps] == list(range(1, 31))
    assert all(s.lr == [0.01] and s.grad_norm > 0 and s.update_ratio > 0 for s in steps)
    assert all(s.step_time_s > 0 and s.watch_time_s > 0 for s in steps)
    assert records[0].model == "Sequential"
    end = records[-1]
    assert (end.status, end.steps, end.complete, end.health_score) == ("finished", 30, True, 100)
    assert any("call watch.log(loss=loss)" in n.message for n in of(records, Note))
    assert stat.S_IMODE((tmp_path / "run.jsonl").stat().st_mode) == 0o600


def test_epochs_and_evaluations(tmp_path) -> None:
    loop = Loop()

    def body(watch) -> None:
        for epoch in range(3):
            for _ in watch.batches([torch.zeros(8, 4)] * 4):
                loop(watch)
            watch.epoch(val_loss=torch.tensor(3.0 - epoch), lr_now=0.1)
        loop(watch)
        watch.log(val_loss=0.5, val_accuracy={"cat": 0.25})

    records = record(loop.model, body, tmp_path / "run.jsonl")
    assert [(e.epoch, e.steps, e.samples, e.metrics) for e in of(records, Epoch)] == [
        (0, 4, 32, {"val_loss": 3.0, "lr_now": 0.1}),
        (1, 4, 32, {"val_loss": 2.0, "lr_now": 0.1}),
        (2, 4, 32, {"val_loss": 1.0, "lr_now": 0.1}),
    ]
    assert [(e.step, e.epoch, e.metrics) for e in of(records, Eval)] == [
        (4, 0, {"val_loss": 3.0}),
        (8, 1, {"val_loss": 2.0}),
        (12, 2, {"val_loss": 1.0}),
        (13, 3, {"val_loss": 0.5, "val_accuracy.cat": 0.25}),
    ]
    assert [s.epoch for s in steps_of(records)] == [0] * 4 + [1] * 4 + [2] * 4 + [3]
    assert [i.closed_by for i in of(records, Interval)] == ["epoch"] * 3 + ["end"]
    assert all(s.wait_time_s is not None and s.samples == 8 for s in steps_of(records)[:12])
    assert records[-1].epochs == 3


def test_batches_alone_make_epochs_and_an_evaluation_pass_is_none(tmp_path) -> None:
    loop = Loop()

    def body(watch) -> None:
        for _ in range(2):
            for _ in watch.batches(range(3)):
                loop(watch)
            for _ in watch.batches(range(2)):  # no optimizer step: not an epoch
                with torch.no_grad():
                    loop.model(torch.zeros(1, 4))

    records = record(loop.model, body, tmp_path / "run.jsonl")
    assert [(e.epoch, e.steps) for e in of(records, Epoch)] == [(0, 3), (1, 3)]
    assert [s.epoch for s in steps_of(records)] == [0, 0, 0, 1, 1, 1]


def test_batches_are_the_loaders_own(tmp_path) -> None:
    loop = Loop()
    with Watcher(loop.model, tmp_path / "run.jsonl", config=QUIET) as watch:
        assert len(watch.batches([1, 2, 3])) == 3
        assert list(watch.batches(iter("abc"))) == ["a", "b", "c"]
        with pytest.raises(TypeError):
            len(watch.batches(iter("abc")))
        with pytest.raises(ZeroDivisionError):
            list(watch.batches(1 / 0 for _ in range(1)))


def test_manual_updates_need_watch_step(tmp_path) -> None:
    loop = Loop()

    def body(watch) -> None:
        for number in range(5):
            loss = loop.model(torch.randn(8, 4)).square().mean()
            loop.model.zero_grad()
            loss.backward()
            with torch.no_grad():
                for parameter in loop.model.parameters():
                    parameter.sub_(0.01 * parameter.grad)
            watch.step(loss=loss, samples=8 + number)

    steps = steps_of(record(loop.model, body, tmp_path / "run.jsonl"))
    assert [(s.step, s.samples) for s in steps] == [(1, 8), (2, 9), (3, 10), (4, 11), (5, 12)]
    assert all(s.grad_norm > 0 and s.loss > 0 and s.lr is None for s in steps)


def test_watch_step_only_confirms_where_an_optimizer_stepped(tmp_path) -> None:
    loop = Loop()

    def body(watch) -> None:
        for _ in range(3):
            for _ in range(2):  # accumulation: the first watch.step() has nothing to end
                loop.model(torch.randn(8, 4)).square().mean().backward()
                watch.step(loss=1.0)
            loop.optimizer.step()
            watch.step(loss=4.0)
            loop.optimizer.zero_grad()

    steps = steps_of(record(loop.model, body, tmp_path / "run.jsonl"))
    assert [s.step for s in steps][-3:] == [steps[-3].step, steps[-3].step + 1, steps[-3].step + 2]
    assert steps[-1].loss == pytest.approx(2.0)


def test_a_skipped_step_of_a_grad_scaler_is_recorded(tmp_path) -> None:
    loop = Loop()
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)

    def body(watch) -> None:
        for number in range(4):
            loop.optimizer.zero_grad()
            loss = loop.model(torch.randn(8, 4)).square().mean()
            scaler.scale(loss * (float("inf") if number == 2 else 1.0)).backward()
            scaler.step(loop.optimizer)
            scaler.update()
            watch.step(loss=loss)

    steps = steps_of(record(loop.model, body, tmp_path / "run.jsonl", scaler=scaler))
    assert [s.skipped for s in steps] == [False, False, True, False]
    assert all(s.grad_norm < 100 for s in steps if s.grad_norm is not None and not s.skipped)  # unscaled


def test_a_grad_scaler_that_skips_the_first_steps_is_no_fault(tmp_path) -> None:
    """The scale begins high and is halved until the gradients are finite."""
    loop = Loop()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)

    def body(watch) -> None:
        for _ in range(12):
            loop.optimizer.zero_grad()
            loss = loop.model(100 * torch.randn(8, 4)).square().mean()
            scaler.scale(loss).backward()
            scaler.step(loop.optimizer)
            scaler.update()
            watch.step(loss=loss)

    records = record(loop.model, body, tmp_path / "run.jsonl", scaler=scaler)
    skipped = [s.skipped for s in steps_of(records)]
    assert len(skipped) == 12
    assert skipped[:3] == [True] * 3
    assert skipped[-1] is False
    assert not [r for r in records if isinstance(r, Alert)]


def test_alerts_reach_the_loop_and_the_callback(tmp_path) -> None:
    loop = Loop()
    called: list[Alert] = []
    path = tmp_path / "run.jsonl"
    with Watcher(loop.model, path, config=QUIET, on_alert=called.append, stop_on="critical") as watch:
        assert not watch.should_stop
        for number in range(400):
            loop(watch, factor=float("nan") if number > 20 else 1.0)
            if watch.should_stop:
                break
    assert watch.should_stop
    assert any(a.check == "loss-nonfinite" and a.severity == "critical" for a in called)
    assert tuple(called) == watch.alerts
    recorded = of(list(read_records(path)), Alert)
    assert list(map(encode, recorded)) == list(map(encode, called))  # NaN equals NaN there
    assert_live_equals_replay(path)


def test_what_the_callback_raises_is_the_hosts(tmp_path) -> None:
    loop = Loop()

    class Stop(Exception):
        pass

    def stop(_: Alert) -> None:
        raise Stop

    with pytest.raises(Stop), Watcher(loop.model, tmp_path / "r.jsonl", config=QUIET, on_alert=stop) as watch:
        for number in range(20_000):
            loop(watch, factor=float("nan") if number > 20 else 1.0)
    assert of(list(read_records(watch.path)), End)[0].status == "crashed"


def test_stop_on_a_health_score(tmp_path) -> None:
    loop = Loop()
    with Watcher(loop.model, tmp_path / "r.jsonl", config=QUIET, stop_on=95) as watch:
        for number in range(20_000):
            loop(watch, factor=float("nan") if number > 20 else 1.0)
            if watch.should_stop:
                break
    assert watch.health_score < 95


@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError("boom"), "crashed"), (KeyboardInterrupt(), "interrupted")]
)
def test_how_the_body_ended_is_in_the_end_record(tmp_path, error, status) -> None:
    loop = Loop()
    with pytest.raises(type(error)), Watcher(loop.model, tmp_path / "r.jsonl", config=QUIET) as watch:
        loop(watch)
        raise error
    end = list(read_records(watch.path))[-1]
    assert end.status == status
    assert type(error).__name__ in end.error
    if status == "crashed":
        assert "raise error" in end.traceback


def test_an_existing_file_is_left_alone_and_that_is_said(tmp_path) -> None:
    path = tmp_path / "digits.jsonl"
    first, second = Loop(), Loop()
    record(first.model, first, path)
    before = path.read_bytes()
    records = record(second.model, second, path)
    assert path.read_bytes() == before
    assert (tmp_path / "digits-2.jsonl").exists()
    assert records[0].name == "digits-2"
    assert "exists already" in of(records, Note)[0].message


def test_the_default_path_is_made_from_time_and_model(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    loop = Loop()
    with Watcher(loop.model, config=QUIET) as watch:
        loop(watch)
    assert watch.path.parent.name == "runs"
    assert watch.path.name.endswith("-sequential.jsonl")


def test_ranks_write_their_own_files(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    loop = Loop()
    records = record(loop.model, loop, tmp_path / "run.jsonl")
    assert (tmp_path / "run.rank1.jsonl").exists()
    assert (records[0].rank, records[0].world) == (1, 2)


def test_the_header_tells_what_was_asked_for(tmp_path) -> None:
    loop = Loop()
    records = record(
        loop.model,
        loop,
        tmp_path / "run.jsonl",
        name="my run",
        hyperparameters={"lr": 0.1, "odd": object, "nan": float("nan")},
        ignore=["noisy-loss"],
        recipe="train.py:build",
    )
    header = records[0]
    assert isinstance(header, RunHeader)
    assert (header.name, header.recipe, header.ignore) == ("my run", "train.py:build", ["noisy-loss"])
    assert "noisy-loss" not in header.limits
    assert header.limits["loss-nonfinite"]
    json.loads((tmp_path / "run.jsonl").read_bytes().splitlines()[0], parse_constant=lambda _: 1 / 0)


def test_wrappers_prefixes_are_stripped(tmp_path) -> None:
    class Wrapper(nn.Module):
        def __init__(self, module) -> None:
            super().__init__()
            self.module = module

        def forward(self, x):
            return self.module(x)

    loop = Loop()
    loop.model = Wrapper(loop.model)
    records = record(loop.model, loop, tmp_path / "run.jsonl")
    layout = next(r for r in records if r.kind == "layout")
    assert [p.name for p in layout.parameters] == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_values_that_cannot_be_logged_are_named_once(tmp_path) -> None:
    loop = Loop()

    def body(watch) -> None:
        for _ in range(3):
            loop(watch)
            watch.log(message="hello", good=1.0)

    records = record(loop.model, body, tmp_path / "run.jsonl")
    notes = [n.message for n in of(records, Note)]
    assert notes == ["'message' is not a number or a tensor of numbers and was not logged"]
    assert all(s.metrics == {"good": 1.0} for s in steps_of(records))


def test_several_watchers_live_side_by_side(tmp_path) -> None:
    first, second = Loop(), Loop()
    with (
        Watcher(first.model, tmp_path / "a.jsonl", config=QUIET) as one,
        Watcher(second.model, tmp_path / "b.jsonl", config=QUIET) as two,
    ):
        for _ in range(5):
            first(one)
        for _ in range(3):
            second(two)
    assert read_run(one.path).end.steps == 5
    assert read_run(two.path).end.steps == 3


def test_nested_with_of_one_watcher_is_one_run(tmp_path) -> None:
    loop = Loop()
    watch = Watcher(loop.model, tmp_path / "run.jsonl", config=QUIET)
    with watch, watch:
        loop(watch)
    assert read_run(watch.path).end.steps == 1
    with pytest.raises(WatcherClosed, match="make a new Watcher"), watch:
        pass


def test_an_abandoned_watcher_ends_its_run(tmp_path) -> None:
    loop = Loop()
    watch = Watcher(loop.model, tmp_path / "run.jsonl", config=QUIET).__enter__()
    loop(watch)
    gc.disable()
    try:
        del watch
    finally:
        gc.enable()
    end = list(read_records(tmp_path / "run.jsonl"))[-1]
    assert (end.status, end.steps) == ("interrupted", 1)


def test_misuse_is_one_clear_sentence(tmp_path) -> None:
    loop = Loop()
    with pytest.raises(ModelError, match=r"watches a torch.nn.Module, not int"):
        Watcher(3)
    with pytest.raises(ConfigError, match="did you mean 'overfitting'"):
        Watcher(loop.model, ignore=["overfiting"])
    with pytest.raises(ConfigError, match="stop_on must be"):
        Watcher(loop.model, stop_on="warning")
    with pytest.raises(ConfigError, match="budget must be a share"):
        Watcher(loop.model, budget=2)
    watch = Watcher(loop.model, tmp_path / "run.jsonl", config=QUIET)
    for use in (lambda: watch.log(a=1), watch.step, watch.epoch, lambda: watch.batches([])):
        with pytest.raises(WatcherClosed, match="not open yet"):
            use()
    with watch:
        with pytest.raises(RunBusy), Watcher(loop.model, tmp_path / "run.jsonl", config=QUIET):
            pass
        loop(watch)
    for use in (lambda: watch.log(a=1), watch.step, watch.epoch, lambda: watch.batches([])):
        with pytest.raises(WatcherClosed, match="is closed"):
            use()


def test_close_ends_the_run_once(tmp_path) -> None:
    loop = Loop()
    watch = Watcher(loop.model, tmp_path / "run.jsonl", config=QUIET).__enter__()
    loop(watch)
    watch.close()
    watch.close()
    assert read_run(watch.path).end.status == "finished"
