"""Healthy trainings on digits."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, OneCycleLR

from benchmarks.faults.bench import Run, healthy
from benchmarks.faults.data import Loader, load
from benchmarks.faults.loops import adam, sgd, supervised
from benchmarks.faults.models import Cnn, mlp


@healthy("cnn")
def cnn_one_cycle(run: Run) -> float:
    """A convolutional network with a one-cycle schedule up to a high rate."""
    data, model = load("digits").images(), Cnn(dropout=0.3)
    optimizer = sgd(model, 0.01)
    scheduler = OneCycleLR(optimizer, 0.3, total_steps=10 * 44)
    return supervised(run, model, data, optimizer, epochs=10, scheduler=scheduler)


@healthy("cnn")
def warm_restarts(run: Run) -> float:
    """Cosine with warm restarts: the loss jumps up at each restart."""
    data, model = load("digits").images(), Cnn()
    optimizer = sgd(model, 0.2)
    scheduler = CosineAnnealingWarmRestarts(optimizer, T_0=132)
    return supervised(run, model, data, optimizer, epochs=12, scheduler=scheduler)


@healthy("mlp")
def early_convergence(run: Run) -> float:
    """A separable problem: the loss is next to zero after a tenth of the run."""
    data, model = load("wine"), mlp(13, 32, 3)
    return supervised(run, model, data, adam(model, 3e-3), epochs=60, size=16)


@healthy("mlp")
def gan(run: Run) -> float:
    """A GAN on digits: two losses that never settle."""
    data = load("digits")
    maker, critic = mlp(16, 64, 64), mlp(64, 64, 1, act=lambda: nn.LeakyReLU(0.2))
    pair = nn.ModuleDict({"maker": maker, "critic": critic})
    by_maker, by_critic = adam(maker, 1e-3, betas=(0.5, 0.99)), adam(critic, 5e-4, betas=(0.5, 0.99))
    value = torch.zeros(())
    with run.watch(pair) as watch:
        for _ in range(8):
            for real, _ in watch.batches(Loader(data.x, data.y, 32, run.seed)):
                fake = torch.sigmoid(maker(torch.randn(32, 16)))
                by_critic.zero_grad()
                scores = critic(torch.cat([real, fake.detach()]))
                sides = torch.cat([torch.full((32, 1), 0.9), torch.zeros(32, 1)])
                critic_loss = functional.binary_cross_entropy_with_logits(scores, sides)
                critic_loss.backward()
                by_critic.step()
                by_maker.zero_grad()
                value = functional.binary_cross_entropy_with_logits(critic(fake), torch.ones(32, 1))
                value.backward()
                by_maker.step()
                watch.log(loss=value, critic_loss=critic_loss)
            watch.epoch()
    return float(value)


@healthy("cnn")
def frozen_backbone(run: Run) -> float:
    """A new head on a frozen backbone that was trained before."""
    data, model = load("digits").images(), Cnn(norm=False)
    optimizer = adam(model, 3e-3)
    for x, y in Loader(data.x, data.y, 32, run.seed):
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    model.zero_grad()
    model.head = nn.Linear(64, 10)
    for p in (*model.conv1.parameters(), *model.conv2.parameters()):
        p.requires_grad_(requires_grad=False)
    return supervised(run, model, data, adam(model.head, 3e-3), epochs=8)
