"""Which module of the watched model is in its forward pass right now."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

from torch import nn

from torchwatch.patient import clean_name


@dataclass(slots=True, eq=False)
class Running:
    """A module in its forward pass; ``attentions`` counts what was seen of it in this call."""

    identity: int
    name: str
    attentions: int = 0


class Owners:
    """The modules of the watched model that are in progress, outermost first.

    A forward pass that raised leaves its modules here; they go when the model, or one of them, starts again.
    """

    def __init__(self) -> None:
        self._names: dict[int, tuple[weakref.ref[nn.Module], str]] = {}
        self._running: list[Running] = []

    def refresh(self, model: nn.Module) -> None:
        """Know the modules of a model by identity; a module with two names is known by the first."""
        self._names = {
            id(module): (weakref.ref(module), clean_name(name)) for name, module in model.named_modules()
        }
        self._running = []

    def starts(self, module: nn.Module) -> None:
        """A module starts; any other than the model's is ignored."""
        known = self._names.get(id(module))
        if known is None or known[0]() is not module:
            return
        self._leave(id(module))
        self._running.append(Running(id(module), known[1]))

    def ran(self, module: nn.Module) -> None:
        """A module has run."""
        if self._running and id(module) in self._names:
            self._leave(id(module))

    def _leave(self, identity: int) -> None:
        for place, running in enumerate(self._running):
            if running.identity == identity:
                del self._running[place:]
                return

    @property
    def innermost(self) -> Running | None:
        """The module in progress that no other one was called by; None between passes."""
        return self._running[-1] if self._running else None

    def forget(self) -> None:
        """Nothing is in progress."""
        self._running = []
