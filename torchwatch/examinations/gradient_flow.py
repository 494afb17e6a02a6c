"""How gradients of the loss reach the layers: on eight batches, with the user's loss, in evaluation mode.

Gradients are taken by :func:`torch.autograd.grad`, so that nobody's ``.grad`` is touched, and of the
parameters that want one as they are. Dropout is off and normalisation uses its running statistics, as when
the model is used.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from torchwatch.examinations import tasks
from torchwatch.examinations.case import Case
from torchwatch.examinations.chunks import in_chunks
from torchwatch.examinations.examination import Examination, NotApplicable
from torchwatch.patient import clean_name
from torchwatch.results import Remark
from torchwatch.results.gradient_flow import GradientFlow, State

BATCHES = 8
_LARGEST_BATCH = 64
_VANISHED = 1e-3
"""A layer's gradient RMS below this share of the largest has vanished, if the next holds too …"""
_STILL = 1e-4
"""… and its norm is below this share of its weights' norm times the largest such ratio."""
_FIRST_LAST = 1e-3
_FITTED = 1e-10
_NAMED = 5


@dataclass
class _Layer:
    """A module with parameters of its own, and what is summed up for it."""

    name: str
    module: nn.Module
    parameters: list[nn.Parameter]
    norms: list[float] = field(default_factory=list)
    sums: dict[int, Tensor] = field(default_factory=dict)
    reached: bool = False

    @property
    def wanting(self) -> list[nn.Parameter]:
        return [p for p in self.parameters if p.requires_grad]

    def take(self, gradients: dict[int, Tensor | None]) -> None:
        """Take in the gradients of one batch."""
        norm = 0.0
        for parameter in self.wanting:
            gradient = gradients.get(id(parameter))
            if gradient is None:
                continue
            self.reached = True
            whole = gradient.to_dense() if gradient.is_sparse else gradient
            norm = math.hypot(norm, float(torch.linalg.vector_norm(_wide(whole))))
            known = self.sums.get(id(parameter))
            self.sums[id(parameter)] = _wide(whole) if known is None else known + whole
        self.norms.append(norm)

    @property
    def agreement(self) -> float:
        """Norm of the mean gradient over the mean norm."""
        mean = float(np.mean(self.norms)) if self.norms else 0.0
        if not mean or not math.isfinite(mean):
            return math.nan
        norm = math.hypot(*(float(torch.linalg.vector_norm(t)) for t in self.sums.values()))
        return norm / len(self.norms) / mean


def examine(case: Case) -> GradientFlow:
    """Take the gradients of up to eight batches."""
    layers = _layers(case)
    if not any(layer.wanting for layer in layers):
        raise NotApplicable(
            "no parameter of the model wants a gradient: set requires_grad where it is to be trained"
        )
    losses, sizes, depends = _passes(case, layers)
    return _result(case, layers, losses, max(sizes), depends=depends)


def _layers(case: Case) -> list[_Layer]:
    """Modules with parameters in the order of their first call; tied parameters belong to the first."""
    order = _call_order(case)
    known: set[int] = set()
    found = []
    for name, module in case.model.named_modules():
        own = [p for p in module._parameters.values() if p is not None and id(p) not in known]
        known |= {id(p) for p in own}
        if own:
            found.append((name, module, own))
    places: list[tuple[float, int]] = []
    last = -1.0
    for number, (_, module, _) in enumerate(found):
        last = float(
            order.get(id(module), last)
        )  # one that is never called itself stays beside the one before
        places.append((last, number))
    return [_Layer(clean_name(found[n][0]) or "model", found[n][1], found[n][2]) for _, n in sorted(places)]


def _call_order(case: Case) -> dict[int, int]:
    """When each module is called first, by identity."""
    order: dict[int, int] = {}

    def note(module: nn.Module, _: object) -> None:
        order.setdefault(id(module), len(order))

    handles = [m.register_forward_pre_hook(note) for m in case.model.modules()]
    try:
        with torch.no_grad():
            case.raw({k: v[:2] for k, v in case.samples.inputs.items()})
    finally:
        for handle in handles:
            handle.remove()
    return order


def _passes(case: Case, layers: list[_Layer]) -> tuple[list[float], list[int], bool]:
    """Loss and size of each batch, and whether the loss depends on any parameter."""
    samples = case.samples
    count = len(samples)
    wanting = [p for layer in layers for p in layer.wanting]
    depends = False
    losses: list[float] = []
    sizes: list[int] = []

    def work(start: int, end: int) -> tuple[float, dict[int, Tensor | None]]:
        assert samples.targets is not None
        with torch.enable_grad():
            raw = case.raw({k: v[start:end] for k, v in samples.inputs.items()})
            outputs = tasks.canonical(raw, None, case.task)
            loss = case.loss(outputs, samples.targets[start:end], raw)
            if not loss.requires_grad:
                return float(loss), {}
            gradients = torch.autograd.grad(loss, wanting, allow_unused=True)
        return float(loss.detach()), {id(p): g for p, g in zip(wanting, gradients, strict=True)}

    size = max(1, min(case.options.chunk, _LARGEST_BATCH, math.ceil(count / BATCHES)))
    for start, end, (loss, gradients) in in_chunks(work, min(count, size * BATCHES), size):
        case.tick(end, min(count, size * BATCHES))
        depends = depends or bool(gradients)
        losses.append(loss)
        sizes.append(end - start)
        for layer in layers:
            layer.take(gradients)
    return losses, sizes, depends


