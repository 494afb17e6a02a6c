"""Small trainings of every kind, each of which writes down all that it computed.

A *case* is a function that trains on a :class:`Stage`: it takes the model to ``stage.watch`` (a Watcher, a
saboteur, or nothing) and tells the stage its losses, gradients and steps. Two stages that were played the
same case must have equal diaries, whoever watched. Importing :mod:`tests.zoo` fills :data:`CASES`.
"""

from __future__ import annotations

import functools
import hashlib
import random
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

torch.set_num_threads(
    1
)  # operations this small only lose time, and on a busy machine seconds, to a second thread

ITERATIONS = 12
"""Enough that the first ten densely measured steps of the default configuration are followed by others."""

Watch = Callable[..., AbstractContextManager[Any]]


class Silent:
    """Stands where a Watcher would: the same calls, no effect."""

    def log(self, **values: Any) -> None:
        """Does nothing."""

    def step(self, loss: Any = None, samples: int | None = None) -> None:
        """Does nothing."""

    def epoch(self, **metrics: Any) -> None:
        """Does nothing."""

    def batches(self, loader: Any) -> Iterator[Any]:
        yield from loader


@contextmanager
def nobody(model: nn.Module, **keywords: Any) -> Iterator[Silent]:
    """Watches nothing: the bare run."""
    yield Silent()


