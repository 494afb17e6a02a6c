"""Plain steps that wait in the training thread while the loop pauses are recorded all the same, once."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from torchwatch.attachment.lane import Lane
from torchwatch.probe import Block
from torchwatch.recorder.early import EarlySteps

OPTIMIZER = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)


def a_lane(steps: int, step_s: float = 0.01, loss: object = 1.5) -> Lane:
    """Steps from number 11 on; step n ends at n times ``step_s`` after the start."""
    lane = Lane(flush_s=0.1)
    lane.enter(OPTIMIZER, 11, 1000, 0, 0.0)
    for number in range(1, steps + 1):
        lane.stepped(step_s * number)
        lane.put_at_last({"loss": loss})
        lane.watch_s += 0.001
    return lane


def test_all_steps_but_the_newest_are_taken_once_they_are_overdue() -> None:
    lane = a_lane(5)
    early = EarlySteps(lane.growing)
    assert early.take(0.4) is None
    block = early.take(0.6)
    assert block is not None
    assert (block.first, block.ends) == (11, [0.01, 0.02, 0.03, 0.04])
    assert block.values() == [1.5] * 4
    assert block.watch_s == pytest.approx(0.004)
    early.took(block)
    assert early.take(9.0) is None


def test_nothing_is_taken_for_good_before_it_is_recorded() -> None:
    early = EarlySteps(a_lane(5).growing)
    first, again = early.take(0.6), early.take(0.6)
    assert first is not None
    assert again is not None
    assert first.ends == again.ends


def test_a_single_step_waits_for_its_values() -> None:
    assert EarlySteps(a_lane(1).growing).take(100.0) is None
    assert EarlySteps(Lane(flush_s=0.1).growing).take(100.0) is None


def test_what_was_taken_is_not_recorded_again_when_the_block_arrives() -> None:
    lane = a_lane(5)
    early = EarlySteps(lane.growing)
    block = early.take(0.6)
    assert block is not None
    early.took(block)
    lane.stepped(7.0)
    handed = lane.hand_over()
    assert handed is not None
    rest = early.rest(handed)
    assert rest is not None
    assert (rest.first, rest.ends, rest.started_s, rest.rates) == (15, [0.05], 0.04, [(0, [0.5])])
    assert rest.watch_s == pytest.approx(0.001)
    left, _ = lane.leave()
    assert left is not None
    assert early.rest(left) is left


def test_a_block_of_which_nothing_is_left() -> None:
    lane = a_lane(3)
    early = EarlySteps(lane.growing)
    part = early.take(1.0)
    assert part is not None
    early.took(part)
    assert early.rest(part) is None


def test_values_on_a_device_are_left_to_the_training_thread() -> None:
    lane = a_lane(3)
    lane.put_at_last({"elsewhere": torch.zeros((), device="meta")})
    for end in (0.04, 0.05):
        lane.stepped(end)
    block = EarlySteps(lane.growing).take(1.0)
    assert block is not None
    assert block.ends == [0.01, 0.02]
    assert EarlySteps(a_lane(3, loss=torch.zeros((), device="meta")).growing).take(1.0) is None


class Host:
    """A loop in the lane, and a recorder that looks in at any time; what it should have at the end."""

    def __init__(self) -> None:
        self.optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
        self.lane, self.now, self.began = Lane(flush_s=0.1), 0.0, 0.0
        self.lane.enter(self.optimizer, 1, 10_000, 0, 0.0)
        self.early = EarlySteps(self.lane.growing, overdue_s=0.0)
        self.recorded: list[Block] = []
        self.steps: list[tuple[float, float, list[float]]] = []  # end, duration, learning rate
        self.logged: list[tuple[int, str, float]] = []

    def do(self, event: str) -> None:
        self.now += 1.0
        getattr(self, event)()

    def step(self) -> None:
        self.lane.stepped(self.now)
        self.lane.watch_s += 0.5
        self.steps.append((self.now, self.now - self.began, [self.optimizer.param_groups[0]["lr"]]))
        self.began = self.now

    def log(self) -> None:
        self.lane.put_at_last({"loss": self.now})
        self.logged.append((max(len(self.steps), 1), "loss", self.now))

    def log_ahead(self) -> None:
        self.lane.put({"ahead": self.now}, torch.zeros(1, requires_grad=True).sum() * 2)
        self.logged.append((len(self.steps) + 1, "ahead", self.now))

    def change_rate(self) -> None:
        self.optimizer.param_groups[0]["lr"] = self.now

    def restart(self) -> None:
        self.lane.restart(self.now)
        self.began = self.now

    def hand_over(self) -> None:
        self.arrives(self.lane.hand_over())

    def look_in(self) -> None:
        block = self.early.take(self.now)
        if block is not None:
            self.early.took(block)
            self.recorded.append(block)

    def arrives(self, block: Block | None) -> None:
        rest = None if block is None else self.early.rest(block)
        self.recorded += [] if rest is None else [rest]


EVENTS = ["step", "step", "log", "log_ahead", "change_rate", "restart", "hand_over", "look_in"]


@given(st.lists(st.sampled_from(EVENTS), max_size=60))
def test_however_it_is_cut_every_step_is_recorded_once_as_it_was(events: list[str]) -> None:
    host = Host()
    for event in events:
        host.do(event)
    block, ahead = host.lane.leave()
    host.arrives(block)
    recorded = host.recorded
    assert [end for b in recorded for end in b.ends] == [end for end, _, _ in host.steps]
    assert [took for b in recorded for took in b.durations()] == [took for _, took, _ in host.steps]
    found = [(b.first + place, name, value) for b in recorded for place, name, value in b.logged]
    if block is not None:
        assert sorted(found + [(len(host.steps) + 1, *entry) for entry in ahead]) == sorted(host.logged)
    for b in recorded:
        for place in range(len(b.ends)):
            rates = [rate for at, rate in b.rates if at <= place][-1]
            assert rates == host.steps[b.first + place - 1][2]
    assert sum(b.watch_s for b in recorded) == pytest.approx(0.5 * len(host.steps))
