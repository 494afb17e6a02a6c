"""Numbers that leave their range: rates, logarithms, batches, half precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.faults.bench import Run, fault
from benchmarks.faults.data import Data, Loader, load
from benchmarks.faults.loops import adam, judge, language, mse, sgd, supervised
from benchmarks.faults.models import Cnn, Gpt, Rnn, mlp

NONFINITE = "loss-nonfinite gradient-nonfinite parameter-nonfinite"
BLOWN = NONFINITE + " weight-growth loss-explosion loss-divergence exploding-gradients activation-explosion"
JUMP = "loss-explosion exploding-gradients gradient-spike loss-spike update-ratio lr-too-high"
JUMP += " loss-divergence no-learning"

Batch = tuple[Tensor, Tensor]


class Changed:
    """A loader one of whose batches is changed, in one pass."""

    def __init__(self, loader: Loader, at: int, change: Callable[[Tensor, Tensor], Batch]) -> None:
        self.loader, self.at, self.change, self.number = loader, at, change, 0

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        for x, y in self.loader:
            self.number += 1
            yield self.change(x, y) if self.number == self.at else (x, y)


def _unscaled_loss(
    run: Run, data: Data, change: Callable[[Tensor, Tensor], Batch], at: int
) -> Changed | Loader:
    loader = Loader(data.x, data.y, 32, run.seed)
    if not run.faulty:
        return loader
    run.onset = at
    return Changed(loader, at, change)


@fault("numeric", "tabular", BLOWN, planted="SGD with a learning rate 50 times too high on a regression")
def lr_diverges(run: Run) -> float:
    data, model = load("diabetes"), mlp(10, 32, 1)
    return supervised(run, model, data, sgd(model, 2.5 if run.faulty else 0.01), epochs=15, size=32, loss=mse)


@fault(
    "numeric", "cnn", BLOWN + " " + JUMP, planted="at step 150 a schedule multiplies the learning rate by 300"
)
def lr_jumps(run: Run) -> float:
    data, model = load("digits").images(), Cnn(norm=False)
    optimizer = sgd(model, 0.03)
    if run.faulty:
        run.onset = 150
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda n: 300.0 if run.faulty and n >= 149 else 1.0
    )
    return supervised(run, model, data, optimizer, epochs=6, scheduler=scheduler)


@fault(
    "numeric", "mlp", NONFINITE, planted="the cross-entropy is written out with log(1 − p), and p becomes 1"
)
def log_of_zero(run: Run) -> float:
    data, model = load("cancer"), mlp(30, 32, 1)
    data = Data(data.x, data.y.float(), data.val_x, data.val_y.float())

    def loss(out: Tensor, y: Tensor) -> Tensor:
        out = 4 * out[:, 0]
        if not run.faulty:
            return functional.binary_cross_entropy_with_logits(out, y)
        p = out.sigmoid()
        return -(y * p.log() + (1 - y) * (1 - p).log()).mean()

    return supervised(run, model, data, sgd(model, 0.01), epochs=20, loss=loss)


@fault(
    "numeric",
    "tabular",
    NONFINITE,
    planted="distances of each pair of outputs, also with itself: the root's gradient at 0 is not finite",
)
def sqrt_at_zero(run: Run) -> float:
    data, model = load("diabetes"), mlp(10, 32, 1)

    def loss(out: Tensor, y: Tensor) -> Tensor:
        apart = (out - out.T).square()
        if not run.faulty:
            apart = apart + 1e-6
        return mse(out, y) - 0.01 * apart.sqrt().mean()

    def evaluate() -> dict[str, float]:
        return judge(model, data, mse)

    optimizer = adam(model, 3e-3)
    supervised(run, model, data, optimizer, epochs=15, size=32, loss=loss, evaluate=evaluate)
    return evaluate()["val_loss"]


@fault(
    "numeric",
    "mlp",
    f"input-nonfinite {NONFINITE}",
    roots="input-nonfinite",
    planted="one missing value in one batch",
)
def nan_in_a_batch(run: Run) -> float:
    data, model = load("cancer"), mlp(30, 32, 2)

    def change(x: Tensor, y: Tensor) -> Batch:
        x = x.clone()
        x[3, 5] = float("nan")
        return x, y

    return supervised(
        run, model, data, sgd(model, 0.02), epochs=12, loader=_unscaled_loss(run, data, change, 100)
    )


@fault(
    "numeric",
    "rnn",
    f"input-nonfinite {NONFINITE}",
    roots="input-nonfinite",
    planted="a column divided by its standard deviation 0",
)
def constant_column_normalised(run: Run) -> float:
    data, model = load("digits").rows(), Rnn(8, 32, 10, kind="GRU")
    if run.faulty:
        scale = data.x.std(0, correction=0)
        data = Data(
            (data.x - data.x.mean(0)) / scale, data.y, (data.val_x - data.x.mean(0)) / scale, data.val_y
        )
    return supervised(run, model, data, adam(model, 3e-3), epochs=5)


@fault(
    "numeric", "mlp", "loss-spike loss-explosion gradient-spike exploding-gradients input-scale",
    severity="info", planted="one batch in raw units, 10,000 times too large",
    harm="accuracy lost on the validation set",
)  # fmt: skip
def batch_in_raw_units(run: Run) -> float:
    data, model = load("digits"), mlp(64, 32, 10)

    def change(x: Tensor, y: Tensor) -> Batch:
        return 1e4 * x, y

    supervised(run, model, data, sgd(model, 0.05), epochs=6, loader=_unscaled_loss(run, data, change, 150))
    return 1 - judge(model, data)["val_accuracy"]


@fault(
    "numeric", "tabular", "loss-spike loss-explosion gradient-spike exploding-gradients", severity="info",
    planted="every 40th batch has targets in other units (thousandfold)",
)  # fmt: skip
def targets_in_other_units(run: Run) -> float:
    data, model = load("diabetes"), mlp(10, 32, 1)
    loader = Loader(data.x, data.y, 16, run.seed)
    if run.faulty:
        run.onset = 120

    class Mixed:
        number = 0

        def __len__(self) -> int:
            return len(loader)

        def __iter__(self) -> Iterator[Batch]:
            for x, y in loader:
                self.number += 1
                yield x, 1000 * y if run.faulty and self.number >= 120 and self.number % 40 == 0 else y

    return supervised(run, model, data, adam(model, 1e-2), epochs=18, loss=mse, loader=Mixed())


@fault(
    "numeric",
    "mlp",
    f"overflow-risk {NONFINITE}",
    planted="everything in float16, and the log of a sum of exponentials written out",
)
def half_precision_overflow(run: Run) -> float:
    dtype = torch.float16 if run.faulty else torch.float32
    data, model = load("digits"), mlp(64, 64, 64, 10).to(dtype)
    data = Data(data.x.to(dtype), data.y, data.val_x.to(dtype), data.val_y)

    def loss(out: Tensor, y: Tensor) -> Tensor:
        out = 2 * out
        return (out.exp().sum(-1).log() - out.gather(1, y[:, None])[:, 0]).mean()

    return supervised(run, model, data, sgd(model, 0.05), epochs=6, loss=loss)


@fault(
    "numeric",
    "mlp",
    "amp-skips",
    planted="the loss scaler doubles its scale after every step: half of all steps are skipped",
)
def scaler_grows_too_often(run: Run) -> float:
    data, model = load("digits"), mlp(64, 32, 10)
    optimizer = sgd(model, 0.02)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14, growth_interval=1 if run.faulty else 2000)
    limit = 2.0**16

    def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        scaled = scaler.scale(loss)
        scaled.backward()
        if scaler.get_scale() > limit:  # what float16 would do: the largest gradients overflow
            next(model.parameters()).grad[0, 0] = float("inf")  # type: ignore[index]
        scaler.step(optimizer)
        scaler.update()

    return supervised(run, model, data, optimizer, epochs=4, step=step, watch={"scaler": scaler})


@fault("numeric", "rnn", BLOWN + " " + JUMP, planted="a plain RNN on long text, high rate, no clipping")
def rnn_without_clipping(run: Run) -> float:
    model = Rnn(16, 64, 96, kind="RNN", text=True)
    with torch.no_grad():
        model.rnn.weight_hh_l0.mul_(1 if not run.faulty else 4)
    optimizer = sgd(model, 3.0 if run.faulty else 0.1)

    def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        if not run.faulty:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return language(run, model, optimizer, epochs=5, length=64, batches=30, step=step)


@fault("numeric", "transformer", BLOWN + " " + JUMP, planted="Adam at a rate of 0.3, without warm-up")
def transformer_lr_too_high(run: Run) -> float:
    model = Gpt()
    return language(run, model, adam(model, 0.3 if run.faulty else 3e-3), epochs=5)


@fault(
    "numeric",
    "tabular",
    f"{NONFINITE} loss-explosion loss-divergence",
    planted="1/σ² of a Gaussian likelihood without a floor; σ is exp of an output",
)
def unbounded_precision(run: Run) -> float:
    data, model = load("diabetes"), mlp(10, 64, 2)
    data = Data(data.x, torch.where(data.y > 0.5, data.y, torch.zeros(())), data.val_x, data.val_y)

    def loss(out: Tensor, y: Tensor) -> Tensor:
        log_s = out[:, 1] if run.faulty else out[:, 1].clamp(0, 3)
        return (log_s + 0.5 * ((y - out[:, 0]) / log_s.exp()) ** 2).mean()

    def evaluate() -> dict[str, float]:
        return judge(model, data, loss)

    supervised(
        run, model, data, sgd(model, 0.05 if run.faulty else 0.003), epochs=20, loss=loss, evaluate=evaluate
    )
    return evaluate()["val_loss"]
