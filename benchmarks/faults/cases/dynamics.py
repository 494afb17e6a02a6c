"""Trainings that are wired well and go wrong: data, rates, objectives."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.faults.bench import Run, fault
from benchmarks.faults.data import Data, Loader, TextLoader, load, text, windows
from benchmarks.faults.loops import adam, in_epochs, judge, language, sgd, supervised
from benchmarks.faults.models import Cnn, Gpt, Rnn, mlp


@fault("dynamics", "mlp", "overfitting", planted="60 samples, no regularisation, 50 epochs")
def few_samples(run: Run) -> float:
    data, model = load("digits"), mlp(64, 64, 10)
    noise = torch.randn(data.x.shape, generator=run.generator)
    data = Data(data.x + 0.2 * noise, data.y, data.val_x, data.val_y)
    size = 20 if run.faulty else 32
    data = data.few(60) if run.faulty else data
    return supervised(run, model, data, adam(model, 1e-2), epochs=60 if run.faulty else 4, size=size)


@fault(
    "dynamics",
    "cnn",
    "overfitting",
    planted="half of the training labels are drawn at random, and the network learns them",
)
def wrong_labels_learned(run: Run) -> float:
    data, model = load("digits").images().few(300), Cnn(width=16)
    if run.faulty:
        y = data.y.clone()
        some = torch.rand(len(y), generator=run.generator) < 0.5
        y[some] = torch.randint(0, 10, (int(some.sum()),), generator=run.generator)
        data = Data(data.x, y, data.val_x, data.val_y)
    return supervised(run, model, data, adam(model, 1e-2), epochs=36)


@fault("dynamics", "mlp", "no-learning overfitting", planted="labels and samples are shuffled apart")
def shuffled_labels(run: Run) -> float:
    data, model = load("digits"), mlp(64, 32, 10)
    if run.faulty:
        order = torch.randperm(len(data.y), generator=run.generator)
        data = Data(data.x, data.y[order], data.val_x, data.val_y)
    return supervised(run, model, data, sgd(model, 0.02), epochs=10)


@fault("dynamics", "rnn", "no-learning overfitting", planted="targets lag behind by one batch")
def labels_of_the_batch_before(run: Run) -> float:
    data, model = load("digits").rows(), Rnn(8, 32, 10)
    loader = Loader(data.x, data.y, 32, run.seed)

    class Lagging:
        def __len__(self) -> int:
            return len(loader)

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            before = data.y[:32]
            for x, y in loader:
                yield x, before if run.faulty else y
                before = y

    return supervised(run, model, data, adam(model, 3e-3), epochs=9, loader=Lagging())


@fault(
    "dynamics",
    "mlp",
    "constant-loss class-ignored overfitting",
    severity="info",
    planted="every training label is 0",
)
def constant_labels(run: Run) -> float:
    data, model = load("digits"), mlp(64, 32, 10)
    if run.faulty:
        data = Data(data.x, torch.zeros_like(data.y), data.val_x, data.val_y)

    def evaluate() -> dict[str, object]:
        with torch.no_grad():
            said = model(data.val_x).argmax(1)
        recall = {str(k): float((said[data.val_y == k] == k).float().mean()) for k in range(10)}
        return judge(model, data) | {"val_recall": recall}

    return supervised(run, model, data, sgd(model, 0.05), epochs=8, evaluate=evaluate)


@fault(
    "dynamics",
    "tabular",
    "class-ignored",
    planted="2 % of the samples are of the class that matters, unweighted",
    harm="recall lost on the rare class",
)
def rare_class_ignored(run: Run) -> float:
    data, model = load("cancer", 0.6), mlp(30, 16, 2)
    noise = 1.5 * torch.randn(data.x.shape, generator=run.generator)
    data = Data(
        data.x + noise,
        data.y,
        data.val_x + 1.5 * torch.randn(data.val_x.shape, generator=run.generator),
        data.val_y,
    )
    if run.faulty:
        rare = (data.y == 0).nonzero().flatten()[4:]
        keep = torch.ones(len(data.y), dtype=torch.bool)
        keep[rare] = False
        data = Data(data.x[keep], data.y[keep], data.val_x, data.val_y)

    def evaluate() -> dict[str, object]:
        with torch.no_grad():
            said = model(data.val_x).argmax(1)
        recall = {
            name: float((said[data.val_y == k] == k).float().mean()) for k, name in ((0, "ill"), (1, "well"))
        }
        return judge(model, data) | {"val_recall": recall}

    optimizer = sgd(model, 0.003, 0.9, weight_decay=0.05)
    supervised(run, model, data, optimizer, epochs=12, size=16, evaluate=evaluate)
    return 1 - evaluate()["val_recall"]["ill"]  # type: ignore[index]


@fault(
    "dynamics",
    "mlp",
    "forgetting",
    planted="the second task is learned without a look at the first",
    harm="accuracy lost on the first task",
)
def first_task_forgotten(run: Run) -> float:
    data, model = load("digits"), mlp(64, 64, 10)
    parts = [(data.y < 5), (data.y >= 5)]
    val = [(data.val_y < 5), (data.val_y >= 5)]
    optimizer = sgd(model, 0.03)
    if run.faulty:
        run.onset = 6 * 22 + 1

    def accuracies() -> dict[str, float]:
        with torch.no_grad():
            right = (model(data.val_x).argmax(1) == data.val_y).float()
        return {"low": float(right[val[0]].mean()), "high": float(right[val[1]].mean())}

    def rows(epoch: int) -> Tensor:
        return parts[epoch // 6] if run.faulty else parts[0] | parts[1]

    def loss_of(x: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(model(x), y)

    def evaluate() -> dict[str, object]:
        return {"val_accuracy": accuracies()}

    in_epochs(run, model, data, optimizer, loss_of, epochs=12, rows=rows, evaluate=evaluate)
    return 1 - accuracies()["low"]


@fault(
    "dynamics", "tabular", "train-val-leakage", severity="info",
    planted="the validation set is the training set",
    harm="loss on unseen samples minus the validation loss that is reported",
)  # fmt: skip
def validated_on_training_data(run: Run) -> float:
    data, model = load("digits"), mlp(64, 64, 10)
    data = Data(data.x[:300], data.y[:300], data.val_x, data.val_y)

    seen = Data(data.x, data.y, data.x, data.y)

    def evaluate() -> dict[str, float]:
        same = seen if run.faulty else data
        return judge(model, same) | {"accuracy": judge(model, seen)["val_accuracy"]}

    unseen = supervised(run, model, data, sgd(model, 0.05), epochs=25, size=20, evaluate=evaluate)
    return unseen - evaluate()["val_loss"]


@fault(
    "dynamics",
    "mlp",
    "lr-too-low no-learning update-ratio loss-plateau",
    severity="info",
    planted="a learning rate of 1e-7",
)
def lr_far_too_low(run: Run) -> float:
    data, model = load("digits"), mlp(64, 32, 10)
    return supervised(run, model, data, adam(model, 1e-7 if run.faulty else 1e-3), epochs=16)


@fault(
    "dynamics",
    "cnn",
    "lr-too-low no-learning update-ratio loss-plateau lr-zero",
    severity="info",
    planted="a scheduler meant for epochs is stepped at every batch: the rate decays a "
    "thousandfold in the first epoch",
)
def scheduler_per_batch(run: Run) -> float:
    data, model = load("digits").images(), Cnn(norm=False)
    optimizer = sgd(model, 0.03)
    decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.85)
    where = {"scheduler": decay} if run.faulty else {"each_epoch": decay}
    return supervised(run, model, data, optimizer, epochs=14, **where)


@fault(
    "dynamics",
    "tabular",
    "lr-too-high noisy-loss loss-divergence loss-explosion update-ratio",
    severity="info",
    harm="training loss of the last 20 steps",
    planted="full-batch descent with a learning rate at the edge of stability: the loss jumps up and down",
)
def lr_oscillates(run: Run) -> float:
    data, model = load("wine"), mlp(13, 32, 3)
    seen: list[float] = []

    def loss(out: Tensor, y: Tensor) -> Tensor:
        penalty = sum(p.square().sum() for p in model.parameters())
        value = functional.cross_entropy(out, y) + 0.02 * penalty
        if out.requires_grad:
            seen.append(float(value.detach()))
        return value

    optimizer = sgd(model, 3.5 if run.faulty else 1.0, 0.0)
    supervised(run, model, data, optimizer, epochs=80, size=len(data.x), loss=loss)
    return sum(seen[-20:]) / 20


@fault(
    "dynamics",
    "mlp",
    "loss-divergence loss-explosion exploding-gradients update-ratio loss-nonfinite "
    "lr-too-high no-learning dead-units",
    planted="the learning rate grows by 5 % a step (it was meant to decay)",
)
def lr_grows(run: Run) -> float:
    data, model = load("digits"), mlp(64, 32, 10)
    optimizer = sgd(model, 0.01)
    factor = 1.05 if run.faulty else 0.99
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: factor ** max(n - 50, 0))
    if run.faulty:
        run.onset = 51
    return supervised(run, model, data, optimizer, epochs=7, scheduler=scheduler)


@fault(
    "dynamics",
    "mlp",
    "undivided-accumulation loss-explosion exploding-gradients gradient-spike",
    severity="info",
    planted="from step 89 on gradients of eight batches are added up, undivided",
)
def undivided_accumulation(run: Run) -> float:
    data, model = load("digits"), mlp(64, 32, 10)
    optimizer = sgd(model, 0.3, 0.9)
    run.onset = 89
    with run.watch(model) as watch:
        for epoch in range(10):
            parts = 1 if epoch < 2 else 8
            optimizer.zero_grad()
            for i, (x, y) in enumerate(watch.batches(Loader(data.x, data.y, 32, run.seed + epoch))):
                loss = functional.cross_entropy(model(x), y)
                (loss if run.faulty else loss / parts).backward()
                watch.log(loss=loss)
                if (i + 1) % parts == 0:
                    optimizer.step()
                    optimizer.zero_grad()
            watch.epoch(**judge(model, data))
    return judge(model, data)["val_loss"]


@fault(
    "dynamics",
    "transformer",
    "overfitting",
    planted="a character model that sees the same 1,500 characters again and again",
)
def text_learned_by_heart(run: Run) -> float:
    model = Gpt(width=48)

    class Few(TextLoader):
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            codes = text()[0][:1500] if run.faulty else text()[0]
            for _ in range(self.batches):
                yield windows(codes, self.size, self.length, self.generator)

    return language(run, model, adam(model, 3e-3), epochs=14, loader=Few(25, seed=run.seed))


@fault(
    "dynamics",
    "transformer",
    "no-learning loss-plateau",
    severity="info",
    planted="targets are the text of somewhere else",
)
def text_and_targets_apart(run: Run) -> float:
    def apart(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x, y = batch
        return x, y[torch.randperm(len(y), generator=run.generator)][
            :, torch.randperm(y.shape[1], generator=run.generator)
        ]

    class Apart(TextLoader):
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            for batch in super().__iter__():
                yield apart(batch) if run.faulty else batch

    model = Gpt()
    return language(run, model, adam(model, 3e-3), epochs=9, loader=Apart(30, seed=run.seed))
