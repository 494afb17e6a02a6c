"""Other processes and threads: forked workers are silent, and nobody is touched who is not ours."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.data import DataLoader, Dataset

from tests import helpers_footprint as footprint
from tests.helpers_host import CONFIG, Loop
from tests.helpers_replay import assert_live_equals_replay, steps_in
from torchwatch import Watcher
from torchwatch.records import End

if TYPE_CHECKING:
    from pathlib import Path


class Meddling(Dataset[Tensor]):
    """Does in its worker everything that only the training may do."""

    def __init__(self, loop: Loop, watch: Watcher) -> None:
        self.loop, self.watch = loop, watch

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Tensor:
        self.watch.log(loss=1e9, stray=1.0)
        self.watch.log(val_loss=1e9)
        self.loop.step()
        self.watch.step(loss=1e9)
        self.watch.epoch()
        return torch.full((5,), float(index))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_forked_loader_workers_are_silent(tmp_path: Path) -> None:
    loop, path = Loop(), tmp_path / "run.jsonl"
    with Watcher(loop.model, path, config=CONFIG) as watch:
        watch.log(loss=loop.step())
        loader = DataLoader(
            Meddling(loop, watch), batch_size=2, num_workers=2, multiprocessing_context="fork"
        )
        for _ in watch.batches(loader):
            watch.log(loss=loop.step())
    records = assert_live_equals_replay(path)
    assert [step.step for step in steps_in(records)] == [1, 2, 3, 4, 5]
    lines = path.read_bytes()
    assert b"stray" not in lines
    assert b"1e9" not in lines
    assert b"1000000000" not in lines


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
@pytest.mark.parametrize("leave", ["exit", "abandon"])
def test_a_forked_child_that_leaves_the_block_writes_nothing(leave: str, tmp_path: Path) -> None:
    loop, path = Loop(), tmp_path / "run.jsonl"
    watch = Watcher(loop.model, path, config=CONFIG)
    with watch:
        watch.log(loss=loop.step())
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                loop.step()
                hooked = bool(loop.model(loop.batches[0][0])._backward_hooks)
                if leave == "exit":
                    watch.__exit__(None, None, None)
                status = 2 if hooked else 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert loop.model(loop.batches[0][0])._backward_hooks  # here, in the parent, it is watched
        watch.log(loss=loop.step())
    records = assert_live_equals_replay(path)
    assert len(steps_in(records)) == 2
    assert sum(isinstance(record, End) for record in records) == 1
    assert path.read_bytes().count(b'"kind":"run"') == 1


def test_the_first_watcher_of_a_process_draws_nothing_from_the_generators(tmp_path: Path) -> None:
    """What is imported on the way must not draw either, whenever that is: alerts are shown here, too."""
    program = f"""
import random, numpy, torch
from torchwatch import Watcher
before = random.getstate(), repr(numpy.random.get_state()), torch.get_rng_state().tolist()
model = torch.nn.Linear(2, 1)
torch.set_rng_state(torch.tensor(before[2], dtype=torch.uint8))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
with Watcher(model, {str(tmp_path / "run.jsonl")!r}) as watch:
    for step in range(40):
        model(torch.ones(3, 2)).sum().backward()
        optimizer.step()
        watch.log(loss=float("nan"))
    watch.epoch(val_loss=1.0)
after = random.getstate(), repr(numpy.random.get_state()), torch.get_rng_state().tolist()
assert [a == b for a, b in zip(before, after)] == [True, True, True]
print(len(watch.alerts))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0
    assert "loss-nonfinite" in done.stderr


def test_importing_the_watcher_draws_nothing_from_the_generators() -> None:
    program = """
import random, numpy, torch
before = random.getstate(), repr(numpy.random.get_state()), torch.get_rng_state().tolist()
import torchwatch.watcher
after = random.getstate(), repr(numpy.random.get_state()), torch.get_rng_state().tolist()
assert before == after
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_everything_in_a_thread_of_its_own(tmp_path: Path) -> None:
    loop, path = Loop(), tmp_path / "run.jsonl"

    def train() -> None:
        with Watcher(loop.model, path, config=CONFIG) as watch:
            for _ in range(5):
                watch.log(loss=loop.step())

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert len(steps_in(assert_live_equals_replay(path))) == 5


class Spied(nn.Parameter):
    """A parameter that notes which threads ask for its gradient."""

    readers: ClassVar[set[int]] = set()

    @property
    def grad(self) -> Tensor | None:  # type: ignore[override]
        self.readers.add(threading.get_ident())
        return Tensor.grad.__get__(self)  # type: ignore[attr-defined, no-any-return]

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        Tensor.grad.__set__(self, value)  # type: ignore[attr-defined]


def test_our_gradients_are_only_read_in_the_thread_that_trains(tmp_path: Path) -> None:
    """Reading ``grad`` elsewhere races with a backward pass, which holds no lock: the process would crash."""
    loop, other = Loop(), Loop()
    loop.model[0].weight = Spied(loop.model[0].weight.detach())  # type: ignore[index]
    loop.optimizer = torch.optim.SGD(loop.model.parameters(), lr=0.05)
    criterion = nn.MSELoss()

    def train() -> None:
        for _ in range(3):
            criterion(other.model(other.batches[0][0]), other.batches[0][1]).backward()
            nn.utils.clip_grad_norm_(other.model.parameters(), 0.1)
            nn.utils.clip_grad_value_(other.model.parameters(), 0.1)
            other.optimizer.step()

    Spied.readers = set()
    with Watcher(loop.model, tmp_path / "run.jsonl", config=CONFIG) as watch:
        for stepped in (False, True):
            if stepped:
                watch.log(loss=loop.step())
            thread = threading.Thread(target=train)
            thread.start()
            thread.join()
        nn.utils.clip_grad_norm_(loop.model.parameters(), 0.1)
        loop.step()
    assert Spied.readers == {threading.get_ident()}
    assert len(steps_in(assert_live_equals_replay(tmp_path / "run.jsonl"))) == 2


def test_leaving_while_another_thread_is_inside_its_optimizer_step(tmp_path: Path) -> None:
    """Its step iterates over the same global hooks: taking ours away under it would raise there."""
    loop, other = Loop(), Loop()
    inside, left, errors = threading.Event(), threading.Event(), []

    def wait(optimizer: Any, args: Any, kwargs: Any) -> None:
        if optimizer is other.optimizer:
            inside.set()
            left.wait(10)

    def train() -> None:
        try:
            other.step()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=train)
    with Watcher(loop.model, tmp_path / "run.jsonl", config=CONFIG):
        handles = [register_optimizer_step_pre_hook(hook) for hook in (wait, lambda *args: None)]
        loop.step()
        thread.start()
        inside.wait(10)
    left.set()
    thread.join()
    for handle in handles:
        handle.remove()
    assert errors == []
    assert other.taken == 1
    for leaving in threading.enumerate():
        if leaving is not threading.current_thread():
            leaving.join(5)
    assert footprint.global_hooks() == {key: [] for key in footprint.global_hooks()}
