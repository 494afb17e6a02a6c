"""A function of torch that is observed behaves like itself, for everybody, and is put back."""

from __future__ import annotations

import functools
import threading
import types

import pytest
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from torchwatch.probes import _torch
from torchwatch.probes._functional import ATTENTION, LOSSES, ObservedFunction

ENTROPY = LOSSES[0]
X, Y = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 2, 1, 1])


@pytest.fixture
def calls():
    """An observer of cross-entropy and attention, and what it was told."""
    told: list[tuple] = []

    def observer(name, args, kwargs, result) -> None:
        told.append((name, len(args), sorted(kwargs), result))

    before = functional.cross_entropy, functional.scaled_dot_product_attention
    assert ENTROPY.observe(observer)
    assert ATTENTION.observe(observer)
    yield told
    ENTROPY.leave(observer)
    ATTENTION.leave(observer)
    assert (functional.cross_entropy, functional.scaled_dot_product_attention) == before


def attend(x: torch.Tensor) -> torch.Tensor:
    return functional.scaled_dot_product_attention(x, x, x, is_causal=True)


def entropy(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(x, y)


def test_calls_are_told_with_arguments_and_result(calls) -> None:
    result = functional.cross_entropy(X, target=Y)
    torch.nn.CrossEntropyLoss()(X, Y)
    attend(X[None, None])
    assert [(name, n, keys) for name, n, keys, _ in calls] == [
        ("cross_entropy", 1, ["target"]),
        ("cross_entropy", 2, ["ignore_index", "label_smoothing", "reduction", "weight"]),
        ("scaled_dot_product_attention", 3, ["is_causal"]),
    ]
    assert calls[0][3] is result


def test_what_the_function_raises_passes_and_is_not_told(calls) -> None:
    with pytest.raises(ValueError, match="batch_size"):
        functional.cross_entropy(X, Y[:2])
    assert calls == []
    assert functional.cross_entropy(X, Y) == calls[0][3]


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
def test_scripts_compile_the_original(calls) -> None:
    assert torch.equal(torch.jit.script(entropy)(X, Y), functional.cross_entropy(X, Y))
    attention = torch.jit.script(attend)
    assert "aten::scaled_dot_product_attention" in str(attention.graph)
    assert torch.equal(attention(X[None, None]), attend(X[None, None]))


def test_traces_and_symbolic_traces_see_the_original(calls) -> None:
    graph = torch.fx.symbolic_trace(entropy)
    assert [n.target for n in graph.graph.nodes if n.op == "call_function"] == [ENTROPY._original]
    assert torch.equal(graph(X, Y), entropy(X, Y))


class Knows(TorchFunctionMode):
    """A host's mode that tells functions by identity, with a table made before and a look-up made now."""

    def __init__(self) -> None:
        super().__init__()
        self.table = {
            functional.cross_entropy: "entropy",
            functional.scaled_dot_product_attention: "attention",
        }
        self.met: list[object] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in self.table or func in (functional.cross_entropy, functional.scaled_dot_product_attention):
            self.met.append(self.table.get(func))
        return func(*args, **(kwargs or {}))


def test_torch_function_modes_are_given_the_function_that_they_know() -> None:
    mode = Knows()
    ENTROPY.observe(quiet := lambda *a: None)
    ATTENTION.observe(quiet)
    try:
        with mode:
            entropy(X, Y)
            attend(X[None, None])
    finally:
        ENTROPY.leave(quiet)
        ATTENTION.leave(quiet)
    assert mode.met == ["entropy", "attention"]


def fresh() -> tuple[types.SimpleNamespace, ObservedFunction]:
    module = types.SimpleNamespace(double=lambda x: 2 * x)
    return module, ObservedFunction(module, "double")


def test_several_observers_and_the_last_one_puts_it_back() -> None:
    module, function = fresh()
    original, told = module.double, []
    first, second = (functools.partial(lambda who, *a: told.append(who), who) for who in (1, 2))
    function.observe(first)
    function.observe(first)
    function.observe(second)
    assert module.double(3) == 6
    function.leave(first)
    module.double(3)
    function.leave(second)
    assert module.double is original
    function.leave(second)
    assert told == [1, 2, 2]


def test_it_is_the_same_wrapper_every_time() -> None:
    """Otherwise whoever guards on the function's identity (dynamo) would compile again and again."""
    module, function = fresh()
    function.observe(print)
    first = module.double
    function.leave(print)
    function.observe(print)
    assert module.double is first


def test_somebody_who_wraps_ours_keeps_it_and_is_observed_once() -> None:
    module, function = fresh()
    told: list[object] = []
    observer = lambda *a: told.append(a[3])  # noqa: E731
    function.observe(observer)
    ours = module.double
    module.double = theirs = lambda x: ours(x) + 1
    function.leave(observer)
    assert module.double is theirs
    assert (theirs(1), told) == (3, [])
    function.observe(observer)
    assert (module.double(1), told) == (3, [3])
    function.leave(observer)
    assert module.double is theirs


def test_leaving_while_another_thread_is_inside() -> None:
    entered, leave = threading.Event(), threading.Event()
    module, function = fresh()

    def slow(x):
        entered.set()
        leave.wait(10)
        return x

    module.double = slow
    function.observe(print)
    thread = threading.Thread(target=module.double, args=(1,))
    thread.start()
    entered.wait(10)
    function.leave(print)
    leave.set()
    thread.join()
    assert module.double is slow


def test_a_function_that_is_gone_is_not_observed() -> None:
    assert not ObservedFunction(types.SimpleNamespace(), "gone").observe(print)


def test_without_the_table_of_operators_they_are_left_alone(monkeypatch) -> None:
    monkeypatch.setattr(torch.jit._builtins, "_get_builtin_table", dict)
    assert _torch.script_alias(len, functional.scaled_dot_product_attention) is None
    assert not ObservedFunction(functional, "scaled_dot_product_attention").observe(print)
    assert _torch.script_alias(len, functional.cross_entropy) is not None


def test_the_alias_goes_with_the_last_observer() -> None:
    table = torch.jit._builtins._get_builtin_table()
    size = len(table)
    ATTENTION.observe(print)
    assert len(table) == size + 1
    ATTENTION.leave(print)
    assert len(table) == size


@pytest.mark.slow
def test_compiled_code_traces_straight_through(calls) -> None:
    """``fullgraph``: nothing of ours breaks the graph."""
    compiled = torch.compile(
        lambda x, y: entropy(attend(x[None, None])[0, 0], y), backend="eager", fullgraph=True
    )
    try:
        assert torch.equal(compiled(X, Y), entropy(attend(X[None, None])[0, 0], Y))
        assert len(torch._dynamo.utils.counters["stats"]) > 0
    finally:
        torch.compiler.reset()
