"""Hosts that do unusual things, and failures of our own: neither side disturbs the other."""

from __future__ import annotations

import contextlib
import functools
import io
import math
import os
import re
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar, Self

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from tests import helpers_footprint as footprint
from tests.helpers_replay import assert_live_equals_replay, troubles
from tests.zoo import CASES, Stage, first_difference, mean_square, nobody, numbers
from tests.zoo_models import Encoder, mlp, small_resnet
from torchwatch import WatchConfig, Watcher
from torchwatch.attachment import Attachment
from torchwatch.records import Alert, End, Layout, Record, Step, Steps, expand
from torchwatch.runfile import read_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CONFIG = WatchConfig(terminal=False, activations_every=1)


def steps_in(records: list[Record]) -> list[Step]:
    """The single steps of a run."""
    found: list[Step] = []
    for record in records:
        found += expand(record) if isinstance(record, Steps) else [record] if isinstance(record, Step) else []
    return found


class Loop:
    """A model, an optimizer and one ordinary step."""

    def __init__(self, model: nn.Module | None = None) -> None:
        torch.manual_seed(0)
        self.model = model or mlp()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05)
        self.taken = 0
        self.batches = numbers(6, 5, count=1) if model is None else numbers(4, 1, 8, 8, count=1)

    def step(self) -> Tensor:
        self.optimizer.zero_grad()
        loss = mean_square(self.model, *self.batches[0])
        loss.backward()
        self.optimizer.step()
        self.taken += 1
        return loss.detach()


# ---------------------------------------------------------------------- processes and threads


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


# ---------------------------------------------------------------------- the host's own instruments


class Dispatched(TorchDispatchMode):
    """Counts every operator that reaches the dispatcher."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen[str(func)] += 1
        return func(*args, **(kwargs or {}))


class Called(TorchFunctionMode):
    """Counts every function of torch's API that is called."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen[getattr(func, "__name__", str(func))] += 1
        return func(*args, **(kwargs or {}))


class Flops(FlopCounterMode):
    """The number of floating-point operations, per operator."""

    def __init__(self) -> None:
        super().__init__(display=False)

    @property
    def seen(self) -> Any:
        return {str(k): dict(v) for k, v in self.get_flop_counts().items()}


class Packed(torch.autograd.graph.saved_tensors_hooks):
    """Counts the tensors that autograd saves."""

    def __init__(self) -> None:
        self.seen: Counter[tuple[int, ...]] = Counter()
        super().__init__(self._pack, lambda tensor: tensor)

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def _pack(self, tensor: Tensor) -> Tensor:
        self.seen[tuple(tensor.shape)] += 1
        return tensor


@pytest.mark.parametrize("instrument", [Dispatched, Called, Flops, Packed])
@pytest.mark.parametrize("around", ["step", "pass"])
def test_what_the_host_counts_is_its_own(instrument: type[Any], around: str, tmp_path: Path) -> None:
    """Whole steps, and forward and backward passes only."""

    def count(watch_with: Callable[..., Any]) -> Any:
        loop = Loop(small_resnet())
        with watch_with(loop.model) as watch:
            for _ in range(2):
                watch.log(loss=loop.step())
            with instrument() as counter:
                if around == "step":
                    loss = loop.step()
                    loop.step()
                else:
                    loss = mean_square(loop.model, *loop.batches[0])
                    loss.backward()
            watch.log(loss=loss)
            loop.step()
        return counter.seen

    expected = count(nobody)
    assert expected
    watched = count(functools.partial(Watcher, path=tmp_path / "run.jsonl", config=CONFIG))
    assert watched == expected
    assert_live_equals_replay(tmp_path / "run.jsonl")


def test_a_profile_of_the_host_is_complete(tmp_path: Path) -> None:
    """Its own operators and regions are all in it; ours may be, too, for they do run."""

    def profiled(watch_with: Callable[..., Any]) -> Counter[str]:
        loop = Loop(small_resnet())
        with watch_with(loop.model) as watch, torch.profiler.profile() as profile:
            for _ in range(3):
                with torch.profiler.record_function("my region"):
                    watch.log(loss=loop.step())
        return Counter({event.key: event.count for event in profile.key_averages()})

    expected = profiled(nobody)
    watched = profiled(functools.partial(Watcher, path=tmp_path / "run.jsonl", config=CONFIG))
    for own in ("my region", "aten::convolution", "aten::batch_norm", "ConvolutionBackward0"):
        assert watched[own] == expected[own] > 0
    assert_live_equals_replay(tmp_path / "run.jsonl")


