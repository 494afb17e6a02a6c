"""Healthy trainings of unusual shape: other objectives, other optimizers, several networks."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.faults.bench import Run, healthy
from benchmarks.faults.data import Loader, load
from benchmarks.faults.loops import adam, in_epochs, judge, mse, sgd, supervised, update
from benchmarks.faults.models import mlp


@healthy("tabular")
def negative_loss(run: Run) -> float:
    """A Gaussian likelihood with a learned spread: the loss crosses zero and becomes negative."""
    data, model = load("wine"), mlp(13, 32, 2)
    target, val = data.x[:, 0], data.val_x[:, 0]

    def loss(out: Tensor, y: Tensor) -> Tensor:
        log_s = out[:, 1].clamp(-1.2, 4)
        return (log_s + 0.5 * ((y - out[:, 0]) / log_s.exp()) ** 2).mean()

    data = type(data)(data.x, target, data.val_x, val)
    return supervised(run, model, data, adam(model, 2e-3), epochs=30, size=16, loss=loss)


@healthy("tabular")
def heavy_tails(run: Run) -> float:
    """Targets with Student noise of two degrees of freedom: single losses of a hundred times the median."""
    data, model = load("diabetes"), mlp(10, 32, 1)
    generator = torch.Generator().manual_seed(run.seed)
    noise = torch.randn(len(data.y), generator=generator) / torch.randn(
        2, len(data.y), generator=generator
    ).norm(dim=0)
    data = type(data)(data.x, data.y + 1.5 * noise, data.val_x, data.val_y)
    return supervised(run, model, data, sgd(model, 1e-3), epochs=25, size=16, loss=mse)


@healthy("tabular")
def regression_adamw(run: Run) -> float:
    """Regression that reaches its noise floor early and stays there."""
    data, model = load("diabetes"), mlp(10, 16, 1)
    return supervised(
        run, model, data, torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.3), epochs=20, loss=mse
    )


@healthy("mlp")
def lbfgs(run: Run) -> float:
    """L-BFGS with a closure that is evaluated several times a step, on all samples."""
    data, model = load("wine"), mlp(13, 8, 3)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.2, max_iter=4)
    value = torch.zeros(())

    def closure() -> Tensor:
        nonlocal value
        optimizer.zero_grad()
        value = functional.cross_entropy(model(data.x), data.y) + 1e-2 * sum(
            p.square().sum() for p in model.parameters()
        )
        value.backward()
        return value

    with run.watch(model) as watch:
        for _ in range(60):
            optimizer.step(closure)
            watch.log(loss=value)
    return float(value)


@healthy("mlp")
def loss_scale_search(run: Run) -> float:
    """A loss scaler starts far too high: a dozen steps are skipped, with infinite gradients."""
    data, model = load("digits"), mlp(64, 32, 10)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**28, growth_interval=2000)

    def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        if scaler.get_scale() > 2.0**16:
            for p in model.parameters():
                p.grad.fill_(float("inf"))
        scaler.step(optimizer)
        scaler.update()

    return supervised(run, model, data, sgd(model, 0.03), epochs=7, step=step, watch={"scaler": scaler})


@healthy("mlp")
def accumulation(run: Run) -> float:
    """Gradients of four batches, divided; it begins after two epochs."""
    data, model = load("digits"), mlp(64, 32, 10)
    optimizer = adam(model, 3e-3)
    with run.watch(model) as watch:
        for epoch in range(14):
            parts = 1 if epoch < 2 else 4
            for i, (x, y) in enumerate(watch.batches(Loader(data.x, data.y, 16, run.seed + epoch))):
                loss = functional.cross_entropy(model(x), y)
                (loss / parts).backward()
                watch.log(loss=loss)
                if (i + 1) % parts == 0:
                    optimizer.step()
                    optimizer.zero_grad()
            watch.epoch(**judge(model, data))
    return judge(model, data)["val_loss"]


@healthy("mlp")
def multi_task(run: Run) -> float:
    """Two heads; one of them gets every other batch."""
    data = load("digits")
    body, ten, two = mlp(64, 48, 32), nn.Linear(32, 10), nn.Linear(32, 2)
    model = nn.ModuleDict({"body": body, "ten": ten, "two": two})
    optimizer = adam(model, 2e-3)
    with run.watch(model) as watch:
        for epoch in range(8):
            for i, (x, y) in enumerate(watch.batches(Loader(data.x, data.y, 32, run.seed + epoch))):
                out = functional.relu(body(x))
                loss = (
                    functional.cross_entropy(ten(out), y)
                    if i % 2
                    else functional.cross_entropy(two(out), y % 2)
                )
                update(optimizer, loss)
                watch.log(loss=loss)
            watch.epoch()
    return float(loss)


@healthy("mlp")
def distillation(run: Run) -> float:
    """A student learns a frozen teacher's probabilities; the teacher is watched too."""
    data, teacher, student = load("digits"), mlp(64, 64, 10), mlp(64, 16, 10)
    optimizer = adam(teacher, 3e-3)
    for x, y in [b for _ in range(3) for b in Loader(data.x, data.y, 32, run.seed)]:
        update(optimizer, functional.cross_entropy(teacher(x), y))
    teacher.requires_grad_(requires_grad=False)
    teacher.zero_grad()
    pair = nn.ModuleDict({"teacher": teacher, "student": student})
    optimizer = adam(student, 3e-3)
    with run.watch(pair) as watch:
        for epoch in range(8):
            for x, _ in watch.batches(Loader(data.x, data.y, 32, run.seed + epoch)):
                with torch.no_grad():
                    wanted = functional.softmax(teacher(x) / 2, -1)
                loss = functional.kl_div(
                    functional.log_softmax(student(x) / 2, -1), wanted, reduction="batchmean"
                )
                update(optimizer, loss)
                watch.log(loss=loss)
            watch.epoch(**judge(student, data))
    return judge(student, data)["val_loss"]


