"""The host's own instruments, captures and settings: they do not see us, and change nothing for us."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar, Self

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from tests.helpers_host import CONFIG, Loop
from tests.helpers_replay import assert_live_equals_replay, steps_in
from tests.zoo import mean_square, nobody
from tests.zoo_models import small_resnet
from torchwatch import Watcher
from torchwatch.records import Layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


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
        # Scalars of steps that share a line have fewer digits: here every step is a line of its own.
        config = dataclasses.replace(CONFIG, fast_steps_per_s=1e9)
        with Watcher(loop.model, tmp_path / name, config=config) as watch, around():
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
