"""Stale gradients are seen where zero_grad is missing, never where they may rightly be there; and the map.

Longer than other files: a flat list of cases.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import clip_grad_norm_

from tests.helpers_watch import EVERY_STEP, record, steps_of
from torchwatch import WatchConfig
from torchwatch.probes.wiring.ledger import Ledger

SUMMED = WatchConfig(activations_every=10_000, dense_steps=0, sentinel=True, budget=None, terminal=False)


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


# ------------------------------------------------------------------------------------------- the map


def maps(records) -> list[dict | None]:
    return [s.wiring for s in steps_of(records)]


def in_force(records) -> list[dict]:
    """The map that holds at each step."""
    held, current = [], {}
    for found in maps(records):
        current = current if found is None else found
        held.append(current)
    return held


class Modal(nn.Module):
    """Dropout, batch norm and linear layers."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.drop = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(p)
        self.last = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.drop(torch.relu(self.norm(self.first(x)))))


def training(model, steps: int = 4, before=lambda step: None, batch: int = 6, after=lambda watch, step: None):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)

    def body(watch) -> None:
        for step in range(1, steps + 1):
            before(step)
            optimizer.zero_grad()
            model(torch.randn(batch, 4)).square().mean().backward()
            optimizer.step()
            after(watch, step)

    return body


def test_a_healthy_model_is_said_once(tmp_path) -> None:
    model = Modal()
    assert maps(record(model, training(model), tmp_path / "r.jsonl")) == [
        {"training": True},
        None,
        None,
        None,
    ]


def test_modules_in_evaluation_mode_while_training(tmp_path) -> None:
    model = Modal()

    def before(step: int) -> None:
        if step == 2:
            model.norm.eval()
        if step == 3:
            model.eval()

    held = in_force(record(model, training(model, before=before), tmp_path / "r.jsonl"))
    assert held[0] == {"training": True}
    assert held[1] == {"training": True, "eval_layers": [1]}
    assert held[2] == {"training": False, "eval_layers": [1, 2]}


def test_dropout_that_drops_nothing_has_no_mode(tmp_path) -> None:
    model = Modal(p=0.0)
    model.drop.eval()
    held = in_force(record(model, training(model), tmp_path / "r.jsonl"))
    assert held[-1] == {"training": True}


@pytest.mark.parametrize("training_mode", [True, False])
@pytest.mark.parametrize("config", [EVERY_STEP, SUMMED])
def test_dropout_in_an_evaluation(tmp_path, training_mode, config) -> None:
    model = Modal()

    def after(watch, step: int) -> None:
        if step != 2:
            return
        model.train(training_mode)
        with torch.no_grad():
            model(torch.randn(6, 4))
        model.train()
        watch.log(val_loss=1.0)

    body = training(model, after=after)
    records = record(model, body, tmp_path / "r.jsonl", config=config)
    said = [None if m is None else m.get("evaluation_dropout") for m in maps(records)]
    assert training_mode in said
    assert (not training_mode) not in said
    assert said.index(training_mode) in (1, 2)


def test_small_batch_norms(tmp_path) -> None:
    model = Modal()
    held = in_force(record(model, training(model, batch=3), tmp_path / "r.jsonl"))
    assert held[-1] == {"training": True, "small_batch_norms": [1], "small_batch_values": [3]}

    images = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten())
    optimizer = torch.optim.SGD(images.parameters(), lr=0.01)

    def body(watch) -> None:
        for side in (3, 4):  # one value per channel and sample, then four
            optimizer.zero_grad()
            images(torch.randn(2, 1, side, side)).square().mean().backward()
            optimizer.step()

    held = in_force(record(images, body, tmp_path / "i.jsonl"))
    assert held[0]["small_batch_values"] == [2]
    assert held[1] == {"training": True}


def test_gradients_that_are_missing_or_zero(tmp_path) -> None:
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.used, self.unused, self.silent = nn.Linear(4, 2), nn.Linear(4, 2), nn.Linear(4, 2)
            self.scale = 1.0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x) + self.scale * self.silent(x)

    model = Forked()

    def before(step: int) -> None:
        model.scale = 0.0 if step in (3, 4) else 1.0

    held = in_force(record(model, training(model, 5, before), tmp_path / "r.jsonl"))
    assert held[0] == {"training": True, "no_gradient": [2, 3], "no_gradient_since": [1, 1]}
    assert held[3] == {
        "training": True,
        "no_gradient": [2, 3],
        "no_gradient_since": [1, 1],
        "zero_gradient": [4, 5],
        "zero_gradient_since": [3, 3],
    }
    assert held[4] == held[0]


def test_frozen_parameters_are_not_missing_a_gradient(tmp_path) -> None:
    model = Modal()
    model.first.requires_grad_(requires_grad=False)
    assert in_force(record(model, training(model), tmp_path / "r.jsonl"))[-1] == {"training": True}


