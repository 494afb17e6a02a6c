"""frozen-changed: frozen parameters that the optimizer moves."""

import dataclasses

import pytest
import torch
from torch import nn

from tests.checks.wiring.trainings import Fit, alerts, batch, entropy, loud, net, opened, said, sgd
from tests.helpers_checks import assert_fires, assert_quiet, layout, records, run_check

SLUG = "frozen-changed"


def shape(free=(), trainable=(0, 2)):
    """Three weights; those of ``free`` are in no optimizer."""
    base = layout()
    parameters = [
        dataclasses.replace(p, trainable=i in trainable, optimizer=None if i in free else 0)
        for i, p in enumerate(base.parameters)
    ]
    return dataclasses.replace(base, parameters=parameters)


def changed(*indices, first=20, last=60, norms=0.0, **more):
    """A run in whose sampled steps from ``first`` to ``last`` these parameters change."""
    maps = {1: {"training": True}, first: {"frozen_changed": list(indices)}, last + 1: {"training": True}}
    kept = {"layers": shape(), "columns": {"grad_norms": norms, "weight_norms": 1.0}} | more
    return records(steps=60, wiring=maps.get, **kept)


def test_fires_at_once_where_the_gradient_is_zero_or_missing():
    alert = assert_fires(SLUG, changed(1), severity="warning", layer="1", since=(20, 20), by=20)
    assert "1.weight" in alert.detail
    assert_fires(SLUG, changed(1, norms=[0.3, None, 0.3]), layer="1", by=20)


def test_fires_where_the_last_gradient_is_used_again_and_again():
    assert_fires(SLUG, changed(1, norms=0.25), layer="1", since=(20, 20), by=21)


def test_near_miss_gradients_that_change_are_meant():
    norms = [[0.3, 0.2 + 0.001 * i, 0.1] for i in range(1, 61)]
    assert_quiet(SLUG, changed(1, norms=norms))
    assert_fires(SLUG, changed(1, norms=norms), limits={"looks": 0})


def test_near_miss_a_single_look_at_a_gradient():
    assert_quiet(SLUG, changed(1, norms=0.25, last=20))


def test_what_no_optimizer_holds_is_only_noted():
    run = changed(1, layers=shape(free=(1,)))
    assert_fires(SLUG, run, severity="info", layer=None, by=21)
    assert_quiet(SLUG, run, allow_info=True)


def test_quiet_where_nothing_frozen_changes():
    maps = {1: {"training": True}}
    assert_quiet(SLUG, records(steps=60, wiring=maps.get, layers=shape()))


def test_near_miss_an_optimizer_without_anything_trainable():
    assert_quiet(SLUG, changed(1, layers=shape(trainable=())))


def test_limit_of_parameters():
    assert_quiet(SLUG, changed(1), limits={"parameters": 2})


def test_resolved_when_it_stops():
    _, found = run_check(SLUG, changed(1, last=30))
    assert [a.state for a in found] == ["opened", "resolved"]


# ------------------------------------------------------------------------------------------ real trainings


def frozen_at(step, optimizer, model):
    """A loop that keeps gradients as zeros and freezes the first layer at a step."""
    clear = optimizer.zero_grad
    optimizer.zero_grad = lambda: clear(set_to_none=False)
    return Fit(model, optimizer, before=lambda n: model[0].requires_grad_(n < step))


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_weight_decay_and_momentum_go_on(tmp_path, kind):
    model = net()
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    body = frozen_at(5, kind(model.parameters(), lr=0.01, weight_decay=0.1, **options), model)
    alert = opened(alerts(tmp_path / "r.jsonl", model, body), SLUG)
    assert (alert.severity, alert.layer, alert.since_step, alert.step) == ("warning", "0", 5, 5)


def test_quiet_on_its_twin(tmp_path):
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    body = Fit(model, optimizer, before=lambda n: model[0].requires_grad_(n < 5))
    assert loud(alerts(tmp_path / "r.jsonl", model, body)) == []


class Taught(nn.Module):
    """A student and its teacher, a moving average."""

    def __init__(self):
        super().__init__()
        self.student, self.teacher = net(), net().requires_grad_(requires_grad=False)

    def forward(self, x):
        return self.student(x)

    @torch.no_grad()
    def follow(self):
        for mine, theirs in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            mine.lerp_(theirs, 0.01)


def test_a_teacher_copied_outside_or_in_a_hook_is_no_warning(tmp_path):
    model = Taught()
    body = Fit(model, sgd(model.student), after=lambda *_: model.follow())
    assert said(alerts(tmp_path / "a.jsonl", model, body), SLUG) == []

    model = Taught()
    optimizer = sgd(model.student)
    optimizer.register_step_post_hook(lambda *_: model.follow())
    found = alerts(tmp_path / "b.jsonl", model, Fit(model, optimizer))
    assert loud(found) == []
    assert {a.severity for a in found if a.check == SLUG} <= {"info"}


def test_a_critic_frozen_while_the_generator_learns_is_no_warning(tmp_path):
    """It is still frozen when its own optimizer uses the gradients from before."""
    generator, critic = net(), nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    both = nn.ModuleDict({"generator": generator, "critic": critic})
    of_generator, of_critic = sgd(generator), sgd(critic, momentum=0.9)

    def body(watch):
        for _ in range(40):
            x, _ = batch()
            fake = generator(x)
            of_critic.zero_grad()
            (critic(fake.detach()).mean() - critic(x[:, 4:]).mean()).tanh().backward()
            critic.requires_grad_(requires_grad=False)
            of_generator.zero_grad()
            critic(fake).mean().neg().backward()
            of_critic.step()
            of_generator.step()
            critic.requires_grad_(requires_grad=True)

    assert loud(alerts(tmp_path / "r.jsonl", both, body)) == []


def test_low_rank_adapters_on_a_frozen_base_are_no_warning(tmp_path):
    class Adapted(nn.Module):
        def __init__(self):
            super().__init__()
            self.base = nn.Linear(8, 4).requires_grad_(requires_grad=False)
            self.down, self.up = nn.Linear(8, 2, bias=False), nn.Linear(2, 4, bias=False)
            nn.init.zeros_(self.up.weight)

        def forward(self, x):
            return self.base(x) + self.up(self.down(x))

    torch.manual_seed(0)
    model = Adapted()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    found = alerts(tmp_path / "r.jsonl", model, Fit(model, optimizer, loss=entropy))
    assert loud(found) == []
    assert said(found, SLUG) == []
