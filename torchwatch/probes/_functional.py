"""Observes calls of public functions of ``torch.nn.functional``: put in for a while, put back, shared by all.

A replaced function changes nothing for whoever calls it: exceptions pass, ``torch.jit.script`` compiles the
original, ``torch.compile`` traces straight through, and while a call runs the original is in its place, so
that ``__torch_function__`` overrides are given the function that they know. Code that imported the function
by name before is not seen.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from torchwatch.probes import _torch

Observer = Callable[[str, tuple[Any, ...], dict[str, Any], Any], None]
"""Called with the function's name, its arguments by position and by keyword, and its result. Never raises."""

_is_compiling = torch.compiler.is_compiling


class ObservedFunction:
    """One function of a module, replaced as long as somebody observes it.

    Args:
        module: where it is looked up at call time.
        name: its name there.
    """

    def __init__(self, module: types.ModuleType, name: str) -> None:
        self._module, self._name = module, name
        self._observers: tuple[Observer, ...] = ()
        self._original: Any = None
        self._ours: Any = None
        self._end_alias: Callable[[], object] = _nothing

    def observe(self, observer: Observer) -> bool:
        """Start telling ``observer``; False where this release has no such function to replace."""
        if observer in self._observers:
            return True
        current = getattr(self._module, self._name, None)
        if current is None:
            return False
        if current is not self._ours:  # not in place: never was, was put back, or thrown out by somebody
            if current is not self._original:
                self._original, self._ours = current, self._observed(current)
            end_alias = _torch.script_alias(self._ours, self._original)
            if end_alias is None:
                return False
            self._end_alias = end_alias
            setattr(self._module, self._name, self._ours)
        self._observers = (*self._observers, observer)
        return True

    def leave(self, observer: Observer) -> None:
        """Stop telling ``observer``. Wrapped by somebody else since, ours stays and does nothing."""
        self._observers = tuple(o for o in self._observers if o is not observer)
        if self._observers:
            return
        if getattr(self._module, self._name, None) is self._ours:
            setattr(self._module, self._name, self._original)
        self._end_alias()
        self._end_alias = _nothing

    def _call(self, original: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        module, name = self._module, self._name
        newest = original is self._original  # an older one of ours may live on in somebody else's wrapper
        in_place = newest and getattr(module, name, None) is self._ours
        if in_place:
            setattr(module, name, original)
        try:
            result = original(*args, **kwargs)
        finally:
            if in_place and self._observers and getattr(module, name, None) is original:
                setattr(module, name, self._ours)
        if newest:
            for observer in self._observers:
                observer(name, args, kwargs, result)
        return result

    def _observed(self, original: Any) -> Any:
        call, is_compiling = self._call, _is_compiling

        def observed(*args: Any, **kwargs: Any) -> Any:
            if is_compiling():
                return original(*args, **kwargs)
            return call(original, args, kwargs)

        if isinstance(original, types.FunctionType):
            # TorchScript compiles the source of what is wrapped, with the names in the globals of what wraps
            observed = types.FunctionType(
                observed.__code__, original.__globals__, original.__name__, None, observed.__closure__
            )
        return functools.wraps(original)(observed)


def _nothing() -> None:
    """Nothing to end."""


ATTENTION = ObservedFunction(functional, "scaled_dot_product_attention")
LOSSES = tuple(
    ObservedFunction(functional, name)
    for name in (
        "cross_entropy", "nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits", "mse_loss",
        "l1_loss", "smooth_l1_loss", "huber_loss",
    )
)  # fmt: skip
