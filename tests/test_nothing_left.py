"""Nothing of a watcher stays: no hook, patch, thread, descriptor or reference, whatever the exit.

Longer than other files: the list of exits is one, and every test goes through all of it.
"""

from __future__ import annotations

import copy
import functools
import gc
import io
import pickle
import threading
import weakref
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests import helpers_footprint as footprint
from tests.helpers_replay import assert_live_equals_replay, steps_in
from torchwatch import WatchConfig, Watcher
from torchwatch.errors import WatcherClosed
from torchwatch.records import End, RunHeader
from torchwatch.runfile import read_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CONFIG = WatchConfig(terminal=False, activations_every=1)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True))
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


class Host:
    """A model, its optimizer and one clipped training step."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = Net()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)

    def step(self) -> torch.Tensor:
        self.optimizer.zero_grad()
        loss = F.mse_loss(self.model(torch.randn(6, 5)), torch.randn(6, 3))
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 0.1)
        self.optimizer.step()
        return loss.detach()

    def footprint(self) -> dict[str, Any]:
        parts = (
            footprint.on_modules(self.model),
            footprint.on_optimizer(self.optimizer),
            footprint.process(),
        )
        return {**parts[0], **{f"optimizer {k}": v for k, v in parts[1].items()}, **parts[2]}


@pytest.fixture(autouse=True)
def _warm(tmp_path: Path) -> None:
    """Whatever is imported or started once per process is there before anything is counted."""
    host = Host()
    host.step()
    with Watcher(host.model, tmp_path / "warm.jsonl", config=CONFIG) as watch:
        watch.log(loss=host.step())


@pytest.fixture
def no_gc() -> Iterator[None]:
    """What is not freed without the cyclic collector is a leak here."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def normally(host: Host, path: Path) -> None:
    with Watcher(host.model, path, config=CONFIG) as watch:
        for _ in range(3):
            watch.log(loss=host.step())


def with_all_calls(host: Host, path: Path) -> None:
    with Watcher(host.model, path, config=CONFIG, optimizer=host.optimizer, name="all") as watch:
        for _ in watch.batches([1, 2, 3]):
            watch.step(loss=host.step(), samples=6)
        watch.log(val_loss=1.0)
        watch.epoch(val_accuracy=0.5)
        assert watch.alerts == ()
        assert not watch.should_stop


def raising(error: type[BaseException]) -> Callable[[Host, Path], None]:
    def training(host: Host, path: Path) -> None:
        with Watcher(host.model, path, config=CONFIG) as watch:
            watch.log(loss=host.step())
            host.step()
            raise error

    def leave(host: Host, path: Path) -> None:
        with pytest.raises(error):
            training(host, path)

    leave.__name__ = error.__name__
    return leave


def in_mid_forward(host: Host, path: Path) -> None:
    """The exception comes out of a layer, between the hooks of the modules around it."""

    def training() -> None:
        with Watcher(host.model, path, config=CONFIG):
            host.step()
            host.model(torch.randn(6, 9))

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        training()


def in_mid_backward(host: Host, path: Path) -> None:
    def fail(gradient: torch.Tensor) -> None:
        raise KeyboardInterrupt

    def training() -> None:
        with Watcher(host.model, path, config=CONFIG):
            host.step()
            out = host.model.body(torch.randn(6, 5))
            out.register_hook(fail)
            host.model.head(out).sum().backward()

    with pytest.raises(KeyboardInterrupt):
        training()
    host.optimizer.zero_grad()


def in_mid_step(host: Host, path: Path) -> None:
    """The step is interrupted, so that no post-hook of the optimizer runs."""

    def fail(*args: Any) -> None:
        raise KeyboardInterrupt

    handle = host.optimizer.register_step_pre_hook(fail)

    def training() -> None:
        with Watcher(host.model, path, config=CONFIG):
            host.step()

    with pytest.raises(KeyboardInterrupt):
        training()
    handle.remove()


def by_a_closed_generator(host: Host, path: Path) -> None:
    def training() -> Iterator[None]:
        with Watcher(host.model, path, config=CONFIG) as watch:
            while True:
                watch.log(loss=host.step())
                yield

    loop = training()
    next(loop)
    next(loop)
    loop.close()


def nested(host: Host, path: Path) -> None:
    with Watcher(host.model, path, config=CONFIG) as outer:
        outer.log(loss=host.step())
        with Watcher(host.model, path.with_name("inner.jsonl"), config=CONFIG) as inner:
            inner.log(loss=host.step())
        outer.log(loss=host.step())
    path.with_name("inner.jsonl").unlink(missing_ok=True)


