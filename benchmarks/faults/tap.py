"""Plain torch looks at a training: the numbers that show harm, and those that other people's rules read.

Nothing of torchwatch is used here. A tap has the Watcher's names, so that a training runs under either.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

T = TypeVar("T")
EVERY = 20
"""Tensors are kept of every so many steps; SageMaker Debugger's default is 500, of far longer trainings."""


class Tap:
    """What a training did, step by step.

    Attributes:
        losses: loss of each step, as it was logged.
        epochs: what was said at the end of each epoch, with the mean training loss and the step.
        tensors: of every EVERY-th step: step, per parameter its gradient's and its own statistics, per module
            its output's.
        nonfinite: first step with a NaN or an infinity in a loss, a gradient or a parameter.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.losses: list[float] = []
        self.epochs: list[dict[str, float]] = []
        self.tensors: list[dict[str, Any]] = []
        self.nonfinite: int | None = None
        self.steps = 0
        self.failed: str | None = None
        self._from = 0
        self._sizes: dict[int, Tensor] = {}
        self._outputs: dict[str, dict[str, float]] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> Self:
        for name, module in self.model.named_modules():
            if next(module.children(), None) is None:
                self._handles.append(module.register_forward_hook(self._forward(name)))
        self._handles.append(register_optimizer_step_pre_hook(self._before))
        self._handles.append(register_optimizer_step_post_hook(self._after))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def batches(self, loader: Iterable[T]) -> Iterable[T]:
        return loader

    def step(self, loss: Any = None, samples: int | None = None) -> None:  # noqa: ARG002  # the Watcher's
        if loss is not None:
            self.log(loss=loss)

    def log(self, **values: Any) -> None:
        if "loss" in values:
            self.losses.append(float(getattr(values["loss"], "detach", lambda: values["loss"])()))
            self._bad(math.isfinite(self.losses[-1]))
        if any(k.startswith(("val_", "eval_")) for k in values):
            self.epoch(**values)

    def epoch(self, **metrics: Any) -> None:
        part, self._from = self.losses[self._from :], len(self.losses)
        numbers = {k: float(v) for k, v in metrics.items() if not isinstance(v, dict)}
        if part:
            numbers["loss"] = sum(part) / len(part)
        self.epochs.append(numbers | {"step": self.steps})

    # ------------------------------------------------------------------ hooks

    @property
    def _due(self) -> bool:
        return self.steps % EVERY == 0

    def _bad(self, finite: bool, step: int | None = None) -> None:  # noqa: FBT001
        if not finite and self.nonfinite is None:
            self.nonfinite = max(self.steps, 1) if step is None else step

    def _forward(self, name: str) -> Any:
        def hook(module: nn.Module, _: Any, out: Any) -> None:
            if self._due and self.model.training and isinstance(out, Tensor) and out.is_floating_point():
                self._outputs[name] = _output(module, out.detach().float())

        return hook

    def _before(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        grads = [p.grad for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
        if grads and not any(g.is_sparse for g in grads):
            norms = torch.stack([n.float() for n in torch._foreach_norm(grads)])
            self._bad(all(map(math.isfinite, norms.tolist())), self.steps + 1)
        if self._due:
            self._sizes = {id(p): p.detach().clone() for p in self.model.parameters()}

    def _after(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if self._due:
            row = {n: _parameter(p, self._sizes.get(id(p))) for n, p in self.model.named_parameters()}
            self.tensors.append({"step": self.steps + 1, "parameters": row, "outputs": self._outputs})
            self._outputs = {}
        self.steps += 1
        with torch.no_grad():
            norms = torch._foreach_norm([p for g in optimizer.param_groups for p in g["params"]])
        self._bad(all(map(math.isfinite, torch.stack([n.float() for n in norms]).tolist())))


def _parameter(p: Tensor, before: Tensor | None) -> dict[str, float]:
    weight = p.detach().float()
    row = {"size": float(weight.numel()), "zero": float((weight == 0).float().mean())}
    if p.grad is not None:
        grad = p.grad.detach()
        grad = (grad.to_dense() if grad.is_sparse else grad).float()
        row |= {"grad_mean_abs": float(grad.abs().mean()), "grad_norm": float(grad.norm())}
        row["grad_zero"] = float((grad == 0).float().mean())
    if before is not None and before.shape == p.shape:
        row["update"] = float((weight - before.float()).norm() / weight.norm().clamp_min(1e-30))
    row["nan"] = float(not torch.isfinite(weight).all())
    return row


def _output(module: nn.Module, out: Tensor) -> dict[str, Any]:
    """Shares of an output: zeros; units that are silent or at their bounds for 99 % of samples, positions."""
    flat = (
        out.transpose(0, 1).flatten(1)
        if out.dim() == 4
        else out.flatten(0, -2).T
        if out.dim() > 1
        else out[None]
    )
    kind = type(module).__name__
    row: dict[str, Any] = {
        "type": kind,
        "zero": float((out == 0).float().mean()),
        "nan": not torch.isfinite(out).all(),
    }
    row["inactive"] = float(((flat != 0).float().mean(1) < 0.01).float().mean())
    if kind == "Sigmoid":
        inside = (flat > torch.sigmoid(torch.tensor(-23.0))) & (flat < torch.sigmoid(torch.tensor(16.99999)))
    elif kind == "Tanh":
        inside = flat.abs() < torch.tanh(torch.tensor(9.4999))
    else:
        return row
    row["saturated"] = float((inside.float().mean(1) < 0.01).float().mean())
    return row


@contextmanager
def tapped(taps: list[Tap], model: nn.Module, **_: Any) -> Iterator[Tap]:
    """A tap as the watcher of a training; it is appended to ``taps``."""
    with Tap(model) as tap:
        taps.append(tap)
        yield tap
