"""What kind of task it is, its loss, and the error of each sample.

Outputs and targets are compared in one shape, never broadcast: ``(N, 1)`` against ``(N,)`` would give an
``(N, N)`` error that scores perfect predictions as bad.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from torchwatch.errors import UsageError
from torchwatch.results import Remark
from torchwatch.results.inputs import TASKS

IGNORED = -100
"""Target that counts for nothing, as in :func:`torch.nn.functional.cross_entropy`."""


@dataclass(frozen=True)
class Task:
    """A kind of task.

    Attributes:
        name: one of :data:`~torchwatch.results.inputs.TASKS`.
        source: ``given``, or how it was inferred.
        probabilities: outputs are probabilities already, not logits.
        class_axis: axis of the classes in the model's own output.
        ignored: class that counts for nothing, in the targets as given; :data:`IGNORED` in canonical ones.
        next_token: targets are the tokens themselves, and each output is compared with the next one.
        remarks: what was noticed about the shapes.
    """

    name: str
    source: str
    probabilities: bool = False
    class_axis: int = -1
    ignored: int = IGNORED
    next_token: bool = False
    remarks: tuple[Remark, ...] = ()

    @property
    def classifies(self) -> bool:
        """Whether targets are classes."""
        return self.name != "regression"


def infer(output: Tensor, targets: Tensor | None, given: str = "auto") -> Task:
    """Tell the task from a raw output and the targets.

    Args:
        output: the model's output, (N, …).
        targets: (N, …); None where there are none.
        given: what the user said.

    Raises:
        UsageError: an unknown task, or shapes that do not fit one another.
    """
    if given not in (*TASKS, "auto"):
        raise UsageError(f"task must be one of {', '.join(TASKS)} or 'auto', not {given!r}")
    name, source = (given, "given") if given != "auto" else _told(output, targets)
    class_axis = 1 if targets is not None and _dense(output, targets) else -1
    return Task(
        name,
        source,
        _are_probabilities(output, name, class_axis),
        class_axis,
        remarks=_remarks(output, targets, name),
    )


def _told(output: Tensor, targets: Tensor | None) -> tuple[str, str]:
    shape = tuple(output.shape)
    if targets is None:
        return "regression", "no targets: outputs are taken as numbers"
    wanted = tuple(targets.shape)
    where = f"output {shape}, targets {wanted} of {str(targets.dtype).removeprefix('torch.')}"
    if not targets.is_floating_point():
        if _same_size(output, targets):
            if bool(((targets == 0) | (targets == 1)).all()):
                return ("binary" if targets.numel() == targets.shape[0] else "multilabel"), where
            return "regression", where
        squeezed = targets.reshape(targets.shape[0], -1)
        if squeezed.shape[1] == 1 and output.ndim == 2:
            return "multiclass", where
        if shape[:-1] == wanted or _dense(output, targets):
            return "token", where
    elif _same_size(output, targets):
        if bool(((targets == 0) | (targets == 1)).all()):
            return ("binary" if targets.numel() == targets.shape[0] else "multilabel"), where
        return "regression", where
    raise UsageError(
        f"outputs of shape {shape} and targets of shape {wanted} ({targets.dtype}) fit no task: say which it "
        "is with task=, and check that both have the same samples along their first axis"
    )


def _dense(output: Tensor, targets: Tensor) -> bool:
    """Whether the classes are along axis 1 of outputs with places after it, as in segmentation."""
    return (
        not targets.is_floating_point()
        and output.ndim == targets.ndim + 1 >= 3
        and output.shape[:1] + output.shape[2:] == targets.shape
        and output.shape[:-1] != targets.shape
    )


def _same_size(output: Tensor, targets: Tensor) -> bool:
    return [s for s in output.shape[1:] if s != 1] == [s for s in targets.shape[1:] if s != 1] and (
        output.shape[:1] == targets.shape[:1]
    )


def _are_probabilities(output: Tensor, name: str, class_axis: int) -> bool:
    values = output.detach().float()
    if name == "regression" or not bool(((values >= 0) & (values <= 1)).all()):
        return False
    if name in ("binary", "multilabel"):
        return True
    return bool(((values.sum(class_axis) - 1).abs() < 1e-3).all())


def _remarks(output: Tensor, targets: Tensor | None, name: str) -> tuple[Remark, ...]:
    """Say it where a loss that broadcasts would have gone wrong silently."""
    if targets is None or output.shape == targets.shape or name not in ("regression", "binary", "multilabel"):
        return ()
    text = (
        f"The model's output has shape {tuple(output.shape[1:])} a sample and the targets "
        f"{tuple(targets.shape[1:])}; they were brought into one shape here, but a loss that broadcasts "
        "compares every prediction with every target."
    )
    fix = "Give both the same shape before the loss, e.g. `model(x).squeeze(-1)` or `y.unsqueeze(-1)`."
    return (Remark("warning", text, fix),)


def canonical(output: Tensor, targets: Tensor | None, task: Task) -> Tensor:
    """The output in the task's shape, float32 or wider.

    Returns:
        regression and multilabel (N, K); binary (N, 1); multiclass (N, C); token (N, T, C), all places in one
        axis T.

    Raises:
        UsageError: the output does not fit the targets.
    """
    output = output if output.dtype == torch.float64 else output.float()
    count = output.shape[0]
    if task.name in ("regression", "binary", "multilabel"):
        if targets is not None and not _same_size(output, targets):
            raise UsageError(
                f"a {task.name} output of shape {tuple(output.shape)} cannot be compared with targets of "
                f"shape {tuple(targets.shape)}: they must have the same size"
            )
        return output.reshape(count, -1)
    if task.name == "multiclass":
        if output.ndim != 2:
            raise UsageError(f"a multiclass output must be (N, classes), not {tuple(output.shape)}")
        return output
    if output.ndim < 3:
        raise UsageError(f"a token output must be (N, tokens, classes), not {tuple(output.shape)}")
    moved = output.movedim(task.class_axis, -1)
    return moved.reshape(count, -1, moved.shape[-1])


def canonical_targets(targets: Tensor, task: Task) -> Tensor:
    """Targets in the task's shape: (N, K) float, or long (N,) for multiclass and (N, T) for tokens.

    Raises:
        UsageError: more than one number a sample for multiclass.
    """
    flat = targets.reshape(targets.shape[0], -1)
    if task.name == "multiclass" and flat.shape[1] != 1:
        raise UsageError(
            f"multiclass targets must be class numbers, not of shape {tuple(targets.shape)}: pass "
            "targets.argmax(1), or task='multilabel' where several classes can be right"
        )
    if task.ignored != IGNORED and task.name in ("multiclass", "token"):
        flat = flat.long().masked_fill(flat == task.ignored, IGNORED)
    if task.next_token:
        return functional.pad(flat.long()[:, 1:], (0, 1), value=IGNORED)
    if task.name in ("regression", "binary", "multilabel"):
        return flat if flat.dtype == torch.float64 else flat.float()
    return flat.long().squeeze(1) if task.name == "multiclass" else flat.long()


def errors(output: Tensor, targets: Tensor, task: Task) -> Tensor:
    """Error of each sample: mean squared error, or negative log-likelihood in nats; (N,).

    Args:
        output: canonical output.
        targets: canonical targets.
        task: the task.

    Raises:
        UsageError: the shapes differ.
    """
    if task.name in ("regression", "binary", "multilabel"):
        if output.shape != targets.shape:
            raise UsageError(
                f"outputs {tuple(output.shape)} and targets {tuple(targets.shape)} differ in shape"
            )
        targets = targets.to(output.dtype)
        if task.name == "regression":
            return (output - targets).square().mean(1)
        if task.probabilities:
            return functional.binary_cross_entropy(output, targets, reduction="none").mean(1)
        return functional.binary_cross_entropy_with_logits(output, targets, reduction="none").mean(1)
    logs = log_probabilities(output, task)
    if task.name == "multiclass":
        return functional.nll_loss(logs, targets, reduction="none", ignore_index=IGNORED)
    each = functional.nll_loss(logs.movedim(-1, 1), targets, reduction="none", ignore_index=IGNORED)
    return each.sum(1) / (targets != IGNORED).sum(1).clamp(min=1)


def log_probabilities(output: Tensor, task: Task) -> Tensor:
    """Log-probabilities of the classes along the last axis."""
    if task.probabilities:
        return output.clamp(min=torch.finfo(output.dtype).tiny).log()
    return functional.log_softmax(output, -1)


def probabilities(output: Tensor, task: Task) -> Tensor:
    """Probabilities of a classifier's canonical output; binary and multilabel of each label being 1."""
    if task.probabilities:
        return output
    return output.sigmoid() if task.name in ("binary", "multilabel") else output.softmax(-1)


def tensor_of(output: Any) -> Tensor:
    """The prediction in whatever a model returns: a tensor, ``.logits``, or the first tensor it holds.

    Raises:
        UsageError: there is no tensor in it.
    """
    if isinstance(output, Tensor):
        return output
    for name in ("logits", "prediction", "predictions", "output", "out", "last_hidden_state"):
        held = output.get(name) if isinstance(output, dict) else getattr(output, name, None)
        if isinstance(held, Tensor):
            return held
    parts = output.values() if isinstance(output, dict) else output
    for part in parts if isinstance(output, (dict, tuple, list)) else ():
        if isinstance(part, Tensor) and part.ndim:
            return part
    kind = type(output).__name__
    raise UsageError(f"the model returned {kind} without a tensor: return predictions as a tensor")