def traced(model: nn.Module, x: Tensor) -> str:
    return re.sub(r"___torch_mangle_\d+\.", "", str(torch.jit.trace(model, x).graph))


def exported(model: nn.Module, x: Tensor) -> str:
    return str(torch.export.export(model, (x,)).graph)


def made_fx(model: nn.Module, x: Tensor) -> str:
    return str(torch.fx.experimental.proxy_tensor.make_fx(model)(x).graph)


def symbolic(model: nn.Module, x: Tensor) -> str:
    return str(torch.fx.symbolic_trace(model).graph)


def transformed(model: nn.Module, x: Tensor) -> str:
    jacobian = torch.func.jacrev(lambda v: model(v[None])[0])
    return str(
        (torch.func.vmap(jacobian)(x).tolist(), torch.func.vmap(lambda v: model(v[None])[0])(x).tolist())
    )


def scripted(model: nn.Module, x: Tensor) -> str:
    return str(torch.jit.script(model).graph)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("capture", [traced, scripted, exported, made_fx, symbolic, transformed])
def test_what_the_host_captures_is_its_own_model(capture: Callable[..., str], tmp_path: Path) -> None:
    import torch.fx.experimental.proxy_tensor

    def captured(watch_with: Callable[..., Any]) -> tuple[str, list[float]]:
        loop = Loop()
        x = torch.randn(3, 5)
        with watch_with(loop.model) as watch:
            losses = [loop.step().item() for _ in range(2)]
            watch.log(loss=losses[-1])
            graph = capture(loop.model, x)
            losses += [loop.step().item() for _ in range(2)]
        return graph, losses

    expected = captured(nobody)
    assert captured(functools.partial(Watcher, path=tmp_path / "run.jsonl", config=CONFIG)) == expected
    assert len(steps_in(assert_live_equals_replay(tmp_path / "run.jsonl"))) == 4


def test_a_compiled_model_is_trained_the_same_and_the_file_says_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"

    def train(watch_with: Callable[..., Any]) -> tuple[list[float], Any]:
        torch.compiler.reset()
        torch._dynamo.utils.counters.clear()
        loop = Loop()
        loop.model = torch.compile(loop.model, backend="eager")  # type: ignore[assignment]
        with watch_with(loop.model):
            losses = [loop.step().item() for _ in range(3)]
        counters = {name: dict(values) for name, values in torch._dynamo.utils.counters.items()}
        return losses, (counters["stats"], counters.get("graph_break"))

    try:
        assert train(functools.partial(Watcher, path=path, config=CONFIG)) == train(nobody)
    finally:
        torch.compiler.reset()
    records = assert_live_equals_replay(path)
    steps = steps_in(records)
    assert len(steps) == 3
    assert all(step.grad_norm for step in steps)
    assert not any(step.activations for step in steps)
    layouts = [record for record in records if isinstance(record, Layout)]
    assert "compiled" in layouts[-1].coverage["activations"]
    assert layouts[-1].parameters[0].name == "0.weight"


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@contextlib.contextmanager
def double_by_default() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def meta_by_default() -> Iterator[None]:
    with torch.device("meta"):
        yield


@contextlib.contextmanager
def single_thread_of_autograd() -> Iterator[None]:
    with torch.autograd.set_multithreading_enabled(False):
        yield


@pytest.mark.parametrize(
    "setting", [deterministic, double_by_default, meta_by_default, single_thread_of_autograd]
)
def test_what_is_measured_does_not_depend_on_the_hosts_settings(setting: Any, tmp_path: Path) -> None:
    def measured(name: str, around: Any) -> list[Any]:
        torch.manual_seed(0)
        loop = Loop(small_resnet().eval())
        with Watcher(loop.model, tmp_path / name, config=CONFIG) as watch, around():
            for _ in range(3):
                watch.log(loss=loop.step())
        steps = steps_in(assert_live_equals_replay(tmp_path / name))
        return [
            (s.loss, s.grad_norm, s.update_ratio, [v.tolist() for v in s.activations.values()]) for s in steps
        ]

    expected = measured("plain.jsonl", contextlib.nullcontext)
    assert len(expected) == 3
    assert str(measured("set.jsonl", setting)) == str(expected)


