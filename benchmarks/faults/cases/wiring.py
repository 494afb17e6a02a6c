"""Silent mistakes in how model, loss, data and optimizer are connected."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.faults.bench import Run, fault
from benchmarks.faults.data import Loader, load
from benchmarks.faults.loops import adam, language, mse, sgd, supervised, update
from benchmarks.faults.models import Cnn, Gpt, Rnn, mlp

NO_GRADIENT = "zero-gradient-layer unused-parameters no-op-step"


@fault("wiring", "mlp", "missing-zero-grad", planted="zero_grad() is never called", stretch=3)
def missing_zero_grad(run: Run) -> float:
    data, model = load("digits"), mlp(64, 32, 32, 10)

    def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        if not run.faulty:
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return supervised(run, model, data, sgd(model, 0.05), epochs=6, step=step)


@fault("wiring", "rnn", "missing-zero-grad", planted="zero_grad() once an epoch, not once a step", stretch=3)
def zero_grad_once_an_epoch(run: Run) -> float:
    data, model = load("digits").rows(), Rnn(8, 32, 10)
    optimizer = adam(model, 3e-3)

    def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        if not run.faulty:
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return supervised(
        run, model, data, optimizer, epochs=6, step=step, on_epoch=lambda _: optimizer.zero_grad()
    )


@fault(
    "wiring", "cnn", "unoptimized-parameters", stretch=10,
    planted="the optimizer is given the head only, in a network that is meant to be trained whole",
)  # fmt: skip
def only_head_optimized(run: Run) -> float:
    data, model = load("digits").images(), Cnn(width=4)
    return supervised(run, model, data, sgd(model.head if run.faulty else model, 0.05), epochs=6)


@fault("wiring", "transformer", "unoptimized-parameters", stretch=10, planted="blocks in no parameter group")
def blocks_not_optimized(run: Run) -> float:
    model = Gpt()
    given = [p for n, p in model.named_parameters() if not (run.faulty and n.startswith("blocks"))]
    return language(run, model, torch.optim.AdamW(given, lr=3e-3), epochs=5)


@fault(
    "wiring", "mlp", "no-op-step unoptimized-parameters", stretch=10,
    planted="the optimizer holds the parameters of the model before it was copied",
)  # fmt: skip
def model_copied_after_optimizer(run: Run) -> float:
    data, model = load("digits"), mlp(64, 32, 10)
    optimizer = sgd(model, 0.05)
    return supervised(run, copy.deepcopy(model) if run.faulty else model, data, optimizer, epochs=5)


@fault(
    "wiring", "cnn", "no-op-step unoptimized-parameters unused-parameters", stretch=10,
    planted="one layer is replaced after the optimizer was made (a new head for another task)",
)  # fmt: skip
def layer_replaced_after_optimizer(run: Run) -> float:
    data, model = load("digits").images(), Cnn(width=4)
    optimizer = adam(model, 3e-3)
    if run.faulty:
        model.conv1, model.conv2, model.head = (
            nn.Conv2d(1, 4, 3, padding=1),
            nn.Conv2d(4, 8, 3, padding=1),
            nn.Linear(32, 10),
        )
    return supervised(run, model, data, optimizer, epochs=5)


@fault(
    "wiring",
    "mlp",
    NO_GRADIENT,
    severity="info",
    stretch=20,
    planted="zero_grad() between backward() and step()",
)
def zero_grad_after_backward(run: Run) -> float:
    data, model = load("digits"), mlp(64, 32, 10)

    def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        if run.faulty:
            optimizer.zero_grad()
        optimizer.step()

    return supervised(run, model, data, sgd(model, 0.05), epochs=5, step=step)


@fault(
    "wiring",
    "tabular",
    NO_GRADIENT,
    severity="info",
    stretch=20,
    planted="features are detached before the head",
)
def detached_features(run: Run) -> float:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = mlp(64, 32, 4), nn.Linear(4, 10)

        def forward(self, x: Tensor) -> Tensor:
            features = self.body(x)
            return self.head(features.detach() if run.faulty else features)

    data, model = load("digits"), Net()
    return supervised(run, model, data, sgd(model, 0.05), epochs=5)


@fault(
    "wiring",
    "mlp",
    NO_GRADIENT,
    severity="info",
    stretch=20,
    planted="the loss goes through .detach().requires_grad_()",
)
def loss_detached(run: Run) -> float:
    data, model = load("wine", 0.7), mlp(13, 32, 3)

    def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        update(optimizer, loss.detach().requires_grad_() if run.faulty else loss)

    return supervised(run, model, data, sgd(model, 0.01), epochs=40, size=16, step=step)


@fault(
    "wiring",
    "cnn",
    "eval-mode-training",
    stretch=5,
    planted="model.eval() before the first validation, never train()",
)
def eval_mode_training(run: Run) -> float:
    data, model = load("digits").images(), Cnn(width=4, dropout=0.3)

    def on_epoch(_: int) -> None:
        if run.faulty:
            run.onset = 1
            model.eval()

    data = type(data)(40 * data.x - 20, data.y, 40 * data.val_x - 20, data.val_y)
    return supervised(run, model, data, sgd(model, 0.05), epochs=6, on_epoch=on_epoch)


@fault(
    "wiring", "mlp", "train-mode-eval", stretch=0, planted="validation in training mode, with dropout active"
)
def train_mode_eval(run: Run) -> float:
    data, model = load("digits"), mlp(64, 64, 64, 10, dropout=0.5)
    last: dict[str, float] = {}

    def evaluate() -> dict[str, float]:
        model.train(run.faulty)
        with torch.no_grad():
            out = model(data.val_x)
            last["val_loss"] = float(functional.cross_entropy(out, data.val_y))
        model.train()
        return dict(last)

    run.onset = 44
    supervised(run, model, data, sgd(model, 0.05), epochs=6, evaluate=evaluate)
    return last["val_loss"]


@fault("wiring", "mlp", "probabilities-as-logits", stretch=3, planted="softmax before cross_entropy")
def softmax_before_cross_entropy(run: Run) -> float:
    data, model = load("digits"), mlp(64, 32, 10)
    if run.faulty:
        model.append(nn.Softmax(-1))
    return supervised(run, model, data, sgd(model, 0.05), epochs=6)


@fault(
    "wiring", "cnn", "probabilities-as-logits", stretch=3, planted="F.softmax in forward, then cross_entropy"
)
def functional_softmax_before_cross_entropy(run: Run) -> float:
    class Net(Cnn):
        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            return functional.softmax(out, -1) if run.faulty else out

    data, model = load("digits").images(), Net(width=4)
    return supervised(run, model, data, adam(model, 3e-3), epochs=5)


@fault(
    "wiring",
    "mlp",
    "lr-zero",
    stretch=40,
    planted="a scheduler that sets the learning rate to 0 from the start",
)
def lr_zero(run: Run) -> float:
    data, model = load("digits"), mlp(64, 32, 10)
    optimizer = sgd(model, 0.05)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 0.0 if run.faulty else 1.0)
    return supervised(run, model, data, optimizer, epochs=5, scheduler=scheduler)


@fault(
    "wiring",
    "tabular",
    "repeated-batch",
    stretch=5,
    planted="next(iter(loader)) with a fixed order, after one epoch",
)
def repeated_batch(run: Run) -> float:
    data, model = load("digits"), mlp(64, 32, 10)
    loader = Loader(data.x, data.y, 32, run.seed)
    if run.faulty:
        run.onset = len(loader) + 1

    class Stuck:
        def __init__(self) -> None:
            self.passes = 0

        def __len__(self) -> int:
            return len(loader)

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            self.passes += 1
            if self.passes == 1 or not run.faulty:
                yield from loader
                return
            first = (data.x[:32], data.y[:32])
            for _ in range(len(loader)):
                yield first

    return supervised(run, model, data, sgd(model, 0.02), epochs=6, loader=Stuck())


@fault("wiring", "mlp", "tiny-batch-norm", stretch=3, planted="BatchNorm on batches of two")
def batch_norm_on_two_samples(run: Run) -> float:
    data, model = load("cancer", 0.5), mlp(30, 32, 32, 2, norm=True)
    return supervised(
        run, model, data, sgd(model, 0.02), epochs=3 if run.faulty else 12, size=2 if run.faulty else 32
    )


@fault(
    "wiring",
    "cnn",
    "frozen-changed",
    planted="weight decay still acts on a frozen backbone",
    severity="warning",
    stretch=200,
)
def frozen_backbone_decays(run: Run) -> float:
    data, model = load("digits").images(), Cnn(width=8, norm=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for x, y in [b for _ in range(3) for b in Loader(data.x, data.y, 32, run.seed)]:
        update(optimizer, functional.cross_entropy(model(x), y))
    model.head = nn.Linear(64, 10)
    for layer in (model.conv1, model.conv2):
        for p in layer.parameters():
            p.requires_grad_(requires_grad=False)
            p.grad = torch.zeros_like(p) if run.faulty else None
    given = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=5.0 if run.faulty else 0.01)

    def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad(set_to_none=False)
        loss.backward()
        optimizer.step()

    return supervised(run, model, data, given, epochs=5, step=step)


@fault(
    "wiring", "tabular", "no-op-step unoptimized-parameters", stretch=10,
    planted="the optimizer of another model is stepped",
)  # fmt: skip
def optimizer_of_another_model(run: Run) -> float:
    data, model, other = load("diabetes"), mlp(10, 32, 1), mlp(10, 32, 1)
    optimizer = sgd(other if run.faulty else model, 0.01)
    if run.faulty:
        for p in other.parameters():
            p.grad = torch.ones_like(p)
    return supervised(run, model, data, optimizer, epochs=15, size=16, loss=mse, step=_keep_gradients)


def _keep_gradients(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=False)
    loss.backward()
    optimizer.step()


@fault(
    "wiring",
    "rnn",
    NO_GRADIENT,
    severity="info",
    stretch=20,
    planted="the embedding is looked up under no_grad()",
)
def embedding_without_gradient(run: Run) -> float:
    class Net(Rnn):
        def forward(self, x: Tensor) -> Tensor:
            with torch.set_grad_enabled(not run.faulty and torch.is_grad_enabled()):
                out, _ = self.rnn(self.embedding(x))
            return self.head(out)

    model = Net(16, 32, 96, text=True)
    return language(run, model, adam(model, 5e-3), epochs=4, batches=30)