@healthy("mlp")
def contrastive(run: Run) -> float:
    """SimCLR: a loss that starts at ln(2N−1) and falls little."""
    data, model = load("digits"), mlp(64, 64, 32)
    optimizer = adam(model, 2e-3)
    with run.watch(model) as watch:
        for epoch in range(14):
            for x, _ in watch.batches(Loader(data.x, data.y, 64, run.seed + epoch)):
                views = torch.cat([x + 0.2 * torch.randn_like(x), x + 0.2 * torch.randn_like(x)])
                z = functional.normalize(model(views), dim=-1)
                logits = z @ z.T / 0.2 - 1e9 * torch.eye(128)
                loss = functional.cross_entropy(logits, (torch.arange(128) + 64) % 128)
                update(optimizer, loss)
                watch.log(loss=loss)
            watch.epoch()
    return float(loss)


@healthy("mlp")
def ema_teacher(run: Run) -> float:
    """BYOL: a frozen teacher follows the student outside of the optimizer; the loss does not say much."""
    data, student, predictor = load("digits"), mlp(64, 64, 32, norm=True), mlp(32, 32, 32, norm=True)
    teacher = copy.deepcopy(student).requires_grad_(requires_grad=False)
    model = nn.ModuleDict({"student": student, "predictor": predictor, "teacher": teacher})
    optimizer = adam(nn.ModuleList([student, predictor]), 2e-3)
    with run.watch(model) as watch:
        for epoch in range(12):
            for x, _ in watch.batches(Loader(data.x, data.y, 64, run.seed + epoch)):
                one, two = x + 0.1 * torch.randn_like(x), x + 0.1 * torch.randn_like(x)
                with torch.no_grad():
                    wanted = functional.normalize(teacher(two), dim=-1)
                loss = 2 - 2 * (functional.normalize(predictor(student(one)), dim=-1) * wanted).sum(-1).mean()
                update(optimizer, loss)
                with torch.no_grad():
                    for t, s in zip(teacher.parameters(), student.parameters(), strict=True):
                        t.lerp_(s, 0.02)
                watch.log(loss=loss)
            watch.epoch()
    return float(loss)