class Counted(Tensor):
    """A tensor subclass that is told of every function called on it."""

    calls: ClassVar[Counter[str]] = Counter()

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.calls[getattr(func, "__name__", str(func))] += 1
        return super().__torch_function__(func, types, args, kwargs or {})


def test_tensor_subclasses_are_not_called(tmp_path: Path) -> None:
    def count(watch_with: Callable[..., Any]) -> Counter[str]:
        loop = Loop()
        loop.batches = [(x.as_subclass(Counted), y) for x, y in loop.batches]
        Counted.calls = Counter()
        with watch_with(loop.model):
            for _ in range(3):
                loop.step()
        return Counted.calls

    expected = count(nobody)
    assert count(functools.partial(Watcher, path=tmp_path / "run.jsonl", config=CONFIG)) == expected
    assert len(steps_in(assert_live_equals_replay(tmp_path / "run.jsonl"))) == 3


class Awkward(nn.Module):
    """Comparable to nothing, empty when asked, with attributes that are too long or raise."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(5, 3)
        self.shape = (3, float("nan"), "\x1b[31m<script>")
        self.line.tag = "x" * 10_000  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not comparable")

    __hash__ = nn.Module.__hash__

    def __len__(self) -> int:
        return 0

    def __bool__(self) -> bool:
        raise RuntimeError("no truth in me")

    def __repr__(self) -> str:
        raise RuntimeError("nothing to see")

    @property
    def loss(self) -> Tensor:
        raise RuntimeError("no loss")

    def forward(self, x: Tensor) -> Any:
        return Output(self.line(x))


class Output:
    """An output whose attributes raise."""

    def __init__(self, value: Tensor) -> None:
        self.value = value

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"no {name} here")

    def __bool__(self) -> bool:
        raise RuntimeError("no truth in me")


def test_awkward_modules_and_outputs(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    stage = Stage()
    module = Awkward()
    model = nn.ModuleDict({"<script>alert(1)</script>\x1b[2J\n": module})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Watcher(model, path, config=CONFIG) as watch:
        for x, y in numbers(6, 5, count=4):
            loss = F.mse_loss(module(x).value, y)
            loss.backward()
            optimizer.step()
            watch.log(
                **{"loss": loss, "<b>\x1b[31m": 1.0, "n" * 10_000: 2.0, "object": object(), "text": "x"}
            )
            stage.step(loss)
    records = assert_live_equals_replay(path, troubled=True)
    assert len(steps_in(records)) == 4
    assert all(step.grad_norm for step in steps_in(records))


def test_a_model_on_the_meta_device(tmp_path: Path) -> None:
    """Shapes only: nothing can be read, and nothing is claimed."""
    path = tmp_path / "run.jsonl"
    model = nn.Linear(5, 3, device="meta")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Watcher(model, path, config=CONFIG):
        for _ in range(3):
            model(torch.randn(6, 5, device="meta")).sum().backward()
            optimizer.step()
    steps = steps_in(assert_live_equals_replay(path))
    assert len(steps) == 3
    assert all(step.grad_norm is None and step.loss is None for step in steps)


def test_fake_tensors(tmp_path: Path) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    path = tmp_path / "run.jsonl"
    with FakeTensorMode():
        model = nn.Linear(5, 3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with Watcher(model, path, config=CONFIG) as watch:
            for _ in range(3):
                loss = model(torch.randn(6, 5)).sum()
                loss.backward()
                optimizer.step()
                watch.log(loss=loss)
    steps = steps_in(assert_live_equals_replay(path, troubled=True))
    assert len(steps) == 3
    assert all(step.grad_norm is None for step in steps)


def test_outputs_and_losses_can_be_pickled(tmp_path: Path) -> None:
    """A hook of ours on an output must not make torch warn that a hook is not saved."""
    loop = Loop()
    with Watcher(loop.model, tmp_path / "run.jsonl", config=CONFIG):
        for _ in range(2):
            loop.step()
        out = loop.model(loop.batches[0][0])
        stream = io.BytesIO()
        torch.save({"out": out, "loss": nn.MSELoss()(out, loop.batches[0][1])}, stream)
        loop.step()
    stream.seek(0)
    assert torch.load(stream)["out"].equal(out)


def test_a_patch_of_the_host_on_top_of_ours_stays(tmp_path: Path) -> None:
    """Somebody else replaces the same private function while we watch: leaving must not undo that."""
    loop = Loop()
    original = nn.utils.clip_grad._get_total_norm
    called = []
    try:
        with Watcher(loop.model, tmp_path / "run.jsonl", config=CONFIG):
            ours = nn.utils.clip_grad._get_total_norm

            def theirs(*args: Any, **kwargs: Any) -> Tensor:
                called.append(1)
                return ours(*args, **kwargs)

            nn.utils.clip_grad._get_total_norm = theirs  # type: ignore[assignment]
            nn.utils.clip_grad_norm_(loop.model.parameters(), 1.0)
        loop.step()
        nn.utils.clip_grad_norm_(loop.model.parameters(), 1.0)
        assert nn.utils.clip_grad._get_total_norm is theirs
        assert len(called) == 2
    finally:
        nn.utils.clip_grad._get_total_norm = original


# ---------------------------------------------------------------------- failures of our own

MOMENTS = (
    "arm",
    "gradients",
    "before_step",
    "after_step",
    "merge",
    "decode",
    "observe",
    "gradient_arrives",
    "detach",
    "saw",
)
ERRORS = [
    ValueError("broken"),
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory."),
    RecursionError("too deep"),
    AssertionError(),
]


def breakable() -> list[tuple[type[Any], str]]:
    """Every method of every probe that is called during training."""
    with contextlib.ExitStack() as stack:
        probes = Attachment(stack.enter_context(contextlib.nullcontext(mlp())), CONFIG, print, None).probes  # type: ignore[arg-type]
    return [(type(p), m) for p in probes for m in MOMENTS if m in vars(type(p))]


@pytest.mark.parametrize(("probe", "moment"), breakable(), ids=lambda part: getattr(part, "__name__", part))
def test_a_probe_that_fails_is_contained_and_said(
    probe: type[Any], moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training is bitwise the same, every step is there, and a note names the probe."""
    path = tmp_path / "run.jsonl"
    name = "clip-grad-norm"
    bare = CASES[name].bare

    def fail(*args: Any, **kwargs: Any) -> None:
        raise ValueError("broken on purpose")

    monkeypatch.setattr(probe, moment, staticmethod(fail) if moment == "decode" else fail)
    watched = CASES[name].run(functools.partial(Watcher, path=path, config=CONFIG))
    assert first_difference(bare, watched) is None
    records = assert_live_equals_replay(path, troubled=True)
    assert len(steps_in(records)) == bare.steps
    assert isinstance(records[-1], End)
    if moment != "detach":  # the run is over by then, and one failure is not yet a habit
        assert any(probe.name in said and "broken on purpose" in said for said in troubles(records))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_every_kind_of_failure_is_contained(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchwatch.probes.activations import ActivationProbe
    from torchwatch.probes.gradients import GradientProbe

    path = tmp_path / "run.jsonl"

    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(GradientProbe, "gradients", fail)
    monkeypatch.setattr(ActivationProbe, "observe", fail)
    watched = CASES["inplace-relu"].run(functools.partial(Watcher, path=path, config=CONFIG))
    assert first_difference(CASES["inplace-relu"].bare, watched) is None
    said = " ".join(troubles(assert_live_equals_replay(path, troubled=True)))
    assert type(error).__name__ in said
    assert "gradients" in said
    assert "activations" in said


def test_a_probe_that_failed_once_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchwatch.probes.gradients import GradientProbe

    path, original, failures = tmp_path / "run.jsonl", GradientProbe.gradients, []

    def fail_once(self: GradientProbe, *args: Any, **kwargs: Any) -> None:
        if not failures:
            failures.append(1)
            raise MemoryError
        original(self, *args, **kwargs)

    monkeypatch.setattr(GradientProbe, "gradients", fail_once)
    loop = Loop()
    with Watcher(loop.model, path, config=CONFIG):
        for _ in range(4):
            loop.step()
    assert [step.grad_norm is None for step in steps_in(list(read_records(path)))] == [
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize("where", ["sink", "check"])
def test_a_failing_sink_or_check_is_contained_and_said(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchwatch.check

    class Broken:
        def write(self, record: Record) -> None:
            raise OSError("sink is broken on purpose")

        def close(self) -> None:
            raise OSError("sink is broken on purpose")

    def find(history: Any, limits: Any) -> Any:
        raise ZeroDivisionError("check is broken on purpose")

    path, loop = tmp_path / "run.jsonl", Loop()
    if where == "check":
        import dataclasses

        checks = torchwatch.check.all_checks()
        broken = {k: dataclasses.replace(c, find=find) if k == "loss-spike" else c for k, c in checks.items()}
        monkeypatch.setattr(torchwatch.check, "all_checks", lambda: broken)
    with Watcher(loop.model, path, config=CONFIG, sinks=[Broken()] if where == "sink" else []) as watch:
        for _ in range(5):
            watch.log(loss=loop.step())
    records = list(read_records(path))
    assert len(steps_in(records)) == 5
    assert isinstance(records[-1], End)
    assert any("broken on purpose" in said for said in troubles(records))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("moment", ["gradients", "after_step"])
def test_an_interrupt_that_lands_in_our_code_passes(
    error: type[BaseException], moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C can strike anywhere, in a probe as well: it is the host's, and it arrives."""
    from torchwatch.probes.gradients import GradientProbe
    from torchwatch.probes.updates import UpdateProbe

    path, loop = tmp_path / "run.jsonl", Loop()

    def interrupted(*args: Any, **kwargs: Any) -> None:
        if loop.taken == 1:
            raise error

    monkeypatch.setattr(GradientProbe if moment == "gradients" else UpdateProbe, moment, interrupted)

    def train() -> None:
        with Watcher(loop.model, path, config=CONFIG):
            for _ in range(3):
                loop.step()

    with pytest.raises(error):
        train()
    end = assert_live_equals_replay(path)[-1]
    assert isinstance(end, End)
    assert end.status == "interrupted"


class Unspeakable(Exception):
    """An exception that cannot be put into words."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_an_exception_of_the_host_passes_even_if_it_cannot_be_printed(tmp_path: Path) -> None:
    path, loop = tmp_path / "run.jsonl", Loop()

    def train() -> None:
        with Watcher(loop.model, path, config=CONFIG):
            loop.step()
            raise Unspeakable

    with pytest.raises(Unspeakable):
        train()
    end = assert_live_equals_replay(path)[-1]
    assert isinstance(end, End)
    assert end.status == "crashed"
    assert "Unspeakable" in (end.error or "")


def test_the_traceback_of_a_crash_is_in_the_file_and_the_exception_is_unchanged(tmp_path: Path) -> None:
    path, loop = tmp_path / "run.jsonl", Loop()
    thrown = ValueError("shapes do not fit")

    def train() -> None:
        with Watcher(loop.model, path, config=CONFIG):
            loop.step()
            raise thrown

    with pytest.raises(ValueError, match="shapes do not fit") as caught:
        train()
    assert caught.value is thrown
    assert thrown.__context__ is None
    assert not hasattr(thrown, "__notes__")
    assert not any("torchwatch" in frame.filename for frame in traceback.extract_tb(thrown.__traceback__)[1:])
    end = assert_live_equals_replay(path)[-1]
    assert isinstance(end, End)
    assert end.error == "ValueError: shapes do not fit"
    assert "in train" in (end.traceback or "")


# ---------------------------------------------------------------------- callbacks


class Enough(Exception):
    """What a host raises in its callback."""


def until_alert(watch: Watcher, loop: Loop) -> None:
    """Log a sick loss until the callback has been called, or for a long time."""
    give_up = time.monotonic() + 10
    while time.monotonic() < give_up:
        loop.step()
        watch.log(loss=math.nan)


def test_what_on_alert_raises_passes_to_the_host(tmp_path: Path) -> None:
    path, loop, told = tmp_path / "run.jsonl", Loop(), []

    def on_alert(alert: Alert) -> None:
        told.append((alert.check, threading.current_thread()))
        raise Enough

    def train() -> None:
        with Watcher(loop.model, path, config=CONFIG, on_alert=on_alert) as watch:
            until_alert(watch, loop)

    with pytest.raises(Enough):
        train()
    assert told == [("loss-nonfinite", threading.main_thread())]
    records = assert_live_equals_replay(path)
    assert any(isinstance(record, Alert) and record.check == "loss-nonfinite" for record in records)
    end = records[-1]
    assert isinstance(end, End)
    assert end.status == "crashed"


def test_on_alert_gets_every_alert_once_in_order(tmp_path: Path) -> None:
    path, loop, told = tmp_path / "run.jsonl", Loop(), []
    with Watcher(loop.model, path, config=CONFIG, on_alert=told.append) as watch:
        for i in range(60):
            loop.step()
            watch.log(loss=math.nan if i % 20 < 3 else 1.0)
    records = assert_live_equals_replay(path)
    assert told
    assert told == [record for record in records if isinstance(record, Alert)] == list(watch.alerts)


def test_should_stop_turns_true_in_the_loop(tmp_path: Path) -> None:
    loop = Loop()
    with Watcher(loop.model, tmp_path / "run.jsonl", config=CONFIG, stop_on="critical") as watch:
        assert not watch.should_stop
        give_up = time.monotonic() + 10
        while not watch.should_stop and time.monotonic() < give_up:
            loop.step()
            watch.log(loss=math.nan)
        assert watch.should_stop
    assert_live_equals_replay(tmp_path / "run.jsonl")


# ---------------------------------------------------------------------- coming and going in odd places


def in_a_forward_hook(loop: Loop, act: Callable[[], None]) -> Any:
    return loop.model[1].register_forward_hook(lambda *args: act())  # type: ignore[index]


def in_a_gradient_hook(loop: Loop, act: Callable[[], None]) -> Any:
    return loop.model[2].weight.register_hook(lambda gradient: act())  # type: ignore[index, union-attr]


def before_an_optimizer_step(loop: Loop, act: Callable[[], None]) -> Any:
    return loop.optimizer.register_step_pre_hook(lambda *args: act())


def after_an_optimizer_step(loop: Loop, act: Callable[[], None]) -> Any:
    return loop.optimizer.register_step_post_hook(lambda *args: act())


PLACES = [in_a_forward_hook, in_a_gradient_hook, before_an_optimizer_step, after_an_optimizer_step]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_leaving_in_mid_step(place: Callable[..., Any], tmp_path: Path) -> None:
    """The host closes the watcher inside one of its own hooks; its step runs on undisturbed."""
    bare, loop = Loop(), Loop()
    expected = [bare.step().item() for _ in range(5)]
    watch = Watcher(loop.model, tmp_path / "run.jsonl", config=CONFIG)
    watch.__enter__()
    losses = [loop.step().item() for _ in range(2)]
    handle = place(loop, watch.close)
    losses.append(loop.step().item())
    handle.remove()
    losses += [loop.step().item() for _ in range(2)]
    assert losses == expected
    records = assert_live_equals_replay(tmp_path / "run.jsonl")
    assert len(steps_in(records)) in {2, 3}


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_entering_in_mid_step(place: Callable[..., Any], tmp_path: Path) -> None:
    bare, loop = Loop(), Loop()
    expected = [bare.step().item() for _ in range(5)]
    watch = Watcher(loop.model, tmp_path / "run.jsonl", config=CONFIG)
    losses = [loop.step().item()]
    handle = place(loop, lambda: watch.__enter__() and None)
    losses.append(loop.step().item())
    handle.remove()
    losses += [loop.step().item() for _ in range(3)]
    watch.close()
    assert losses == expected
    records = assert_live_equals_replay(tmp_path / "run.jsonl")
    assert len(steps_in(records)) in {3, 4}


def test_the_fast_path_of_the_encoder_stays_fast(tmp_path: Path) -> None:
    """Its fused kernel is used in evaluation while watched, as without."""
    torch.manual_seed(0)
    model, x = Encoder().eval(), torch.randint(11, (2, 4))
    with (
        Watcher(model, tmp_path / "run.jsonl", config=CONFIG),
        torch.no_grad(),
        torch.profiler.profile() as profile,
    ):
        model(x)
    assert any("_transformer_encoder_layer_fwd" in event.key for event in profile.key_averages())
