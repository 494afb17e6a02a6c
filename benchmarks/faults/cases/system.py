"""What surrounds the training: loaders, memory, other ranks, crashes.

Checks whose limits are tens of seconds are given limits of a second here (``config``), because a training of
the bench lasts no longer; the ratio between limit and fault is about the one of a real run.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.faults.bench import Run, fault
from benchmarks.faults.data import Loader, load
from benchmarks.faults.loops import judge, sgd, supervised, update
from benchmarks.faults.models import Cnn, mlp


def seconds(train: Callable[[], object]) -> float:
    started = time.perf_counter()
    train()
    return time.perf_counter() - started


class Slow:
    """A loader whose batches take so long."""

    def __init__(self, loader: Loader, delay_s: float) -> None:
        self.loader, self.delay_s = loader, delay_s

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.loader:
            time.sleep(self.delay_s)
            yield batch


@fault(
    "system",
    "mlp",
    "input-bound",
    planted="every batch takes 30 ms to read, and no worker reads ahead",
    harm="seconds",
)
def slow_loader(run: Run) -> float:
    data, model = load("digits"), mlp(64, 32, 10)
    loader = Loader(data.x, data.y, 32, run.seed)
    slow = Slow(loader, 0.03) if run.faulty else loader
    return seconds(lambda: supervised(run, model, data, sgd(model, 0.03), epochs=3, loader=slow))


@fault(
    "system",
    "cnn",
    "input-bound",
    planted="images are decoded in the training process, 15 ms a batch",
    harm="seconds",
)
def decoding_in_the_loop(run: Run) -> float:
    data, model = load("digits").images(), Cnn(width=4)
    loader = Loader(data.x, data.y, 32, run.seed)

    class Decoding(Slow):
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            for batch in self.loader:
                until = time.perf_counter() + self.delay_s
                while time.perf_counter() < until:  # busy, as a decoder is
                    sum(range(500))
                yield batch

    slow = Decoding(loader, 0.015) if run.faulty else loader
    return seconds(lambda: supervised(run, model, data, sgd(model, 0.03), epochs=5, loader=slow))


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@fault(
    "system", "mlp", "memory-growth", harm="megabytes",
    planted="losses are kept with their graphs, 6 MB a step", config={"system_s": 0.25},
)  # fmt: skip
def graphs_kept(run: Run) -> float:
    data, model = load("digits"), mlp(64, 32, 10)
    kept: list[Tensor] = []
    before = resident_mb()

    def loss(out: Tensor, y: Tensor) -> Tensor:
        value = functional.cross_entropy(out, y)
        if run.faulty and out.requires_grad:
            wide = out.repeat(1, 2400).exp()
            kept.append(wide.mean())
        return value

    def on_step(_: int) -> None:
        time.sleep(0.01)  # so that memory, which is read four times a second, is read within an epoch

    supervised(run, model, data, sgd(model, 0.03), epochs=5, loss=loss, on_step=on_step)
    return resident_mb() - before


@fault(
    "system", "mlp", "stall", harm="seconds",
    planted="a lock that nobody releases: nothing happens for four seconds",
    config={"system_s": 0.1,
            "limits": {"stall": {"wait_s": 1.0, "samples": 10, "other_cores": 0, "io_mb_s": 0}}},
)  # fmt: skip
def hangs(run: Run) -> float:
    data, model = load("digits"), mlp(64, 32, 10)
    if run.faulty:
        run.onset = 100

    def on_step(number: int) -> None:
        if run.faulty and number == 100:
            time.sleep(4.0)

    return seconds(lambda: supervised(run, model, data, sgd(model, 0.03), epochs=4, on_step=on_step))


@fault(
    "system", "mlp", "throughput-drop slow-interval", severity="info", harm="seconds",
    planted="a list that is searched at every step grows and grows, from step 150 on",
    config={"interval_steps": 25, "limits": {"throughput-drop": {"seconds": 1.0}}},
)  # fmt: skip
def loop_gets_slower(run: Run) -> float:
    data, model = load("digits"), mlp(64, 32, 10)
    if run.faulty:
        run.onset = 150

    def on_step(number: int) -> None:
        if run.faulty and number >= 150:
            until = time.perf_counter() + 0.0003 * (number - 100)
            while time.perf_counter() < until:
                sum(range(500))

    return seconds(lambda: supervised(run, model, data, sgd(model, 0.03), epochs=6, on_step=on_step))


@fault(
    "system",
    "tabular",
    "error-logs",
    planted="the allocator gives up in the middle of the training",
    harm="the training ends",
    severity="critical",
)
def out_of_memory(run: Run) -> float:
    data, model = load("cancer"), mlp(30, 16, 2)
    if run.faulty:
        run.onset = 60

    def on_step(number: int) -> None:
        if run.faulty and number == 60:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    return supervised(run, model, data, sgd(model, 0.02), epochs=8, on_step=on_step)


@fault(
    "system",
    "transformer",
    "error-logs transformer-position-capacity",
    planted="a window longer than the position table: an index error at step 40",
    harm="the training ends",
)
def longer_than_positions(run: Run) -> float:
    from benchmarks.faults.data import text, windows
    from benchmarks.faults.loops import flat_cross_entropy
    from benchmarks.faults.models import Gpt

    model = Gpt(length=32)
    optimizer = sgd(model, 0.05)
    if run.faulty:
        run.onset = 40
    with run.watch(model) as watch:
        for number in range(1, 121):
            length = 40 if run.faulty and number == 40 else 32
            x, y = windows(text()[0], 8, length, run.generator)
            loss = flat_cross_entropy(model(x), y)
            update(optimizer, loss)
            watch.log(loss=loss)
    return float(loss)


@fault(
    "system",
    "tabular",
    "error-logs",
    planted="nine of ten batches are lost to an error that is caught and logged",
    harm="validation loss",
    severity="warning",
)
def errors_swallowed(run: Run) -> float:
    data, model = load("digits"), mlp(64, 32, 10)
    loader = Loader(data.x, data.y, 32, run.seed)
    optimizer = sgd(model, 0.002)
    log = logging.getLogger("training")
    log.addHandler(logging.NullHandler())
    log.propagate = False

    def read(i: int, x: Tensor) -> Tensor:
        if run.faulty and i % 10 != 9:
            raise OSError("cannot read sample")
        return x

    with run.watch(model) as watch:
        for _ in range(3):
            for i, (x, y) in enumerate(watch.batches(loader)):
                try:
                    loss = functional.cross_entropy(model(read(i, x)), y)
                    update(optimizer, loss)
                    watch.log(loss=loss)
                except OSError:
                    log.exception("batch left out")
            watch.epoch(**judge(model, data))
    return judge(model, data)["val_loss"]


def two_ranks(run: Run, body: Callable[[int], float]) -> float:
    """Train on two processes; ``body`` gets the rank. What rank 0 returns is returned."""
    store = Path(run.folder) / "store"
    child = os.fork()
    rank = 0 if child else 1
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2"}
    try:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
        result = body(rank)
        if child:
            os.waitpid(child, 0)
        return result
    finally:
        if not child:
            os._exit(0)
        dist.destroy_process_group()
        del os.environ["RANK"], os.environ["WORLD_SIZE"]


def averaged(model: nn.Module) -> None:
    """Average gradients over ranks, as DistributedDataParallel does."""
    for p in model.parameters():
        dist.all_reduce(p.grad)
        p.grad /= 2


@fault(
    "system", "mlp", "straggler", planted="one of two ranks needs 15 ms more for each step", harm="seconds",
    config={"interval_steps": 25},
)  # fmt: skip
def straggler(run: Run) -> float:
    def body(rank: int) -> float:
        data, model = load("digits"), nn.parallel.DistributedDataParallel(mlp(64, 32, 10))

        def on_step(_: int) -> None:
            if run.faulty and rank == 1:
                time.sleep(0.015)

        return seconds(lambda: supervised(run, model, data, sgd(model, 0.03), epochs=3, on_step=on_step))

    return two_ranks(run, body)


@fault(
    "wiring",
    "mlp",
    "replica-drift",
    planted="gradients of the ranks are never averaged",
    severity="critical",
    harm="distance of the ranks' weights",
)
def replicas_drift(run: Run) -> float:
    def body(rank: int) -> float:
        data, model = load("digits"), mlp(64, 32, 10)
        half = (
            data.few(len(data.x) // 2)
            if rank
            else type(data)(data.x[700:], data.y[700:], data.val_x, data.val_y)
        )

        def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
            optimizer.zero_grad()
            loss.backward()
            if not run.faulty:
                averaged(model)
            optimizer.step()

        supervised(
            run,
            model,
            half,
            sgd(model, 0.03),
            epochs=6,
            step=step,
            loader=Loader(half.x[:700], half.y[:700], 32, run.seed),
        )
        flat = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
        mean = flat.clone()
        dist.all_reduce(mean)
        return float((flat - mean / 2).norm())

    return two_ranks(run, body)


@fault(
    "system", "mlp", "rank-silent", planted="one of two ranks is killed", severity="critical",
    harm="validation loss: the other rank's data are lost",
    config={"system_s": 0.2, "limits": {"rank-silent": {"silent_s": 0.8}}},
)  # fmt: skip
def rank_killed(run: Run) -> float:
    def body(rank: int) -> float:
        data, model = load("digits"), mlp(64, 32, 10)
        now = [0]
        if run.faulty:
            run.onset = 30

        def on_step(number: int) -> None:
            now[0] = number
            if run.faulty and number == 30 and rank == 1:
                os._exit(1)
            if number > 60 or not run.faulty:
                time.sleep(0.005)

        def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
            optimizer.zero_grad()
            loss.backward()
            if not run.faulty or now[0] < 30:
                averaged(model)
            optimizer.step()

        loader = Loader(data.x[rank:400:2], data.y[rank:400:2], 16, run.seed)
        return supervised(
            run, model, data, sgd(model, 0.02), epochs=24, on_step=on_step, step=step, loader=loader
        )

    return two_ranks(run, body)