def digest(value: Any) -> str:
    """A fingerprint of a value: for tensors of every bit, the dtype, the shape and the strides."""
    if not isinstance(value, Tensor):
        return hashlib.blake2b(repr(value).encode(), digest_size=8).hexdigest()
    tensor = value.detach()
    if tensor.is_sparse:
        tensor = tensor.coalesce()
        return digest(tensor.indices()) + digest(tensor.values())
    kind = (str(tensor.dtype), tuple(tensor.shape), tensor.stride(), value.requires_grad)
    raw = torch.empty(0) if tensor.numel() == 0 else tensor.resolve_conj().contiguous()
    raw = torch.view_as_real(raw) if raw.is_complex() else raw
    raw_bytes = raw.reshape(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.blake2b(repr(kind).encode() + raw_bytes, digest_size=8).hexdigest()


def generators() -> dict[str, str]:
    """A fingerprint of each of the three random generators."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 - the state that hosts use
    return {
        "torch": digest(torch.get_rng_state()),
        "numpy": digest((name, keys.tobytes(), rest)),
        "python": digest(random.getstate()),
    }


class Stage:
    """What a case trains on: seeded generators, somebody who watches, and the diary.

    ``steps`` counts optimisation steps as the case declares them.
    """

    def __init__(self, watch: Watch = nobody) -> None:
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        random.seed(0)
        self.watch = watch
        self.steps = 0
        self.diary: list[tuple[str, str]] = []

    def write(self, label: str, value: Any) -> None:
        """One line of the diary."""
        self.diary.append((f"step {self.steps}: {label}", digest(value)))

    def gradients(self, model: nn.Module) -> None:
        """Write down every gradient as it is now."""
        for name, parameter in model.named_parameters():
            self.write(f"gradient of {name}", parameter.grad)

    def step(self, loss: Any) -> None:
        """Count one completed step; write down its loss and the generators."""
        self.steps += 1
        self.write("loss", loss)
        self.diary += [
            (f"step {self.steps}: {name} generator", state) for name, state in generators().items()
        ]

    def end(self, model: nn.Module, *optimizers: torch.optim.Optimizer) -> None:
        """Write down what is left: weights, buffers, gradients, modes, optimizer state, global switches."""
        for name, tensor in model.state_dict().items():
            self.write(f"state {name}", tensor)
        for name, buffer in model.named_buffers():
            self.write(f"buffer {name}", buffer)
        self.gradients(model)
        self.write("modes", [(name, module.training) for name, module in model.named_modules()])
        for optimizer in optimizers:
            self._optimizer(optimizer)
        switches = (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype())
        self.write("switches", (*switches, torch.get_num_threads(), torch.is_autocast_enabled("cpu")))
        self.diary += [(f"end: {name} generator", state) for name, state in generators().items()]

    def _optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        state = optimizer.state_dict()
        self.write("optimizer groups", state["param_groups"])
        for index, values in state["state"].items():
            for name, value in values.items():
                parts = value if isinstance(value, (list, tuple)) else [value]
                for i, part in enumerate(parts):
                    self.write(f"optimizer state {index}.{name}.{i}", part)


Loop = Callable[[Stage], None]


@dataclass(frozen=True)
class Case:
    """One training. ``warns`` are warnings of the host's own torch calls that are expected (regexes)."""

    name: str
    play: Loop
    warns: tuple[str, ...] = ()

    def run(self, watch: Watch = nobody) -> Stage:
        """Play the case on a fresh stage. The global switches are the case's own to restore."""
        stage = Stage(watch)
        with warnings.catch_warnings():
            for message in self.warns:
                warnings.filterwarnings("ignore", message)
            self.play(stage)
        return stage

    @functools.cached_property
    def bare(self) -> Stage:
        """The run with nobody watching (kept)."""
        return self.run()


CASES: dict[str, Case] = {}
"""Trainings of every shape: loops, optimizers, and models that were awkward once."""

ARCHITECTURES: dict[str, Case] = {}
"""Plain trainings of models that differ in their modules."""

FEW = 4
"""Iterations of an architecture's training."""


def case(*warns: str) -> Callable[[Loop], Loop]:
    """Register a training under its function's name, with dashes."""

    def register(loop: Loop) -> Loop:
        add(loop.__name__.replace("_", "-"), loop, warns)
        return loop

    return register


def architecture(*warns: str) -> Callable[[Loop], Loop]:
    """Register the training of an architecture under its function's name, with dashes."""

    def register(loop: Loop) -> Loop:
        name = loop.__name__.replace("_", "-")
        assert name not in ARCHITECTURES, name
        ARCHITECTURES[name] = Case(name, loop, warns)
        return loop

    return register


def add(name: str, loop: Loop, warns: tuple[str, ...] = ()) -> None:
    """Register a training under a name that is not taken."""
    assert name not in CASES, name
    CASES[name] = Case(name, loop, warns)


class _Seen(Exception):
    """The model is known; the training need not go on."""


def structure(model: nn.Module) -> tuple[tuple[int, str], ...]:
    """The tree of a model's modules by their classes: its architecture, whatever its sizes."""
    modules = model.named_modules(remove_duplicate=False)
    return tuple((name.count("."), type(module).__qualname__) for name, module in modules)


def structures(cases: Iterable[Case]) -> set[tuple[tuple[int, str], ...]]:
    """The architectures that the cases take to a watcher, without training them."""
    found = []

    def look(model: nn.Module, **keywords: Any) -> Any:
        found.append(structure(model))
        raise _Seen

    for one in cases:
        with suppress(_Seen):
            one.run(look)
    return set(found)


LossOf = Callable[[Any, Any, Any], Tensor]


def mean_square(model: Any, x: Any, y: Any) -> Tensor:
    """The usual loss of the cases: mean squared error of the model's output."""
    return nn.functional.mse_loss(model(x), y)


def train(
    stage: Stage,
    model: nn.Module,
    batches: Any,
    optimizer: torch.optim.Optimizer | None = None,
    loss_of: LossOf = mean_square,
) -> None:
    """The plain loop: forward, backward, step, log."""
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    with stage.watch(model) as watch:
        for x, y in batches:
            optimizer.zero_grad()
            loss = loss_of(model, x, y)
            loss.backward()
            stage.gradients(model)
            optimizer.step()
            watch.log(loss=loss)
            stage.step(loss)
    stage.end(model, optimizer)


def numbers(*shape: int, out: int = 3, count: int = ITERATIONS) -> list[tuple[Tensor, Tensor]]:
    """Batches of noise of the given shape (batch first) with targets of shape (batch, out)."""
    return [(torch.randn(*shape), torch.randn(shape[0], out)) for _ in range(count)]


def tokens(
    batch: int = 4, length: int = 6, words: int = 11, count: int = ITERATIONS
) -> list[tuple[Tensor, Tensor]]:
    """Batches of word numbers, each with a target word per place."""
    shape = (batch, length)
    return [(torch.randint(words, shape), torch.randint(words, shape)) for _ in range(count)]


def first_difference(one: Stage, other: Stage) -> str | None:
    """Where two diaries part, in words; None where they are equal."""
    for (label, mine), (other_label, theirs) in zip(one.diary, other.diary, strict=False):
        if label != other_label:
            return f"{label} / {other_label}"
        if mine != theirs:
            return label
    if len(one.diary) != len(other.diary):
        return f"{len(one.diary)} lines / {len(other.diary)} lines"
    return None


from tests import zoo_images, zoo_loops, zoo_models, zoo_optimizers, zoo_sequences, zoo_structures  # noqa: E402, F401 - they fill both
