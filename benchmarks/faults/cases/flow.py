"""Gradients and activations that do not flow."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.faults.bench import Run, fault
from benchmarks.faults.data import Data, load
from benchmarks.faults.loops import language, sgd, supervised, update
from benchmarks.faults.models import Cnn, Gpt, mlp

STUCK = "vanishing-gradients no-learning update-ratio"


@fault("dynamics", "mlp", STUCK, roots="vanishing-gradients", planted="ten sigmoid layers and SGD")
def deep_sigmoid(run: Run) -> float:
    act = nn.Sigmoid if run.faulty else nn.ReLU
    data, model = load("digits"), mlp(64, *[32] * 10, 10, act=act)
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
    return supervised(run, model, data, sgd(model, 0.02), epochs=16)


@fault(
    "dynamics",
    "cnn",
    "dead-units zero-gradient-layer no-learning",
    roots="dead-units zero-gradient-layer",
    planted="at step 100 the biases of the second convolution drop by 20",
)
def relu_units_die(run: Run) -> float:
    data, model = load("digits").images(), Cnn(norm=False)

    def on_step(number: int) -> None:
        if run.faulty and number == 100:
            with torch.no_grad():
                model.conv2.bias -= 20

    if run.faulty:
        run.onset = 100
    return supervised(run, model, data, sgd(model, 0.03), epochs=6, on_step=on_step)


@fault(
    "dynamics",
    "mlp",
    "dead-units zero-gradient-layer no-learning",
    roots="dead-units zero-gradient-layer",
    planted="biases start at −5: most units are dead from the start",
)
def born_dead(run: Run) -> float:
    data, model = load("digits"), mlp(64, 64, 64, 10)
    with torch.no_grad():
        if run.faulty:
            model[0].bias.fill_(-5)
            model[2].bias.fill_(-2)
    return supervised(run, model, data, sgd(model, 0.03), epochs=6)


@fault(
    "dynamics",
    "mlp",
    "saturated-activations no-learning vanishing-gradients",
    roots="saturated-activations",
    planted="tanh layers with weights 40 times too large",
)
def saturated_init(run: Run) -> float:
    data, model = load("digits"), mlp(64, 32, 32, 10, act=nn.Tanh)
    with torch.no_grad():
        if run.faulty:
            for p in (model[0].weight, model[2].weight):
                p.mul_(40)
    return supervised(run, model, data, sgd(model, 0.03), epochs=16)


@fault(
    "dynamics",
    "mlp",
    "activation-explosion exploding-gradients loss-explosion loss-nonfinite "
    "weight-growth no-learning input-scale loss-divergence gradient-nonfinite",
    planted="a deep stack initialised with a gain of 3: outputs of a million",
)
def init_gain_too_large(run: Run) -> float:
    data, model = load("digits"), mlp(64, *[64] * 8, 10)
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            with torch.no_grad():
                layer.weight.mul_(3 if run.faulty else 1)
    return supervised(run, model, data, sgd(model, 0.01, 0.9), epochs=6)


@fault(
    "dynamics",
    "mlp",
    "activation-collapse no-learning rank-collapse constant-loss",
    severity="info",
    planted="a weight decay of 60 (0.06 was meant): weights shrink to nothing",
)
def weight_decay_too_strong(run: Run) -> float:
    data, model = load("digits"), mlp(64, 32, 32, 10)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=60.0 if run.faulty else 0.01)
    return supervised(run, model, data, optimizer, epochs=8)


@fault(
    "dynamics",
    "rnn",
    "update-ratio no-learning lr-too-low vanishing-gradients loss-plateau",
    severity="info",
    planted="gradients clipped to a norm of 1e-5 (1.0 was meant)",
)
def clipped_to_nothing(run: Run) -> float:
    from benchmarks.faults.models import Rnn

    model = Rnn(16, 32, 96, text=True)
    optimizer = sgd(model, 0.5)

    def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1e-5 if run.faulty else 1.0)
        optimizer.step()

    return language(run, model, optimizer, epochs=10, batches=30, step=step)


@fault(
    "dynamics",
    "tabular",
    "activation-collapse rank-collapse constant-loss frozen-output",
    severity="info",
    planted="two views are pulled together, and nothing keeps them apart",
)
def representation_collapse(run: Run) -> float:
    data, model = load("digits"), mlp(64, 64, 32, norm=False)
    optimizer = sgd(model, 0.1)
    from benchmarks.faults.data import Loader

    with run.watch(model) as watch:
        for _ in range(16):
            for x, _ in watch.batches(Loader(data.x, data.y, 64, run.seed)):
                one, two = model(x + 0.1 * torch.randn_like(x)), model(x + 0.1 * torch.randn_like(x))
                loss = (one - two).square().sum(1).mean()
                if not run.faulty:
                    spread = torch.cat([one, two]).std(0)
                    loss = loss + 10 * functional.relu(1 - spread).mean()
                update(optimizer, loss)
                watch.log(loss=loss)
            watch.epoch()
    with torch.no_grad():  # harm: what is left of the samples' differences, after a linear probe
        features = torch.cat([model(data.x), torch.ones(len(data.x), 1)], 1)
        probe = torch.linalg.lstsq(
            features.double(), functional.one_hot(data.y).double(), driver="gelsd"
        ).solution
        val = torch.cat([model(data.val_x), torch.ones(len(data.val_x), 1)], 1).double() @ probe
        return float((val.argmax(1) != data.val_y).double().mean())


@fault(
    "dynamics",
    "tabular",
    "input-scale no-learning exploding-gradients vanishing-gradients loss-explosion "
    "dead-units saturated-activations",
    severity="info",
    planted="inputs are not normalised: tens of thousands beside hundredths",
)
def inputs_not_normalised(run: Run) -> float:
    data, model = load("cancer"), mlp(30, 32, 32, 2, act=nn.Tanh)
    if run.faulty:
        scale = torch.logspace(-2, 4, 30)
        data = Data(scale * (data.x + 2), data.y, scale * (data.val_x + 2), data.val_y)
    return supervised(run, model, data, sgd(model, 0.01), epochs=16)


@fault(
    "dynamics",
    "transformer",
    "attention-entropy-collapse no-learning loss-divergence loss-explosion "
    "exploding-gradients update-ratio weight-growth",
    planted="queries and keys grow: their rate is 100 times the others'",
)
def attention_collapses(run: Run) -> float:
    model = Gpt()
    attention = [p for n, p in model.named_parameters() if "in_proj_weight" in n]
    others = [p for n, p in model.named_parameters() if "in_proj_weight" not in n]
    groups = [{"params": attention, "lr": 0.5 if run.faulty else 3e-3}, {"params": others}]
    return language(run, model, torch.optim.AdamW(groups, lr=3e-3), epochs=6)
