"""How attention heads look: spread out or on one key. Sampled steps only, of passes that were trained on.

Fused attention yields no weights, so those of at most 8 evenly spaced query rows of at most 4 entries of the
batch (fewer where they are large) are recomputed from what was given to
``torch.nn.functional.scaled_dot_product_attention``, without its dropout. Where an attention module returns
its weights as a further output, those are read instead. A function that was imported by name, and other
kernels (``flex_attention``, FlashAttention's own), are not seen.

An :class:`~torchwatch.records.Attention` record has in ``data["layers"]`` one map per call of a module:

* ``name``: the innermost module in whose forward the call was made (several calls in one forward: ``#2`` …);
* ``heads``, ``queries``, ``keys``: their numbers; ``rows``: sampled rows (of the first pass);
* ``entropy``: per head the entropy of the weights over the logarithm of the number of valid keys, 1 uniform,
  0 all on one key; mean over rows with two valid keys or more, None where there is none;
* ``max``: per head the largest weight, mean over the same rows;
* ``sparsity``: per head the share of valid keys whose weight is below a hundredth of a uniform one;
* ``source``: ``returned`` for weights that a module returned: then dropout may have been applied to them,
  and ``heads`` is 1 where the module averages over heads; left out otherwise;
* with ``histograms``: ``pattern`` of the first entry of the batch, mean over heads: ``rows`` (their places),
  ``weights`` (per row, added up over ``keys_per_bin`` neighbouring keys, at most 64 bins).

Keys are valid where the mask is True, or above -9,999 where it is added.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeGuard

import torch
from torch import nn

from torchwatch.config import WatchConfig
from torchwatch.patient import Patient
from torchwatch.probe import Frame, Probe, Values
from torchwatch.probes import _attention, _functional, _torch
from torchwatch.probes._fingerprint import sketchable
from torchwatch.probes._owners import Owners
from torchwatch.probes._passes import Passes
from torchwatch.records import Attention
from torchwatch.schedule import Plan

_MOST_CALLS = 1024
_MOST_RETURNED = 2
_LARGEST_SUM = 1.5
_WORDS = ("attention", "attn")
_OFF = "off"
_NO_MODULE = "off: no attention module found; WatchConfig(attention=True) turns it on"
_UNAVAILABLE = "unavailable: scaled_dot_product_attention cannot be observed"
_UNSEEN = "not seen: no call of torch.nn.functional.scaled_dot_product_attention, no returned weights"


@dataclass(slots=True, eq=False)
class _Call:
    """What is recorded of one call: plain facts, sums per head, and maybe a pattern."""

    facts: dict[str, Any]
    sums: torch.Tensor
    plausible: torch.Tensor | None = None
    pattern: torch.Tensor | None = None


class AttentionProbe(Probe):
    """Entropy, maximum and sparsity of attention per head.

    Args:
        observing: makes a method an observer that functions of torch may call.
    """

    name: ClassVar[str] = "attention"
    writes: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, observing: Callable[[str], Callable[[Callable[..., None]], Callable[..., None]]]
    ) -> None:
        self._observing = observing
        self._passes: Passes[_Call] = Passes(_MOST_CALLS)
        self._owners = Owners()
        self._armed = self._inside = self._in_place = False
        self._structure = -1
        self._outputs = 0
        self._last: weakref.ref[torch.Tensor] | None = None
        self._state = _OFF

    def attach(self, patient: Patient, config: WatchConfig) -> None:
        """Decide whether there is anything to follow."""
        super().attach(patient, config)
        self._observer = self._observing(self.name)(self.attended)
        self._reader = self._observing(self.name)(self.returned)
        model = patient.model()
        wanted = config.attention
        if wanted is None:
            wanted = model is not None and any(attends(module) for module in model.modules())
            self._state = _UNSEEN if wanted else _NO_MODULE
        elif wanted:
            self._state = _UNSEEN
        self.follows_modules = wanted

    # ------------------------------------------------------------------ when to look

    def arm(self, plan: Plan) -> None:  # noqa: ARG002
        """Follow the modules from now on."""
        model = self.patient.model()
        if model is None or not self.follows_modules:
            return
        if self._structure != self.patient.structure:
            self._structure = self.patient.structure
            self._owners.refresh(model)
        self._armed = True

    def disarm(self) -> None:
        """Put torch's own function back."""
        self._armed = self._inside = False
        self._owners.forget()
        self._put_in(wanted=False)

    def module_starts(self, module: nn.Module) -> None:
        """While a module of the model is in progress, attention is observed."""
        if self._armed:
            self._owners.starts(module)
            self._put_in(wanted=self._owners.innermost is not None)

    def module_ran(self, module: nn.Module, output: Any) -> None:
        """Read weights that an attention module returns, where it did not call the observed function."""
        if not self._armed:
            return
        running = self._owners.innermost
        self._owners.ran(module)
        self._put_in(wanted=self._owners.innermost is not None)
        if running is None or running.identity != id(module) or running.attentions:
            return
        if isinstance(output, tuple) and len(output) > 1 and attends(module):
            self._reader(running.name, output, torch.is_grad_enabled())

    def _put_in(self, *, wanted: bool) -> None:
        if wanted and not self._in_place:
            self._in_place = _functional.ATTENTION.observe(self._observer)
            if not self._in_place:
                self._state = _UNAVAILABLE
        elif not wanted and self._in_place:
            _functional.ATTENTION.leave(self._observer)
            self._in_place = False

    def model_starts(self, args: tuple[Any, ...], *, recording: bool) -> None:  # noqa: ARG002
        """Within a recorded pass, what runs without autograd counts as well: a checkpoint's first run."""
        self._inside = recording

    def model_ran(self, args: tuple[Any, ...], output: Any, *, recording: bool) -> None:  # noqa: ARG002
        """The pass is over."""
        self._inside = False
        self._passes.end(recording=recording)

    # ------------------------------------------------------------------ what is seen

    def attended(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:  # noqa: ARG002
        """``scaled_dot_product_attention`` was called."""
        running = self._owners.innermost
        if running is None or not (self._inside or getattr(result, "requires_grad", False)):
            return
        given = _attention.arguments(args, kwargs)
        query, key, mask = given.get("query"), given.get("key"), given.get("attn_mask")
        if not (_readable(query) and _readable(key) and (mask is None or _readable(mask))):
            return
        running.attentions += 1
        rows = _attention.recomputed(
            query.detach(),
            key.detach(),
            None if mask is None else mask.detach(),
            is_causal=bool(given.get("is_causal", False)),
            scale=given.get("scale"),
        )
        if rows is not None:
            self._keep(rows, running.name, running.attentions)

    def returned(self, name: str, output: tuple[Any, ...], recorded: bool) -> None:  # noqa: FBT001 - an observer
        """An attention module returned more than its output: maybe weights."""
        if not (self._inside or recorded):
            return
        last = self._last() if self._last is not None else None
        candidates = [t for t in output[1:] if _readable(t) and t.is_floating_point() and 3 <= t.dim() <= 4]
        if any(t is last for t in candidates):
            return  # a module that wraps the attention hands on what it was given
        if candidates:
            self._last = weakref.ref(candidates[0])
        self._outputs += 1
        for weights in candidates[:_MOST_RETURNED]:
            rows = _attention.returned(weights.detach())
            self._keep(rows, name, 1, _attention.plausible(weights.detach()))

    def _keep(
        self, rows: _attention.Rows, name: str, number: int, plausible: torch.Tensor | None = None
    ) -> None:
        facts: dict[str, Any] = {
            "name": name if number == 1 else f"{name}#{number}",
            "heads": rows.weights.shape[1],
            "queries": rows.queries,
            "keys": rows.weights.shape[-1],
            "positions": rows.positions,
            "output": None if plausible is None else self._outputs,
        }
        call = _Call(facts, _attention.summary(rows), plausible)
        if self.config.histograms:
            call.pattern, facts["keys_per_bin"] = _attention.pattern(rows)
        self._passes.add(call)
        if self._state == _UNSEEN:
            self._state = "ok"
            self.patient.version += 1

    # ------------------------------------------------------------------ what counts

    def trained(self, turn: int) -> None:
        """The pass is trained on."""
        self._passes.trained(turn)

    def merge(self, frame: Frame) -> None:
        """Hand over what was trained on since the last optimizer step."""
        for call in self._passes.take():
            slots = [None if t is None else frame.defer(t) for t in (call.plausible, call.pattern)]
            frame.put(self.name, (call.facts, frame.defer(call.sums), *slots))

    def forget(self) -> None:
        """The model changed: names may have, too."""
        self._passes.forget()

    def detach(self) -> None:
        """Put everything back."""
        self.disarm()
        self._passes.forget()
        self._owners = Owners()

    def coverage(self) -> str:
        """Whether attention is seen."""
        return self._state

    @staticmethod
    def decode(payloads: list[Any], values: list[Values], frame: Frame) -> dict[str, Any]:
        """A record of its own; several calls under one name are averaged."""
        calls: dict[tuple[str, int], list[tuple[Any, ...]]] = {}
        read: set[int] = set()
        for facts, sums, plausible, pattern in payloads:
            if plausible is not None:
                if facts["output"] in read or not _is_plausible(values[plausible]):
                    continue
                read.add(facts["output"])
            calls.setdefault((facts["name"], facts["heads"]), []).append((facts, sums, pattern))
        layers = []
        for (name, heads), of in calls.items():
            facts, _, pattern = of[0]
            layer = {"name": name, "heads": heads, "queries": facts["queries"], "keys": facts["keys"]}
            layer |= {"rows": len(facts["positions"])}
            layer |= _attention.per_head([values[sums] for _, sums, _ in of])
            if facts["output"] is not None:
                layer["source"] = "returned"
            if pattern is not None:
                layer["pattern"] = {
                    "rows": list(facts["positions"]),
                    "keys_per_bin": facts["keys_per_bin"],
                    "weights": values[pattern].reshape(len(facts["positions"]), -1).round(4).tolist(),
                }
            layers.append(layer)
        if not layers:
            return {}
        return {"attention": Attention(frame.number, round(frame.ended_s, 6), {"layers": layers})}


def attends(module: nn.Module) -> bool:
    """Whether the module is an attention layer by its class or by the name of its class."""
    name = type(module).__name__.lower()
    return isinstance(module, nn.MultiheadAttention) or any(word in name for word in _WORDS)


def _readable(value: Any) -> TypeGuard[torch.Tensor]:
    return (
        isinstance(value, torch.Tensor)
        and sketchable(value)
        and value.numel() > 0
        and _torch.has_values(value)
    )


def _is_plausible(numbers: Values) -> bool:
    """Weights are not negative; a row sums to 1, more or less with dropout, less with a sink. NaN may be."""
    low, total = numbers
    return not low < 0 and not total > _LARGEST_SUM