def crossed(host: Host, path: Path) -> None:
    """Two watchers side by side; the first to come is the first to leave."""
    one = Watcher(host.model, path, config=CONFIG)
    two = Watcher(host.model, path.with_name("two.jsonl"), config=CONFIG)
    one.__enter__()
    two.__enter__()
    host.step()
    one.__exit__(None, None, None)
    host.step()
    two.__exit__(None, None, None)
    path.with_name("two.jsonl").unlink(missing_ok=True)


def abandoned(host: Host, path: Path) -> None:
    """Entered and never left: it goes when the last reference goes."""
    watch = Watcher(host.model, path, config=CONFIG)
    watch.__enter__()
    watch.log(loss=host.step())
    host.step()
    del watch


def never_entered(host: Host, path: Path) -> None:
    Watcher(host.model, path, config=CONFIG)
    host.step()


def in_an_optimizer_hook(host: Host, path: Path) -> None:
    watch = Watcher(host.model, path, config=CONFIG)
    watch.__enter__()
    handle = host.optimizer.register_step_post_hook(lambda *args: watch.__exit__(None, None, None))
    host.step()
    handle.remove()
    for thread in threading.enumerate():  # hooks cannot be removed inside a hook: that waits for its end
        if thread is not threading.current_thread():
            thread.join(5)


def without_a_graph_being_freed(host: Host, path: Path) -> None:
    """A loss with its whole graph outlives the watcher, and is differentiated afterwards."""
    with Watcher(host.model, path, config=CONFIG):
        host.step()
        loss = F.mse_loss(host.model(torch.randn(6, 5)), torch.randn(6, 3))
    loss.backward()
    host.optimizer.zero_grad()


EXITS = [
    normally,
    with_all_calls,
    *map(raising, [RuntimeError, KeyboardInterrupt, SystemExit, MemoryError, GeneratorExit]),
    in_mid_forward,
    in_mid_backward,
    in_mid_step,
    by_a_closed_generator,
    nested,
    crossed,
    abandoned,
    never_entered,
    in_an_optimizer_hook,
    without_a_graph_being_freed,
]
CRASHED = {"in_mid_forward", "RuntimeError", "MemoryError"}
INTERRUPTED = {"KeyboardInterrupt", "SystemExit", "GeneratorExit", "in_mid_backward", "in_mid_step"}


@pytest.mark.usefixtures("no_gc")
@pytest.mark.parametrize("leave", EXITS, ids=lambda leave: leave.__name__)
def test_nothing_stays(leave: Callable[[Host, Path], None], tmp_path: Path) -> None:
    host = Host()
    host.step()
    functions, before, objects = footprint.functions(), host.footprint(), footprint.ours()
    leave(host, tmp_path / "run.jsonl")
    assert footprint.ours() - objects == Counter()
    assert footprint.changed(before, host.footprint()) == {}
    assert footprint.changed(functions, footprint.functions()) == {}


@pytest.mark.usefixtures("no_gc")
@pytest.mark.parametrize("leave", EXITS, ids=lambda leave: leave.__name__)
def test_nothing_is_kept_alive(leave: Callable[[Host, Path], None], tmp_path: Path) -> None:
    host = Host()
    alive = [weakref.ref(o) for o in (host, host.model, host.model.head, host.optimizer)]
    alive += [weakref.ref(p) for p in host.model.parameters()]
    host.model.body[0].weight.register_hook(lambda gradient: alive.append(weakref.ref(gradient)))
    leave(host, tmp_path / "run.jsonl")
    del host
    assert [reference() for reference in alive if reference() is not None] == []


