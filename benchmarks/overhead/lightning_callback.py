"""What the Lightning callback costs over the bare Trainer: step time, paired and interleaved.

    python benchmarks/overhead/lightning_callback.py            # about a minute
    python benchmarks/overhead/lightning_callback.py --write    # and keep the figures beside this file

Two processes fit the same module, one with ``WatcherCallback()``; one at a time trains, for a block of steps,
and a bare block comes before and after every watched one. A process trains as long as its loader gives
batches: the loader waits for its turn. Nothing else differs; there are no loggers and no progress bar.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

from benchmarks.overhead.interleaved import choose_cores  # noqa: E402 - the path is set above
from benchmarks.overhead.paired import Block, Ratios, pairs_of, ratios, tolerance  # noqa: E402
from benchmarks.overhead.worker import Cores, Finish, Place, Turn  # noqa: E402
from benchmarks.overhead.workloads import Batch, build  # noqa: E402

GOAL = 1.02
LAST = Path(__file__).with_suffix(".json")
BARE, WATCHED = "bare Trainer", "Lightning callback over the bare Trainer"
_WARM_STEPS = 100
_PATIENCE_S = 180.0


class Gate(torch.utils.data.IterableDataset[Batch]):
    """Gives batches during a turn; between turns it waits, and says how long the steps took."""

    def __init__(self, orders: Connection, batches: Iterator[Batch], place: Place) -> None:
        self._orders, self._batches, self._place = orders, batches, place
        self.callback: Any = None

    def __iter__(self) -> Iterator[Batch]:
        while isinstance(order := self._orders.recv(), Turn):
            self._place.enter()
            if self.callback is not None:
                # An evaluation is no training time: the pause in which the other trained is not counted.
                self.callback.watch.log(eval_turn=0.0)
                self.callback._recording.idle()
            done, cpu, started = 0, time.process_time(), time.perf_counter()
            while (took := time.perf_counter() - started) < order.seconds or done < order.steps:
                yield next(self._batches)
                done += 1
            self._orders.send(Block(done, took, time.process_time() - cpu))
            self._place.leave()


def fit(orders: Connection, workload: str, folder: Path, cores: Cores, *, watched: bool) -> None:
    """Fit until there are no more turns; an error is sent back as a string."""
    try:
        torch.set_num_threads(1)
        warnings.simplefilter("ignore")
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        import lightning

        trained = build(workload)

        class Module(lightning.LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.net = trained.model

            def training_step(self, batch: Batch) -> torch.Tensor:
                return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

            def configure_optimizers(self) -> torch.optim.Optimizer:
                return trained.optimizer

        place = Place(cores)
        gate = Gate(orders, trained.batches, place)
        callbacks = []
        if watched:
            from torchwatch_integrations.lightning import WatcherCallback

            gate.callback = WatcherCallback(str(folder / "run.jsonl"), sinks=[], config={"terminal": False})
            callbacks = [gate.callback]
        trainer = lightning.Trainer(
            accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, callbacks=callbacks,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        )  # fmt: skip
        place.leave()
        trainer.fit(Module(), torch.utils.data.DataLoader(gate, batch_size=None))
        orders.send(trainer.global_step)
    except Exception:  # noqa: BLE001 - it is the parent that reports it
        orders.send(traceback.format_exc())


def measure(
    workload: str, seconds: float, block_s: float, folder: Path, *, pinned: bool
) -> list[tuple[str, Block]]:
    """Blocks in the order in which they were trained; every other one is bare."""
    context = multiprocessing.get_context("spawn")
    lines, processes = {}, []
    cores = choose_cores(pinned)
    for name in (BARE, WATCHED):
        lines[name], there = context.Pipe()
        given = (there, workload, folder, cores)
        processes.append(context.Process(target=fit, args=given, kwargs={"watched": name == WATCHED}))
        processes[-1].start()
        there.close()
    try:
        for line in lines.values():
            _ask(line, Turn(2.0, _WARM_STEPS))
        blocks = [(BARE, _ask(lines[BARE], Turn(block_s, 1)))]
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            blocks += [(name, _ask(lines[name], Turn(block_s, 1))) for name in (WATCHED, BARE)]
        for line in lines.values():
            _ask(line, Finish())
    finally:
        for process in processes:
            process.join(10.0)
            process.kill()
    return blocks


def _ask(line: Connection, order: Turn | Finish) -> Any:
    line.send(order)
    answer = line.recv() if line.poll(_PATIENCE_S) else "no answer"
    if isinstance(answer, str):
        raise RuntimeError(f"a Trainer failed: {answer}")  # noqa: TRY004 - it is what it said
    return answer


def described(workload: str, bare_s: float, found: Ratios) -> str:
    """One row, and whether the goal was met."""
    met = "met" if found.median <= GOAL else "missed"
    return (
        f"{WATCHED}, {workload}: median {found.median:.3f} (quartiles {found.quartiles[0]:.3f} to "
        f"{found.quartiles[1]:.3f}), in all {found.total:.3f} ({found.interval[0]:.3f} to "
        f"{found.interval[1]:.3f}), CPU time {found.cpu:.3f}; {found.pairs} pairs, {found.left_out} left "
        f"out; bare step {bare_s * 1e3:.1f} ms; goal: median ≤ {GOAL:.2f}, {met}"
    )


def main() -> None:
    """Measure, print the row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workload", default="mlp", help="of benchmarks/overhead/workloads.py [mlp]")
    parser.add_argument("--seconds", type=float, default=40.0, help="measure so long, bare blocks too [40]")
    parser.add_argument("--block", type=float, default=1.0, help="length of a block (s) [1]")
    parser.add_argument("--any-core", action="store_true", help="do not pin the process that trains")
    parser.add_argument("--write", action="store_true", help=f"keep the figures in {LAST.name}")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        blocks = measure(
            arguments.workload,
            arguments.seconds,
            arguments.block,
            Path(folder),
            pinned=not arguments.any_core,
        )
    pairs = pairs_of(blocks, BARE)[WATCHED]
    found = ratios(pairs, tolerance(pairs))
    bare = [block for name, block in blocks if name == BARE]
    bare_s = sum(b.seconds for b in bare) / sum(b.steps for b in bare)
    print(row := described(arguments.workload, bare_s, found))
    if arguments.write:
        told = {"row": row, "median": found.median, "total": found.total, "upper": found.upper}
        LAST.write_text(json.dumps(told | {"bare_step_s": bare_s, "pairs": found.pairs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
