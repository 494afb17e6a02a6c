"""Loops of unusual shape that are right as they are: no check of the wiring warns about them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.checks.wiring.trainings import EVERY, SINGLE, Fit, alerts, batch, entropy, loud, net, sgd
from torchwatch.check import Category, all_checks

STEPS = 36
WIRING = {slug for slug, check in all_checks().items() if check.category is Category.WIRING}


def gan(critics=1, whole=True):
    """Two optimizers; the generator's loss reaches the critic's old gradients."""
    generator, critic = (
        net(),
        nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(), nn.Dropout(0.2), nn.Linear(8, 1)),
    )
    of_generator, of_critic = (torch.optim.Adam(m.parameters(), lr=1e-3) for m in (generator, critic))
    judge = functional.binary_cross_entropy_with_logits

    def body(watch):
        for _ in range(STEPS):
            x, _ = batch()
            for _ in range(critics):
                with torch.no_grad():
                    fake = generator(x)
                of_critic.zero_grad()
                wrong = judge(critic(fake), torch.zeros(32, 1))
                loss_c = judge(critic(torch.randn(32, 4)), torch.ones(32, 1)) + wrong
                loss_c.backward()
                of_critic.step()
            of_generator.zero_grad()
            loss = judge(critic(generator(x)), torch.ones(32, 1))
            loss.backward()
            of_generator.step()
            watch.log(loss=loss, loss_c=loss_c)

    both = nn.ModuleDict({"generator": generator, "critic": critic})
    return (both if whole else generator), body


def three_critic_steps():
    return gan(critics=3)


def only_the_generator_is_watched():
    return gan(whole=False)


def accumulation():
    """Four backward passes per step, cleared after it, and clipped."""
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def body(watch):
        for i in range(1, 4 * STEPS + 1):
            loss = entropy(model, *batch()) / 4
            loss.backward()
            watch.log(loss=loss)
            if i % 4 == 0:
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=i % 8 == 0)

    return model, body


def line_search():
    """LBFGS: its closure runs the same batch several times."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4))
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4, line_search_fn="strong_wolfe")
    x, y = batch(64)

    def body(watch):
        for _ in range(STEPS):

            def closure():
                optimizer.zero_grad()
                loss = entropy(model, x, y)
                loss.backward()
                return loss

            watch.log(loss=optimizer.step(closure))

    return model, body


