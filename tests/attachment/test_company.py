"""Optimizers of other models beside the watched one."""

from __future__ import annotations

import torch
from torch import nn

from tests.helpers_watch import record
from torchwatch.attachment.company import Company
from torchwatch.records import Layout


def turns(*numbers: int) -> list[bool]:
    company = Company()
    return [company.stepped("Adam", n) for n in numbers]


def test_company_are_three_turns_and_said_once() -> None:
    assert turns(0, 1, 2, 3, 4) == [False, False, True, False, False]
    assert turns(5, 10, 15) == [False, False, True]


def test_many_steps_in_one_turn_are_no_company() -> None:
    assert not any(turns(*[7] * 50))


def test_near_miss_a_probe_fitted_now_and_then_is_no_company() -> None:
    assert not any(turns(100, 121, 142, 163, 184))


def test_each_class_is_named() -> None:
    company = Company()
    assert [company.stepped(k, n) for n in range(3) for k in ("SGD", "Adam")][-2:] == [True, True]
    assert company.types == ["SGD", "Adam"]


def last_layout(every: int, tmp_path) -> Layout:
    """Of a watched generator whose critic, unseen by the watcher, steps at every n-th step of it."""
    generator, critic = nn.Linear(4, 3), nn.Linear(3, 1)
    mine, other = (torch.optim.SGD(m.parameters(), lr=0.01) for m in (generator, critic))

    def body(watch) -> None:
        for number in range(45):
            if number % every == 0:
                other.zero_grad()
                critic(generator(torch.randn(5, 4)).detach()).mean().backward()
                other.step()
            mine.zero_grad()
            loss = -critic(generator(torch.randn(5, 4))).mean()
            loss.backward()
            mine.step()
            watch.log(loss=loss)

    records = record(generator, body, tmp_path / "run.jsonl")
    assert not any(getattr(r, "foreign_optimizer", None) for r in records)
    return [r for r in records if isinstance(r, Layout)][-1]


def test_the_critic_of_a_watched_generator_is_in_the_layout(tmp_path) -> None:
    layout = last_layout(1, tmp_path)
    assert (len(layout.optimizers), layout.other_optimizers) == (1, ["SGD"])
    assert layout.several_optimizers


def test_near_miss_another_model_is_stepped_twice(tmp_path) -> None:
    layout = last_layout(22, tmp_path)
    assert layout.other_optimizers == []
    assert not layout.several_optimizers