@pytest.mark.usefixtures("no_gc")
@pytest.mark.parametrize("leave", EXITS, ids=lambda leave: leave.__name__)
def test_the_watcher_dies_without_the_collector(
    leave: Callable[[Host, Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    born: list[weakref.ref[Watcher]] = []
    original = Watcher.__init__

    def remember(self: Watcher, *args: Any, **kwargs: Any) -> None:
        born.append(weakref.ref(self))
        original(self, *args, **kwargs)

    monkeypatch.setattr(Watcher, "__init__", remember)
    host = Host()
    leave(host, tmp_path / "run.jsonl")
    assert born
    assert [reference() for reference in born if reference() is not None] == []


@pytest.mark.parametrize("leave", EXITS, ids=lambda leave: leave.__name__)
def test_the_file_tells_how_it_ended(leave: Callable[[Host, Path], None], tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    leave(Host(), path)
    if leave is never_entered:
        assert not path.exists()
        return
    if leave is abandoned:
        records = list(read_records(path))
        assert isinstance(records[0], RunHeader)
        return
    end = assert_live_equals_replay(path)[-1]
    assert isinstance(end, End)
    name = leave.__name__
    status = "crashed" if name in CRASHED else "interrupted" if name in INTERRUPTED else "finished"
    if leave is by_a_closed_generator:
        status = "interrupted"
    assert end.status == status
    assert (end.traceback is not None) == (status == "crashed")


def test_the_footprint_sees_what_could_be_left(tmp_path: Path) -> None:
    """The comparison itself: each kind of leftover shows."""
    host = Host()
    before, functions = host.footprint(), footprint.functions()
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="left")
    thread.start()
    handles = [
        nn.modules.module.register_module_forward_hook(lambda *args: None),
        host.model.head.register_forward_hook(lambda *args: None),
        host.model.head.weight.register_hook(lambda gradient: None),
        host.optimizer.register_step_post_hook(lambda *args: None),
    ]
    original = nn.utils.clip_grad._get_total_norm
    nn.utils.clip_grad._get_total_norm = functools.partial(original)  # type: ignore[assignment]
    with (tmp_path / "open").open("w"):
        host.model.note = "left"
        seen, patched = (
            set(footprint.changed(before, host.footprint())),
            footprint.changed(functions, footprint.functions()),
        )
    stop.set()
    thread.join()
    for handle in handles:
        handle.remove()
    nn.utils.clip_grad._get_total_norm = original
    del host.model.note
    assert list(patched) == ["torch.nn.utils.clip_grad._get_total_norm"]
    assert seen == {
        ": attributes",
        "head: _forward_hooks",
        "head.weight: hooks",
        "optimizer _optimizer_step_post_hooks",
        "hooks",
        "threads",
        "descriptors",
    }
    assert footprint.changed(before, host.footprint()) == {}


def saved(value: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def frozen(host: Host) -> dict[str, Any]:
    """Everything that can be taken from a host: saved, pickled and copied whole, and its state."""
    return {
        "saved": saved(host.model),
        "pickled": pickle.dumps(host.model),
        "state": saved(host.model.state_dict()),
        "optimizer": saved(host.optimizer.state_dict()),
        "pickled optimizer": pickle.dumps(host.optimizer),
        "copy": saved(copy.deepcopy(host.model)),
        "shallow copy": sorted(vars(copy.copy(host.model))),
    }


def test_what_is_saved_while_watched_is_the_same(tmp_path: Path) -> None:
    bare, watched = Host(), Host()
    torch.manual_seed(1)
    for _ in range(3):
        bare.step()
    torch.manual_seed(1)
    with Watcher(watched.model, tmp_path / "run.jsonl", config=CONFIG):
        for _ in range(3):
            watched.step()
        during = frozen(watched)
    assert footprint.changed(during, frozen(watched)) == {}
    expected = {key: value for key, value in frozen(bare).items() if "pickled" not in key}  # holds addresses
    assert footprint.changed(expected, during) == {}


@pytest.mark.parametrize("make_copy", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_is_not_watched(make_copy: Callable[[Any], Any], tmp_path: Path) -> None:
    host, path = Host(), tmp_path / "run.jsonl"
    with Watcher(host.model, path, config=CONFIG) as watch:
        watch.log(loss=host.step())
        other = Host()
        other.model = make_copy(host.model)
        other.optimizer = torch.optim.SGD(other.model.parameters(), lr=0.1)
        for _ in range(5):
            other.step()
        watch.log(loss=host.step())
    records = assert_live_equals_replay(path)
    assert len(steps_in(records)) == 2


@pytest.mark.usefixtures("no_gc")
def test_a_watched_model_can_die_first(tmp_path: Path) -> None:
    """The watcher holds it weakly: what the host drops is gone at once, and the run ends in order."""
    host, path = Host(), tmp_path / "run.jsonl"
    with Watcher(host.model, path, config=CONFIG) as watch:
        watch.log(loss=host.step())
        host.step()
        alive = [weakref.ref(o) for o in (host.model, host.optimizer, host.model.head.weight)]
        del host
        assert [reference() for reference in alive if reference() is not None] == []
        other = Host()
        other.step()
    assert isinstance(assert_live_equals_replay(path)[-1], End)


def test_a_watcher_can_be_entered_again_while_it_is_open(tmp_path: Path) -> None:
    """The outermost exit ends the run; after it there is no way back in."""
    host = Host()
    host.step()
    before = host.footprint()
    watch = Watcher(host.model, tmp_path / "run.jsonl", config=CONFIG)
    with watch:
        watch.log(loss=host.step())
        with watch as again:
            assert again is watch
            watch.log(loss=host.step())
        watch.log(loss=host.step())
    with pytest.raises(WatcherClosed):
        watch.__enter__()
    assert footprint.changed(before, host.footprint()) == {}
    end = assert_live_equals_replay(tmp_path / "run.jsonl")[-1]
    assert isinstance(end, End)
    assert end.steps == 3
