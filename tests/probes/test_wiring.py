"""Stale gradients: seen where zero_grad is missing, never where gradients may rightly be there."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from tests.helpers_watch import record, steps_of


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def stale(records) -> list[bool | None]:
    return [s.stale_gradients for s in steps_of(records)]


def loss_of(model: nn.Module) -> torch.Tensor:
    return model(torch.randn(6, 4)).square().mean()


def plain(model, zero, steps: int = 5, clip: bool = False, micro: int = 1):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def body(watch) -> None:
        for _ in range(steps):
            zero(optimizer)
            for _ in range(micro):
                loss_of(model).backward()
            if clip:
                clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()

    return body


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("micro", [1, 3])
def test_missing_zero_grad_is_seen(tmp_path, clip, micro) -> None:
    model = mlp()
    body = plain(model, lambda optimizer: None, clip=clip, micro=micro)
    assert stale(record(model, body, tmp_path / "r.jsonl")) == [None, True, True, True, True]


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("micro", [1, 3])
@pytest.mark.parametrize("set_to_none", [False, True])
def test_zeroing_is_seen(tmp_path, clip, micro, set_to_none) -> None:
    model = mlp()
    body = plain(model, lambda o: o.zero_grad(set_to_none=set_to_none), clip=clip, micro=micro)
    assert stale(record(model, body, tmp_path / "r.jsonl")) == [None, False, False, False, False]


def test_zeroing_right_after_the_step(tmp_path) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def body(watch) -> None:
        for _ in range(4):
            loss_of(model).backward()
            optimizer.step()
            for parameter in model.parameters():
                parameter.grad.mul_(0)

    assert stale(record(model, body, tmp_path / "r.jsonl")) == [None, False, False, False]


def test_a_gan_is_not_stale(tmp_path) -> None:
    """The generator's loss runs through the discriminator and meets its old gradients there."""
    generator, critic = mlp(), nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
    both = nn.ModuleDict({"generator": generator, "critic": critic})
    first = torch.optim.SGD(critic.parameters(), lr=0.01)
    second = torch.optim.SGD(generator.parameters(), lr=0.01)

    def body(watch) -> None:
        for _ in range(5):
            fake = generator(torch.randn(6, 4))
            first.zero_grad()
            critic(torch.randn(6, 2)).mean().backward()
            critic(fake.detach()).mean().neg().backward()
            first.step()
            second.zero_grad()
            critic(fake).mean().backward()
            second.step()

    records = record(both, body, tmp_path / "r.jsonl")
    assert len(steps_of(records)) == 5
    assert not any(stale(records))


def test_parameters_that_no_optimizer_zeroes_do_not_count(tmp_path) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.01)

    def body(watch) -> None:
        for _ in range(4):
            optimizer.zero_grad()
            loss_of(model).backward()  # model[0]'s gradients pile up, and nobody uses them
            optimizer.step()

    assert stale(record(model, body, tmp_path / "r.jsonl")) == [None, False, False, False]