def _result(
    case: Case, layers: list[_Layer], losses: list[float], size: int, *, depends: bool
) -> GradientFlow:
    norms = np.array([np.mean(x.norms) if x.wanting else np.nan for x in layers])
    weights = np.array([_norm(x.parameters) for x in layers])
    count = np.array([sum(p.numel() for p in x.wanting or x.parameters) for x in layers])
    rms = norms / np.sqrt(np.maximum(1, count))
    with np.errstate(all="ignore"):
        ratio = np.where(weights > 0, norms / weights, np.nan)
    states = _states(layers, norms, rms, ratio)
    flowing = np.flatnonzero([s in ("flows", "vanishing") for s in states])
    found = GradientFlow(
        layers=tuple(x.name for x in layers),
        kinds=tuple(type(x.module).__name__ for x in layers),
        parameters=count,
        gradient_norm=norms,
        gradient_rms=rms,
        gradient_spread=np.array([np.std(x.norms) if x.wanting else np.nan for x in layers]),
        weight_norm=weights,
        ratio=ratio,
        agreement=np.array([x.agreement for x in layers]),
        states=states,
        trainable=sum(bool(x.wanting) for x in layers),
        with_gradient=len(flowing) + states.count("nonfinite"),
        first_last_ratio=float(rms[flowing[0]] / rms[flowing[-1]]) if len(flowing) > 1 else math.nan,
        loss=float(np.mean(losses)),
        batches=len(losses),
        batch_size=size,
        own_loss=case.inputs.loss is not None,
    )
    return dataclasses.replace(found, remarks=tuple(_remarks(found, depends=depends)))


def _wide(tensor: Tensor) -> Tensor:
    """At least single precision: squares of halves overflow at 256."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _norm(parameters: list[nn.Parameter]) -> float:
    return math.hypot(*(float(torch.linalg.vector_norm(_wide(p.detach()))) for p in parameters))


def _states(
    layers: list[_Layer],
    norms: np.ndarray[tuple[int], np.dtype[np.float64]],
    rms: np.ndarray[tuple[int], np.dtype[np.float64]],
    ratio: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> tuple[State, ...]:
    fine = rms[np.isfinite(rms) & (rms > 0)]
    most_rms = float(fine.max()) if fine.size else 0.0
    usual = ratio[np.isfinite(ratio) & (ratio > 0)]
    most_ratio = float(usual.max()) if usual.size else 0.0
    states: list[State] = []
    for i, layer in enumerate(layers):
        if not layer.wanting:
            states.append("frozen")
        elif not layer.reached:
            states.append("unreached")
        elif not math.isfinite(norms[i]):
            states.append("nonfinite")
        elif norms[i] == 0:
            states.append("zero")
        elif rms[i] < _VANISHED * most_rms and not ratio[i] >= _STILL * most_ratio:
            states.append("vanishing")
        else:
            states.append("flows")
    return tuple(states)


def _remarks(found: GradientFlow, *, depends: bool) -> list[Remark]:
    if not depends:
        text = f"The loss depends on no parameter: none of {found.trainable} layers gets a gradient."
        fix = "Look in `forward` and the loss for `detach()`, `.data`, `argmax`, `no_grad` or numpy."
        return [Remark("critical", text, fix)]
    of = f"of {found.trainable} trainable layers"
    said = []
    broken = _in_state(found, "nonfinite")
    if broken:
        text = f"{len(broken)} {of} have NaN or infinite gradients: {_few(broken)}."
        fix = "Look for NaN inputs, logarithms of 0, divisions by 0 and overflow in half precision."
        said.append(Remark("critical", text, fix))
    zero = _in_state(found, "zero")
    if zero and len(zero) == found.trainable and found.loss <= _FITTED:
        said.append(Remark("info", f"The loss is {found.loss:.2g}: there is nothing left to learn here."))
    elif zero:
        text = f"{len(zero)} {of} get a gradient of exactly 0 in every batch: {_few(zero)}."
        fix = "Look for dead rectifiers or saturated outputs behind them, see Activations."
        said.append(Remark("critical" if 2 * len(zero) >= found.trainable else "warning", text, fix))
    unreached = _in_state(found, "unreached")
    if unreached:
        text = f"{len(unreached)} {of} have no part in the loss: {_few(unreached)}."
        fix = (
            "They are not called, or their output is detached or thrown away; freeze or remove them if so "
            "meant."
        )
        said.append(Remark("warning", text, fix))
    said += _of_depth(found)
    if found.with_gradient == found.trainable and not said:
        text = f"All {found.trainable} trainable layers get a gradient (mean loss {found.loss:.4g})."
        said.append(Remark("info", text))
    return said


def _of_depth(found: GradientFlow) -> list[Remark]:
    vanishing = _in_state(found, "vanishing")
    if not vanishing:
        return []
    largest = np.nanmax(found.gradient_rms)
    smallest = min(found.gradient_rms[found.layers.index(n)] for n in vanishing)
    text = (
        f"The gradient vanishes in {len(vanishing)} of {found.trainable} trainable layers "
        f"({_few(vanishing)}): its RMS is {smallest:.1e} there and {largest:.1e} at most elsewhere; first "
        f"over last layer {found.first_last_ratio:.1e}."
    )
    fix = (
        "Add residual connections or normalisation, initialise for the activation, or use ReLU or GELU in "
        "place of sigmoid and tanh."
    )
    early = found.first_last_ratio < _FIRST_LAST
    return [Remark("critical" if early else "warning", text, fix)]


def _in_state(found: GradientFlow, state: State) -> list[str]:
    return [n for n, s in zip(found.layers, found.states, strict=True) if s == state]


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(f"`{n}`" for n in names[:_NAMED]) + more


EXAMINATION = Examination(
    title="Gradient flow",
    examine=examine,
    tells="which layers the loss reaches, and how strongly",
    needs_targets=True,
)