@healthy("mlp", config={"declare": {"reinforcement": True}})
def reinforce(run: Run) -> float:
    """Policy gradients on a contextual bandit: the 'loss' means nothing, and its sign changes."""
    return _reinforce(run)


@healthy("mlp")
def reinforce_undeclared(run: Run) -> float:
    """The same without saying so: a loss that wanders around zero while the reward rises."""
    return _reinforce(run)


def _reinforce(run: Run) -> float:
    data, model = load("digits"), mlp(64, 32, 10)
    optimizer, baseline = adam(model, 3e-3), 0.0
    with run.watch(model) as watch:
        for epoch in range(9):
            for x, y in watch.batches(Loader(data.x, data.y, 32, run.seed + epoch)):
                policy = torch.distributions.Categorical(logits=model(x))
                action = policy.sample()
                reward = (action == y).float()
                loss = (
                    -((reward - baseline) * policy.log_prob(action)).mean() - 0.01 * policy.entropy().mean()
                )
                baseline = 0.95 * baseline + 0.05 * float(reward.mean())
                update(optimizer, loss)
                watch.log(loss=loss, reward=reward.mean())
            watch.epoch()
    return -baseline


@healthy("mlp")
def q_learning(run: Run) -> float:
    """Q-learning with a target network on a chain: the loss rises as values grow."""
    model = mlp(10, 32, 2)
    target = copy.deepcopy(model)
    optimizer = adam(model, 2e-3)
    generator = torch.Generator().manual_seed(run.seed)
    states = torch.eye(10)
    with run.watch(model) as watch:
        for number in range(500):
            at = torch.randint(0, 10, (32,), generator=generator)
            action = torch.randint(0, 2, (32,), generator=generator)
            after = (at + 2 * action - 1).clamp(0, 9)
            reward = (after == 9).float()
            with torch.no_grad():
                wanted = reward + 0.9 * target(states[after]).max(1).values
            loss = functional.mse_loss(model(states[at]).gather(1, action[:, None])[:, 0], wanted)
            update(optimizer, loss)
            watch.log(loss=loss)
            if number % 50 == 49:
                target.load_state_dict(model.state_dict())
    return float(loss)


@healthy("mlp")
def forward_forward(run: Run) -> float:
    """Forward-forward: two layers, each with its own loss and optimizer, no gradient between them."""
    data = load("digits")
    layers = nn.ModuleList([nn.Linear(74, 64), nn.Linear(64, 64)])
    optimizers = [adam(layer, 5e-3) for layer in layers]
    with run.watch(layers) as watch:
        for epoch in range(7):
            for x, y in watch.batches(Loader(data.x, data.y, 64, run.seed + epoch)):
                wrong = (y + torch.randint(1, 10, y.shape)) % 10
                good = torch.cat([functional.one_hot(y, 10).float(), x], 1)
                bad = torch.cat([functional.one_hot(wrong, 10).float(), x], 1)
                total = 0.0
                for layer, optimizer in zip(layers, optimizers, strict=True):
                    good, bad = functional.relu(layer(_unit(good))), functional.relu(layer(_unit(bad)))
                    margin = torch.cat([1 - good.square().mean(1), bad.square().mean(1) - 1])
                    loss = functional.softplus(margin).mean()
                    update(optimizer, loss)
                    good, bad = good.detach(), bad.detach()
                    total += float(loss)
                watch.log(loss=total)
            watch.epoch()
    return total


def _unit(x: Tensor) -> Tensor:
    return x / (x.norm(dim=1, keepdim=True) / math.sqrt(x.shape[1]) + 1e-4)


