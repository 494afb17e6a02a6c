"""Steps in which nothing is measured: counted, timed and logged all the same, and nothing else."""

from __future__ import annotations

import itertools
import math
import threading

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.helpers_replay import assert_live_equals_replay
from tests.helpers_replay import steps_in as every_step
from torchwatch import WatchConfig, Watcher
from torchwatch.attachment.lane import Lane
from torchwatch.attachment.steps import StepBuilder
from torchwatch.guard import Guard
from torchwatch.probe import Block, Frame
from torchwatch.probes.loss import LossProbe
from torchwatch.records import Eval, Step
from torchwatch.runfile import read_records
from torchwatch.schedule import unmeasured

RARELY = {"terminal": False, "activations_every": 50, "gradients_every": 25, "dense_steps": 3}


def train(path, steps: int, *, before: bool = False, each=None, **options) -> list[float]:
    """A small loop; returns its losses as the host knows them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(16, 4), torch.randint(0, 3, (16,))
    losses = []
    with Watcher(model, path, config=WatchConfig(**(RARELY | options))) as watch:
        for number in range(1, steps + 1):
            loss = functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            if before:
                watch.log(loss=loss)
            optimizer.step()
            if not before:
                watch.log(loss=loss)
            losses.append(loss.item())
            if each is not None:
                each(watch, optimizer, number)
    return losses


def steps_in(path) -> list[Step]:
    return every_step(list(read_records(path)))


@pytest.mark.parametrize("before", [True, False])
def test_every_step_is_there_with_its_own_loss(tmp_path, before: bool) -> None:
    path = tmp_path / "run.jsonl"
    losses = train(path, 203, before=before)
    steps = steps_in(path)
    assert [s.step for s in steps] == list(range(1, 204))
    assert [s.loss for s in steps] == pytest.approx(losses, rel=1e-6)
    measured = {1, 2, 3, *range(26, 204, 25), 50, 100, 150, 200}
    assert {s.step for s in steps if s.grad_norm is not None} == measured
    assert all(s.lr == [0.1] for s in steps)
    assert all(a.time_s <= b.time_s for a, b in itertools.pairwise(steps))
    assert_live_equals_replay(path)


def test_a_schedule_of_the_learning_rate_is_followed(tmp_path) -> None:
    def halve(watch: Watcher, optimizer: torch.optim.Optimizer, number: int) -> None:
        optimizer.param_groups[0]["lr"] = 0.1 / (1 + number)

    train(tmp_path / "run.jsonl", 60, each=halve)
    rates = [s.lr[0] for s in steps_in(tmp_path / "run.jsonl")]
    assert rates == pytest.approx([0.1, *(0.1 / (1 + n) for n in range(1, 60))], rel=1e-6)


def test_epochs_and_evaluations_end_the_lane_and_it_begins_again(tmp_path) -> None:
    def epochs(watch: Watcher, optimizer: torch.optim.Optimizer, number: int) -> None:
        if number % 17 == 0:
            watch.log(val_loss=1.0)
            watch.epoch()

    losses = train(tmp_path / "run.jsonl", 100, each=epochs)
    steps = steps_in(tmp_path / "run.jsonl")
    assert [s.epoch for s in steps] == [(n - 1) // 17 for n in range(1, 101)]
    assert [s.loss for s in steps] == pytest.approx(losses, rel=1e-6)


@pytest.mark.parametrize("options", [{}, {"gradients_every": 1, "activations_every": 1}])
@pytest.mark.parametrize("often", [1, 7])
def test_a_loss_logged_after_an_evaluation_stays_with_its_step(tmp_path, options, often: int) -> None:
    path = tmp_path / "run.jsonl"
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    with Watcher(model, path, config=WatchConfig(**(RARELY | options))) as watch:
        for number in range(1, 61):
            loss = model(torch.randn(8, 4)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if number % often == 0:
                with torch.no_grad():
                    watch.log(val_loss=model(torch.ones(8, 4)).sum(), val_number=number)
            watch.log(loss=loss)
            losses.append(loss.item())
    steps = steps_in(path)
    assert [s.step for s in steps] == list(range(1, 61))
    assert [s.loss for s in steps] == pytest.approx(losses, rel=1e-6)
    records = assert_live_equals_replay(path)
    evals = [r for r in records if isinstance(r, Eval)]
    assert [e.step for e in evals] == list(range(often, 61, often))
    assert [e.metrics["val_number"] for e in evals] == [e.step for e in evals]


def test_an_evaluation_is_no_part_of_the_step_after_it() -> None:
    clock = [0.0]
    emitted: list[Block | Frame] = []
    steps = StepBuilder(unmeasured, LossProbe(), (), Guard(lambda *_: None), emitted.append, lambda: clock[0])
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    steps.enter_lane(optimizer, 1000)
    for at in (1.0, 2.0):
        clock[0] = at
        steps.lane.stepped(at)
    clock[0] = 60.0
    assert steps.close_if_told() == 2
    steps.restart_clock()
    steps.log({"loss": 5.0}, None)
    clock[0] = 61.0
    steps.lane.stepped(61.0)
    steps.close()
    blocks = [b for b in emitted if isinstance(b, Block)]
    assert [(b.first, b.durations()) for b in blocks] == [(1, [1.0]), (2, [1.0, 1.0])]
    assert blocks[1].logged == [(0, "loss", 5.0)]


def test_metrics_and_values_that_are_no_plain_scalars_find_their_step(tmp_path) -> None:
    def more(watch: Watcher, optimizer: torch.optim.Optimizer, number: int) -> None:
        watch.log(number=number, pair=torch.tensor([number, number + 2.0]))

    train(tmp_path / "run.jsonl", 40, each=more)
    for step in steps_in(tmp_path / "run.jsonl"):
        assert step.metrics == {"number": step.step, "pair": step.step + 1}


def test_a_loader_tells_samples_and_waiting(tmp_path) -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = [(torch.randn(5 + n % 2, 4), torch.zeros(5 + n % 2, dtype=torch.long)) for n in range(60)]
    with Watcher(model, tmp_path / "run.jsonl", config=WatchConfig(**RARELY)) as watch:
        for x, y in watch.batches(data):
            loss = functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.log(loss=loss)
    steps = steps_in(tmp_path / "run.jsonl")
    assert [s.samples for s in steps] == [5 + n % 2 for n in range(60)]
    assert all(s.wait_time_s is not None for s in steps)


def test_a_nan_is_an_alert_in_the_lane_as_well(tmp_path) -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Watcher(model, tmp_path / "run.jsonl", config=WatchConfig(**RARELY)) as watch:
        for number in range(1, 41):
            loss = model(torch.randn(8, 4)).square().mean() * (math.nan if number == 20 else 1.0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.log(loss=loss)
    found = [a for a in watch.alerts if a.check == "loss-nonfinite" and a.state == "opened"]
    assert [a.since_step for a in found] == [20]
    assert_live_equals_replay(tmp_path / "run.jsonl")


def test_a_second_optimizer_ends_the_lane(tmp_path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    first = torch.optim.SGD(model[0].parameters(), lr=0.1)
    second = torch.optim.SGD(model[2].parameters(), lr=0.1)
    with Watcher(model, tmp_path / "run.jsonl", config=WatchConfig(**RARELY)) as watch:
        for number in range(1, 41):
            loss = model(torch.randn(8, 4)).square().mean()
            model.zero_grad()
            loss.backward()
            first.step()
            if number > 20:
                second.step()
            watch.log(loss=loss)
    assert [s.step for s in steps_in(tmp_path / "run.jsonl")] == list(range(1, 41))


def test_a_named_boundary_ends_lanes_for_good(tmp_path) -> None:
    def boundary(watch: Watcher, optimizer: torch.optim.Optimizer, number: int) -> None:
        watch.step(samples=16)

    train(tmp_path / "run.jsonl", 40, each=boundary)
    steps = steps_in(tmp_path / "run.jsonl")
    assert [s.step for s in steps] == list(range(1, 41))
    assert all(s.samples == 16 for s in steps)


# ---------------------------------------------------------------------- the lane and the block themselves


def test_the_newest_step_stays_when_a_block_is_handed_over() -> None:
    lane = Lane(flush_s=0.1)  # four times that
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    lane.enter(optimizer, 11, 1000, 0, 1.0)
    for number in range(1, 5):
        assert lane.stepped(1.0 + 0.11 * number) == (number == 4)
        lane.put_at_last({"loss": float(number)})
        assert not lane.ended
    block = lane.hand_over()
    assert block is not None
    assert (block.first, len(block.ends), block.values()) == (11, 3, [1.0, 2.0, 3.0])
    lane.put_at_last({"late": 7.0})
    rest, ahead = lane.leave()
    assert rest is not None
    assert not ahead
    assert (rest.first, rest.started_s, len(rest.ends)) == (14, block.ends[-1], 1)
    assert [(at, name, value) for at, name, value in rest.logged] == [(0, "loss", 4.0), (0, "late", 7.0)]
    assert rest.rates == [(0, [0.5])]


def watched(lane: Lane, took: list[float]) -> float:
    """What the lane tells of a block in which our calls took that long."""
    for seconds in took:
        lane.stepped(0.0)
        lane.watch_s += seconds if seconds < lane.longest_s else lane.waited()
    block = lane.hand_over()
    assert block is not None
    return block.watch_s


def test_waiting_for_the_recorder_is_no_watching_of_its_own() -> None:
    lane = Lane(flush_s=0.1)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    lane.enter(optimizer, 1, 100_000, 0, 0.0)
    usual = [1e-5] * 99
    for _ in range(5):
        assert watched(lane, [*usual, 5e-3]) == pytest.approx(100e-5, rel=0.06)


def test_calls_that_do_take_long_are_soon_believed() -> None:
    lane = Lane(flush_s=0.1)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    lane.enter(optimizer, 1, 100_000, 0, 0.0)
    watched(lane, [1e-5] * 100)
    watched(lane, [1e-3] * 100)
    assert watched(lane, [1e-3] * 100) == pytest.approx(0.1)


def test_the_step_before_the_due_one_ends_the_lane() -> None:
    lane = Lane(flush_s=0.1)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    lane.enter(optimizer, 5, 8, 0, 0.0)
    assert [(lane.stepped(t), lane.ended) for t in (0.1, 0.2, 0.3)] == [(False, False)] * 2 + [(True, True)]
    assert lane.last == 7


def test_a_block_reads_mixed_values() -> None:
    block = Block(1, 0, 0.0)
    block.logged = [
        (0, "a", torch.tensor(1.5)),
        (0, "b", 2),
        (1, "a", torch.tensor(2.5, dtype=torch.float64)),
    ]
    assert block.values() == [1.5, 2.0, 2.5]
    block.logged = [(0, "a", torch.tensor(1.5)), (1, "a", torch.tensor(math.inf))]
    assert block.values() == [1.5, math.inf]


def test_a_boundary_that_the_loop_names_has_its_samples(tmp_path) -> None:
    def confirm(watch: Watcher, optimizer: torch.optim.Optimizer, number: int) -> None:
        if number == 20:
            watch.step(samples=16)

    train(tmp_path / "run.jsonl", 40, each=confirm)
    steps = steps_in(tmp_path / "run.jsonl")
    assert [s.step for s in steps] == list(range(1, 41))
    assert steps[19].samples == 16


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("pair", lambda: torch.tensor([1.0, 3.0]), 2.0),
        ("huge", lambda: 10**400, math.inf),
        ("lot", lambda: torch.ones(2, 3, dtype=torch.int64), 1.0),
    ],
)
def test_a_value_of_another_shape_or_size_costs_no_step(tmp_path, name, value, expected) -> None:
    def log(watch: Watcher, optimizer: torch.optim.Optimizer, number: int) -> None:
        watch.log(**{name: value()})

    losses = train(tmp_path / "run.jsonl", 120, each=log)
    steps = steps_in(tmp_path / "run.jsonl")
    assert [s.step for s in steps] == list(range(1, 121))
    assert [s.loss for s in steps] == pytest.approx(losses, rel=1e-6)
    assert {s.metrics[name] for s in steps} == {expected}


class Wrapping(torch.optim.Optimizer):
    """Steps another optimizer, as Lookahead and ZeRO do."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        super().__init__(inner.param_groups, {})
        self.inner = inner

    def step(self, closure=None):
        return self.inner.step(closure)