class Distilled(nn.Module):
    """A student, and the moving average that teaches it."""

    def __init__(self):
        super().__init__()
        self.student = net()
        self.teacher = copy.deepcopy(self.student).requires_grad_(requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            aim = self.teacher(x).softmax(1)
        return functional.cross_entropy(self.student(x), aim)


def teacher():
    """The teacher runs without gradients in training mode, inside the model, and is copied after the step."""
    model = Distilled()

    @torch.no_grad()
    def follow(*_):
        for mine, theirs in zip(model.teacher.parameters(), model.student.parameters(), strict=True):
            mine.lerp_(theirs, 0.05)

    body = Fit(
        model,
        sgd(model.student),
        STEPS,
        after=follow,
        loss=lambda model, x, y: model(x) + entropy(model.student, x, y),
    )
    return model, body


class Adapted(nn.Module):
    """A frozen base with a low-rank adapter whose second half begins at zero."""

    def __init__(self):
        super().__init__()
        self.base = net().requires_grad_(requires_grad=False)
        self.down, self.up = nn.Linear(8, 2, bias=False), nn.Linear(2, 4, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


def adapter():
    """Every parameter is handed to the optimizer, frozen ones too, with weight decay."""
    model = Adapted()
    return model, Fit(model, torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1), STEPS)


def scaler():
    """Mixed precision: the first steps are skipped until the scale fits."""
    model = net()
    optimizer, scale = sgd(model), torch.amp.GradScaler("cpu", init_scale=2.0**127)

    def body(watch):
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = entropy(model, *batch())
            scale.scale(loss).backward()
            scale.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scale.step(optimizer)
            scale.update()
            watch.log(loss=loss)

    return model, body


def rollouts():
    """Data is made without gradients in training mode, and used for four updates."""
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def body(watch):
        for i in range(STEPS // 4):
            with torch.no_grad():
                x, _ = batch()
                old = model(x).softmax(1)
            for _ in range(4):
                optimizer.zero_grad()
                loss = -(model(x).softmax(1) / old.clamp(0.01)).clamp(0.8, 1.2).mean()
                loss.backward()
                optimizer.step()
                watch.log(loss=loss)
            if i % 3 == 2:
                model.eval()
                with torch.no_grad():
                    watch.log(val_loss=model(x).square().mean())
                model.train()

    return model, body


def validated_before_and_between():
    """An evaluation before the first step and after every epoch, each in evaluation mode."""
    model = net()

    def validate(watch):
        model.eval()
        with torch.no_grad():
            watch.log(val_loss=entropy(model, *batch(64)))
        model.train()

    def body(watch):
        validate(watch)
        Fit(model, steps=STEPS, after=lambda watch, n: validate(watch) if n % 9 == 0 else None)(watch)

    return model, body


def unfreezing():
    """Only the head at first; the front joins the optimizer later, and is frozen again at the end."""
    model = net()
    model[0].requires_grad_(requires_grad=False)
    optimizer = torch.optim.AdamW(model[4].parameters(), lr=1e-2, weight_decay=0.1)

    def before(number):
        if number == 15:
            model[0].requires_grad_(requires_grad=True)
            optimizer.add_param_group({"params": [*model[0].parameters(), *model[1].parameters()]})
        if number == 30:
            model[0].requires_grad_(requires_grad=False)

    model[1].requires_grad_(requires_grad=False)
    return model, Fit(model, optimizer, STEPS, before=before)


def two_optimizers():
    """One for the front, one for the head, and a rate that warms up from zero and decays to zero."""
    model = net()
    pair = (sgd(model[:2]), torch.optim.Adam(model[4].parameters(), lr=1e-2))
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(o, lambda n: min(n / 10, max(0.0, 1 - n / STEPS))) for o in pair
    ]

    def body(watch):
        for _ in range(STEPS + 3):
            loss = entropy(model, *batch())
            for optimizer in pair:
                optimizer.zero_grad()
            loss.backward()
            for optimizer in pair:
                optimizer.step()
            for schedule in schedules:
                schedule.step()
            watch.log(loss=loss)

    return model, body


def one_batch():
    """Overfitting one batch, as a test of the model."""
    model, known = net(dropout=0.0), batch()
    return model, Fit(model, steps=STEPS, data=lambda _: known)


def two_views():
    """Two passes per step, and a loss between them."""
    model = net()

    def between(model, x, _):
        first, second = (functional.normalize(model(x + 0.1 * torch.randn_like(x)), dim=1) for _ in range(2))
        return functional.cross_entropy(first @ second.T / 0.2, torch.arange(len(x)))

    return model, Fit(model, steps=STEPS, loss=between)


def ends_of_epochs():
    """The last batch of every epoch of ten steps has three samples."""
    model = net()
    return model, Fit(model, steps=4 * STEPS, data=lambda n: batch(3 if n % 10 == 0 else 32))


LOOPS = [
    gan, three_critic_steps, only_the_generator_is_watched, accumulation, line_search, teacher, adapter,
    scaler, rollouts, validated_before_and_between, unfreezing, two_optimizers, one_batch, two_views,
    ends_of_epochs,
]  # fmt: skip


@pytest.mark.parametrize(
    "config", [pytest.param(SINGLE, id="sampled"), pytest.param(EVERY, id="every", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.__name__)
def test_quiet(loop, config, tmp_path):
    model, body = loop()
    found = alerts(tmp_path / "r.jsonl", model, body, config)
    assert [a for a in loud(found) if a[0] in WIRING] == []
