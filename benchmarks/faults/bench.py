"""What a fault and a healthy training are here, and the registry of all of them.

A fault is a training function that is called twice per seed, with ``run.faulty`` true and false: the same
script with and without the mistake. It returns a number that is worse the higher it is, computed in plain
torch; that the mistake harms is shown with that number and without torchwatch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch

T = TypeVar("T")
CLASSES = ("wiring", "numeric", "dynamics", "system")
ARCHITECTURES = ("mlp", "cnn", "rnn", "transformer", "tabular")


class Watch(Protocol):
    """What a training says to whoever watches it: the Watcher's own names."""

    def batches(self, loader: Iterable[T]) -> Iterable[T]: ...
    def log(self, **values: Any) -> None: ...
    def step(self, loss: Any = None, samples: int | None = None) -> None: ...
    def epoch(self, **metrics: Any) -> None: ...


class Run:
    """One training: its seed, whether it has the fault, and how to be watched.

    Attributes:
        onset: first step at which the fault does something; the training sets it where that is not step 1.
        extra: what else a training wants to hand to its verdict, e.g. files of other ranks.
    """

    def __init__(
        self, seed: int, *, faulty: bool, watcher: Callable[..., AbstractContextManager[Watch]], folder: str
    ) -> None:
        self.seed, self.faulty, self.folder = seed, faulty, folder
        self.onset = 1
        self._watcher = watcher
        self.generator = torch.Generator().manual_seed(seed)

    def watch(self, model: torch.nn.Module, **keywords: Any) -> AbstractContextManager[Watch]:
        """To be used as ``with run.watch(model) as watch:``."""
        return self._watcher(model, **keywords)


Train = Callable[[Run], float]


@dataclass(frozen=True)
class Case:
    """A training of the bench.

    Attributes:
        slug: its name.
        arch: family of its network, for the cross-validation.
        train: the training.
        kind: ``wiring``, ``numeric``, ``dynamics`` or ``system``; ``healthy`` where nothing is planted.
        planted: the mistake in one sentence.
        expect: checks of which each says that the fault was found.
        roots: those that name its cause.
        severity: the least that counts: ``info`` where the catalogue says info.
        stretch: how many steps the trigger needs at least (wiring).
        harm: what the returned number is.
        config: fields of WatchConfig that differ, with ``limits`` scaled to a training of seconds.
    """

    slug: str
    arch: str
    train: Train
    kind: str = "healthy"
    planted: str = ""
    expect: frozenset[str] = frozenset()
    roots: frozenset[str] = frozenset()
    severity: str = "warning"
    stretch: int = 0
    harm: str = "validation loss"
    config: Mapping[str, Any] = field(default_factory=dict)


FAULTS: dict[str, Case] = {}
HEALTHY: dict[str, Case] = {}


def fault(
    kind: str, arch: str, expect: str, *, roots: str = "", planted: str, **more: Any
) -> Callable[[Train], Train]:
    """Register a fault; ``expect`` and ``roots`` (default: the same) are slugs with spaces between."""

    def register(train: Train) -> Train:
        slug = train.__name__.replace("_", "-")
        assert slug not in FAULTS, slug
        FAULTS[slug] = Case(
            slug,
            arch,
            train,
            kind,
            planted,
            frozenset(expect.split()),
            frozenset((roots or expect).split()),
            **more,
        )
        return train

    return register


def healthy(arch: str, **more: Any) -> Callable[[Train], Train]:
    """Register a training in which nothing is wrong."""

    def register(train: Train) -> Train:
        slug = train.__name__.replace("_", "-")
        assert slug not in HEALTHY, slug
        HEALTHY[slug] = Case(slug, arch, train, planted=(train.__doc__ or "").strip(), **more)
        return train

    return register


def cases() -> Iterator[Case]:
    """Every fault, then every healthy training."""
    from benchmarks.faults import registry

    assert registry.LOADED
    yield from FAULTS.values()
    yield from HEALTHY.values()
