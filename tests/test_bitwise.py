"""Training is bitwise the same with and without a watcher; and the comparison sees what would break that."""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from tests.helpers_replay import assert_live_equals_replay
from tests.zoo import CASES, Silent, Watch, first_difference
from tests.zoo_configs import CONFIGS
from torchwatch import WatchConfig, Watcher

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch.utils.hooks import RemovableHandle


def watcher(path: Path, config: WatchConfig) -> Watch:
    """Watches for real."""

    def watch(model: nn.Module, **keywords: Any) -> Watcher:
        return Watcher(model, path, config=config, **keywords)

    return watch


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", CASES)
def test_training_is_the_same_when_watched(name: str, config: str, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    watched = CASES[name].run(watcher(path, CONFIGS[config]))
    assert first_difference(CASES[name].bare, watched) is None
    assert_live_equals_replay(path)


@pytest.mark.parametrize("name", CASES)
def test_a_case_repeats_itself_when_nobody_watches(name: str) -> None:
    """Otherwise a difference would say nothing about the watcher."""
    assert first_difference(CASES[name].bare, CASES[name].run()) is None
    assert CASES[name].bare.steps >= 6


def hooked(*handles: RemovableHandle) -> Iterator[Silent]:
    yield Silent()
    for handle in handles:
        handle.remove()


@contextmanager
def drawing_from_torch(model: nn.Module, **keywords: Any) -> Iterator[Silent]:
    yield from hooked(model.register_forward_hook(lambda *args: torch.rand(1) and None))


@contextmanager
def drawing_from_numpy(model: nn.Module, **keywords: Any) -> Iterator[Silent]:
    yield from hooked(register_optimizer_step_post_hook(lambda *args: np.random.rand() and None))  # noqa: NPY002


@contextmanager
def drawing_from_python(model: nn.Module, **keywords: Any) -> Iterator[Silent]:
    yield from hooked(register_optimizer_step_post_hook(lambda *args: random.random() and None))


@contextmanager
def full_backward_hooks(model: nn.Module, **keywords: Any) -> Iterator[Silent]:
    yield from hooked(*(m.register_full_backward_hook(lambda *args: None) for m in model.modules()))


@contextmanager
def scaling_one_gradient(model: nn.Module, **keywords: Any) -> Iterator[Silent]:
    parameter = next(model.parameters())
    yield from hooked(parameter.register_hook(lambda gradient: gradient * (1 + 1e-7)))


@contextmanager
def zeroing_gradients(model: nn.Module, **keywords: Any) -> Iterator[Silent]:
    yield from hooked(register_optimizer_step_post_hook(lambda *args: model.zero_grad()))


@contextmanager
def zeroing_before_each_forward(model: nn.Module, **keywords: Any) -> Iterator[Silent]:
    yield from hooked(model.register_forward_pre_hook(lambda *args: model.zero_grad()))


@contextmanager
def forwarding_once_more(model: nn.Module, **keywords: Any) -> Iterator[Silent]:
    """The generators are put back, so that only the running statistics can tell."""
    norm = next(m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))

    def again(module: nn.Module, args: tuple[Tensor], out: Tensor) -> None:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            module.forward(args[0])

    yield from hooked(norm.register_forward_hook(again))


@contextmanager
def changing_a_last_bit(model: nn.Module, **keywords: Any) -> Iterator[Silent]:
    yield Silent()
    *_, parameter = model.parameters()
    parameter.detach().view(torch.int32)[0] ^= 1


@contextmanager
def leaving_a_mode(model: nn.Module, **keywords: Any) -> Iterator[Silent]:
    yield Silent()
    next(model.children()).eval()


@contextmanager
def leaving_gradients_off(model: nn.Module, **keywords: Any) -> Iterator[Silent]:
    yield Silent()
    torch.set_grad_enabled(False)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize(
    ("saboteur", "name", "caught_at"),
    [
        (drawing_from_torch, "perceptron", "step 1: torch generator"),
        (drawing_from_numpy, "perceptron", "step 1: numpy generator"),
        (drawing_from_python, "perceptron", "step 1: python generator"),
        (full_backward_hooks, "transformer-encoder", "step 0: gradient of embed.weight"),
        (full_backward_hooks, "hessian-vector-product", "step 0: gradient of 0.weight"),
        (scaling_one_gradient, "perceptron", "step 0: gradient of 0.weight"),
        (zeroing_before_each_forward, "accumulation", "step 0: gradient of"),
        (zeroing_gradients, "perceptron", "step 12: gradient of 0.weight"),
        (forwarding_once_more, "fine-tuning-in-eval", None),
        (forwarding_once_more, "frozen-front", "running_mean"),
        (changing_a_last_bit, "perceptron", "step 12: state 4.bias"),
        (leaving_a_mode, "perceptron", "modes"),
        (leaving_gradients_off, "perceptron", "switches"),
    ],
)
def test_the_comparison_catches(saboteur: Watch, name: str, caught_at: str | None) -> None:
    try:
        sabotaged = CASES[name].run(saboteur)
    finally:
        torch.set_grad_enabled(True)
    difference = first_difference(CASES[name].bare, sabotaged)
    if caught_at is None:  # in eval() an extra forward pass changes nothing, and the comparison says so
        assert difference is None
    else:
        assert difference is not None
        assert caught_at in difference


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_full_backward_hooks_are_what_the_watcher_must_not_use() -> None:
    """In-place layers refuse them: why gradients are read at tensors and at the optimizer instead."""
    with pytest.raises(RuntimeError, match="is a view and is being modified inplace"):
        CASES["inplace-relu"].run(full_backward_hooks)