@healthy("mlp")
def autoencoder_vae(run: Run) -> float:
    """A VAE whose KL term is switched on slowly: the loss rises while it is."""
    data, encoder, decoder = load("digits"), mlp(64, 48, 16), mlp(8, 48, 64)
    model = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
    optimizer, number = adam(model, 2e-3), 0
    with run.watch(model) as watch:
        for epoch in range(9):
            for x, _ in watch.batches(Loader(data.x, data.y, 32, run.seed + epoch)):
                number += 1
                mean, log_var = encoder(x).chunk(2, -1)
                z = mean + torch.randn_like(mean) * (0.5 * log_var).exp()
                rebuilt = functional.mse_loss(decoder(z), x, reduction="none").sum(1).mean()
                kl = -0.5 * (1 + log_var - mean**2 - log_var.exp()).sum(1).mean()
                loss = rebuilt + min(number / 300, 1) * 0.5 * kl
                update(optimizer, loss)
                watch.log(loss=loss)
            watch.epoch()
    return float(loss)


@healthy("mlp")
def denoising_diffusion(run: Run) -> float:
    """Diffusion: the loss of a batch depends on the times that it drew."""
    data, model = load("digits"), mlp(65, 96, 96, 64, act=nn.SiLU)
    optimizer = adam(model, 2e-3)

    def loss_of(x: Tensor, _: Tensor) -> Tensor:
        t = torch.rand(len(x), 1)
        noise = torch.randn_like(x)
        noisy = (1 - t) * (2 * x - 1) + t * noise
        return functional.mse_loss(model(torch.cat([noisy, t], 1)), noise - (2 * x - 1))

    return in_epochs(run, model, data, optimizer, loss_of, epochs=10)


@healthy("mlp")
def sharpness_aware(run: Run) -> float:
    """SAM: two forward and backward passes a step, weights moved and put back."""
    data, model = load("digits"), mlp(64, 32, 10)
    optimizer = sgd(model, 0.05)
    with run.watch(model) as watch:
        for epoch in range(7):
            for x, y in watch.batches(Loader(data.x, data.y, 32, run.seed + epoch)):
                optimizer.zero_grad()
                loss = functional.cross_entropy(model(x), y)
                loss.backward()
                with torch.no_grad():
                    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
                    moves = [0.05 * p.grad / (norm + 1e-12) for p in model.parameters()]
                    torch._foreach_add_(list(model.parameters()), moves)
                optimizer.zero_grad()
                functional.cross_entropy(model(x), y).backward()
                with torch.no_grad():
                    torch._foreach_sub_(list(model.parameters()), moves)
                optimizer.step()
                watch.log(loss=loss)
            watch.epoch(**judge(model, data))
    return judge(model, data)["val_loss"]


@healthy("mlp")
def mixup_and_smoothing(run: Run) -> float:
    """Mixup with label smoothing: the training loss stays high above the validation loss."""
    data, model = load("digits"), mlp(64, 64, 10, dropout=0.2)
    optimizer = sgd(model, 0.05)
    with run.watch(model, declare={"augmentation": True}) as watch:
        for epoch in range(9):
            for x, y in watch.batches(Loader(data.x, data.y, 32, run.seed + epoch)):
                share, other = float(torch.rand(())), torch.randperm(len(x))
                out = model(share * x + (1 - share) * x[other])
                loss = share * functional.cross_entropy(out, y, label_smoothing=0.1)
                loss = loss + (1 - share) * functional.cross_entropy(out, y[other], label_smoothing=0.1)
                update(optimizer, loss)
                watch.log(loss=loss)
            watch.epoch(**judge(model, data))
    return judge(model, data)["val_loss"]


@healthy("mlp")
def pruned(run: Run) -> float:
    """80 % of the weights are pruned by a mask from the start."""
    from torch.nn.utils import prune

    data, model = load("digits"), mlp(64, 64, 64, 10)
    for layer in (model[0], model[2]):
        prune.random_unstructured(layer, "weight", amount=0.8)
    return supervised(run, model, data, adam(model, 3e-3), epochs=8)