def test_an_optimizer_around_another_loses_no_step(tmp_path) -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    optimizer = Wrapping(torch.optim.SGD(model.parameters(), lr=0.1))
    x, y = torch.randn(16, 4), torch.randint(0, 3, (16,))
    with Watcher(model, tmp_path / "run.jsonl", config=WatchConfig(**RARELY)) as watch:
        for _ in range(150):
            loss = functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.log(loss=loss)
    assert [s.step for s in steps_in(tmp_path / "run.jsonl")] == list(range(1, 151))


def test_another_model_that_steps_in_the_middle_loses_no_step(tmp_path) -> None:
    other = nn.Linear(2, 1)
    foreign = torch.optim.SGD(other.parameters(), lr=0.1)
    other(torch.ones(1, 2)).sum().backward()

    def step_of_another_thread(*_) -> None:
        thread = threading.Thread(target=foreign.step)
        thread.start()
        thread.join()

    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.register_step_pre_hook(step_of_another_thread)
    x, y = torch.randn(16, 4), torch.randint(0, 3, (16,))
    losses = []
    with Watcher(model, tmp_path / "run.jsonl", config=WatchConfig(**RARELY)) as watch:
        for _ in range(150):
            loss = functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.log(loss=loss)
            losses.append(loss.item())
    steps = steps_in(tmp_path / "run.jsonl")
    assert [s.loss for s in steps] == pytest.approx(losses, rel=1e-6)


def test_groups_that_were_replaced_have_their_rates(tmp_path) -> None:
    def replace(watch: Watcher, optimizer: torch.optim.Optimizer, number: int) -> None:
        if number == 60:
            state = optimizer.state_dict()
            state["param_groups"][0]["lr"] = 0.05
            optimizer.load_state_dict(state)

    train(tmp_path / "run.jsonl", 70, each=replace)
    rates = [s.lr[0] for s in steps_in(tmp_path / "run.jsonl")]
    assert rates == [0.1] * 60 + [0.05] * 10