def test_parameters_that_do_not_change_in_spite_of_gradients(tmp_path) -> None:
    model = Modal()
    groups = [
        {"params": model.first.parameters(), "lr": 0.0},
        {"params": [*model.norm.parameters(), *model.last.parameters()]},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.01)

    def body(watch) -> None:
        for step in range(1, 6):
            optimizer.param_groups[0]["lr"] = 0.0 if step in (2, 3) else 0.01
            optimizer.zero_grad()
            model(torch.randn(6, 4)).square().sum().backward()
            optimizer.step()

    held = in_force(record(model, body, tmp_path / "r.jsonl"))
    assert held[0] == held[4] == {"training": True}
    assert held[2] == {
        "training": True,
        "unchanged": [0],
        "unchanged_since": [2],
    }  # [1] is a bias before a batch norm


def test_frozen_parameters_that_change(tmp_path) -> None:
    model = Modal()
    shared = nn.Parameter(model.last.weight.data)  # the same memory, another tensor
    optimizer = torch.optim.SGD([*model.first.parameters(), shared], lr=0.01, momentum=0.9)
    model.last.requires_grad_(requires_grad=False)

    def body(watch) -> None:
        for step in range(1, 6):
            optimizer.zero_grad(set_to_none=False)
            model.first.weight.requires_grad_(step != 3)
            model(torch.randn(6, 4)).square().mean().backward()
            if step == 4:
                shared.grad = torch.ones_like(shared)
            optimizer.step()
            if step == 4:
                shared.grad = None
            with torch.no_grad():
                model.last.bias += 1.0  # outside of the step: a teacher's moving average does so

    held = in_force(record(model, body, tmp_path / "r.jsonl"))
    assert [m.get("frozen_changed") for m in held] == [None, None, [0], [4], None]


def test_long_lists_are_cut_and_that_is_said(tmp_path) -> None:
    model = nn.ModuleList([nn.Linear(2, 2) for _ in range(40)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def body(watch) -> None:
        for _ in range(2):
            optimizer.zero_grad()
            model[0](torch.randn(3, 2)).sum().backward()
            optimizer.step()

    found = in_force(record(model, body, tmp_path / "r.jsonl"))[-1]
    assert found["no_gradient"] == list(range(2, 66))
    assert found["no_gradient_since"] == [1] * 64
    assert found["more"] == {"no_gradient": 14}


def test_another_model_starts_anew(tmp_path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def body(watch) -> None:
        for step in range(1, 6):
            if step == 3:
                model.insert(0, nn.Linear(4, 4))
            optimizer.zero_grad()
            model(torch.randn(3, 4)).sum().backward()
            if step < 3:
                model[0].weight.grad = None
            optimizer.step()

    found = maps(record(model, body, tmp_path / "r.jsonl"))
    assert found[0] == {"training": True, "no_gradient": [0], "no_gradient_since": [1]}
    assert [m for m in found[2:] if m] == [{"training": True}]


def test_a_step_that_a_scaler_skipped_changes_nothing_rightly(tmp_path) -> None:
    model = Modal()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)

    def body(watch) -> None:
        for step in range(1, 4):
            optimizer.zero_grad()
            scaler.scale(model(torch.randn(6, 4)).square().mean()).backward()
            if step == 2:
                model.last.bias.grad[0] = float("inf")
            scaler.step(optimizer)
            scaler.update()

    assert all("unchanged" not in m for m in in_force(record(model, body, tmp_path / "r.jsonl")))


def test_two_optimizers_look_at_their_own(tmp_path) -> None:
    generator, critic = mlp(), nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
    both = nn.ModuleDict({"generator": generator, "critic": critic})
    first = torch.optim.SGD(critic.parameters(), lr=0.01)
    second = torch.optim.SGD(generator.parameters(), lr=0.01)

    def body(watch) -> None:
        for _ in range(4):
            first.zero_grad()
            critic(generator(torch.randn(6, 4)).detach()).mean().backward()
            first.step()
            second.zero_grad()
            critic(generator(torch.randn(6, 4))).mean().backward()
            second.step()

    for found in in_force(record(both, body, tmp_path / "r.jsonl")):
        assert found in ({}, {"training": True})


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sets(st.integers(0, 5)), st.sets(st.integers(0, 5))), max_size=20))
def test_the_ledger_knows_since_when(observations) -> None:
    ledger, since = Ledger(), {}
    for step, (looked, those) in enumerate(observations, 1):
        found = those & looked
        ledger.observe("key", step, looked, found)
        since = {i: s for i, s in since.items() if i not in looked or i in found}
        since |= {i: step for i in found if i not in since}
        state = ledger.changed()
        if state is not None:
            assert dict(zip(state.get("key", []), state.get("key_since", []), strict=True)) == since
        assert ledger.changed() is None
