"""Options of parameter groups as they are at the step."""

from __future__ import annotations

import torch

from tests.helpers_probe import Bench, parameters
from torchwatch.probes.groups import GroupProbe
from torchwatch.probes.learning_rate import LearningRateProbe


def test_momentum_and_decay_of_every_group_on_sampled_steps() -> None:
    model = parameters((2,), (3,))
    groups = [{"params": [model[0]]}, {"params": [model[1]], "betas": (0.8, 0.99), "weight_decay": 0.0}]
    bench = Bench(GroupProbe(), model, torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.1))
    assert bench.step(sampled=True) == {"momentum": [0.9, 0.8], "weight_decay": [0.1, 0.0]}
    assert bench.step() == {}


def test_sgd_and_optimizers_without_such_options() -> None:
    model = parameters((2,))
    bench = Bench(GroupProbe(), model, torch.optim.SGD(model, lr=0.1, momentum=0.5))
    assert bench.step(sampled=True) == {"momentum": [0.5], "weight_decay": [0.0]}
    bench = Bench(GroupProbe(), model, torch.optim.LBFGS(model))
    assert bench.step(sampled=True) == {"momentum": [0.0], "weight_decay": [0.0]}


def test_options_that_are_tensors_are_read_later_and_as_they_were() -> None:
    model = parameters((2,))
    bench = Bench(GroupProbe(), model)
    decay = bench.optimizer.param_groups[0]["weight_decay"] = torch.tensor(0.25)
    assert bench.step(sampled=True, update=lambda: decay.fill_(9.0))["weight_decay"] == [0.25]


def test_rates_of_all_optimizers_in_the_layouts_order() -> None:
    model = parameters((2,), (3,))
    bench = Bench(LearningRateProbe(), model, torch.optim.SGD([model[0]], lr=0.5))
    assert bench.step() == {"lr": [0.5]}
    first, second = bench.optimizer, torch.optim.SGD([model[1]], lr=torch.tensor(0.25))
    bench.optimizer, bench.held = second, bench.patient.held_by(second)
    assert bench.step() == {"lr": [0.5, 0.25]}
    bench.optimizer, first.param_groups[0]["lr"] = first, 0.125
    assert bench.step() == {"lr": [0.125, 0.25]}


def test_a_rate_that_is_a_tensor_is_read_as_it_was() -> None:
    model = parameters((2,))
    rate = torch.tensor(0.5)
    bench = Bench(LearningRateProbe(), model, torch.optim.SGD(model, lr=rate))
    assert bench.step(update=lambda: rate.fill_(0.25)) == {"lr": [0.5]}