@healthy("mlp")
def experts(run: Run) -> float:
    """Top-1 experts: some experts see few samples in a batch, or none."""
    data = load("digits")

    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Linear(64, 4)
            self.experts = nn.ModuleList(mlp(64, 24, 10) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            weight, chosen = functional.softmax(self.gate(x), -1).max(-1)
            out = torch.zeros(len(x), 10)
            for i, expert in enumerate(self.experts):
                rows = (chosen == i).nonzero().flatten()
                if len(rows):
                    out = out.index_add(0, rows, expert(x[rows]) * weight[rows, None])
            return out

    model = Experts()
    return supervised(run, model, data, adam(model, 3e-3), epochs=8)


@healthy("mlp", config={"declare": {"fine_tuning": True}})
def fine_tuning_from_a_good_start(run: Run) -> float:
    """Fine-tuning at a low rate from weights that are nearly as good as they get: the loss hardly moves."""
    data, model = load("digits"), mlp(64, 32, 10)
    optimizer = adam(model, 3e-3)
    for x, y in [b for _ in range(8) for b in Loader(data.x, data.y, 32, run.seed)]:
        update(optimizer, functional.cross_entropy(model(x), y))
    model.zero_grad()
    return supervised(run, model, data, sgd(model, 3e-4), epochs=7)


@healthy("mlp")
def progressive_unfreezing(run: Run) -> float:
    """Layers are unfrozen one after the other; the optimizer is made anew each time."""
    data, model = load("digits"), mlp(64, 48, 32, 10)
    with run.watch(model) as watch:
        for stage, layers in enumerate(([4], [2, 4], [0, 2, 4])):
            for i in (0, 2, 4):
                model[i].requires_grad_(i in layers)
            optimizer = adam(nn.ModuleList([model[i] for i in layers]), 3e-3)
            for epoch in range(3):
                for x, y in watch.batches(Loader(data.x, data.y, 32, 10 * run.seed + 3 * stage + epoch)):
                    loss = functional.cross_entropy(model(x), y)
                    update(optimizer, loss)
                    watch.log(loss=loss)
                watch.epoch(**judge(model, data))
    return judge(model, data)["val_loss"]


@healthy("mlp")
def few_epochs_then_stopped(run: Run) -> float:
    """A training of 60 steps, stopped early on purpose."""
    data, model = load("digits"), mlp(64, 32, 10)
    return supervised(run, model, data, adam(model, 3e-3), epochs=2, size=48)


@healthy("mlp")
def sgd_without_momentum_slow(run: Run) -> float:
    """Plain SGD, deep network with norms, 900 steps of slow and steady progress."""
    data, model = load("digits"), mlp(64, 32, 32, 32, 10, norm=True)
    return supervised(run, model, data, sgd(model, 0.01, 0.0), epochs=20)


@healthy("mlp")
def weighted_rare_class(run: Run) -> float:
    """An imbalanced problem with weights: single batches have ten times the usual loss."""
    data, model = load("cancer"), mlp(30, 16, 2)
    weights = torch.tensor([12.0, 1.0])

    def loss(out: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(out, y, weight=weights)

    return supervised(run, model, data, sgd(model, 0.002), epochs=20, size=16, loss=loss)


@healthy("mlp")
def sparse_autoencoder(run: Run) -> float:
    """An L1 penalty wants most units of the code to be silent for most samples, not for all."""
    data, encoder, decoder = load("digits"), nn.Linear(64, 128), nn.Linear(128, 64)
    model = nn.ModuleDict({"encoder": encoder, "relu": nn.ReLU(), "decoder": decoder})
    optimizer = adam(model, 2e-3)

    def loss_of(x: Tensor, _: Tensor) -> Tensor:
        code = model["relu"](encoder(x))
        return functional.mse_loss(decoder(code), x) + 1e-3 * code.abs().mean()

    return in_epochs(run, model, data, optimizer, loss_of, epochs=9)


@healthy("mlp")
def new_classes_later(run: Run) -> float:
    """A curriculum: five classes, then ten; the loss jumps above where it began, and falls at once."""
    data, model = load("digits"), mlp(64, 64, 10)
    optimizer = sgd(model, 0.03)

    def rows(epoch: int) -> Tensor:
        return data.y < (5 if epoch < 5 else 10)

    def loss_of(x: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(model(x), y)

    in_epochs(run, model, data, optimizer, loss_of, epochs=12, rows=rows, evaluate=lambda: judge(model, data))
    return judge(model, data)["val_loss"]
