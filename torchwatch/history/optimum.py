"""Where a run was best, and what came after it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from torchwatch.history import History, Series

_QUALITIES = (
    "acc", "accuracy", "auc", "auroc", "ap", "map", "bleu", "dice", "f1", "iou", "miou", "precision", "psnr",
    "r2", "recall", "rouge", "score", "ssim", "top1", "top5",
)  # fmt: skip


class Optimum(NamedTuple):
    """The evaluation after which nothing got better.

    ``metric`` and ``value`` say what was best there, ``step``, ``epoch`` and ``time_s`` where it was,
    ``later`` how many evaluations of that metric followed; ``last_step``, ``last_epoch`` and ``end_s`` are
    the run's end.
    """

    metric: str
    value: float
    step: int
    epoch: int | None
    time_s: float
    later: int
    last_step: int
    last_epoch: int | None
    end_s: float

    @property
    def wasted(self) -> float:
        """Share of the run's steps that came after it."""
        return (self.last_step - self.step) / self.last_step if self.last_step else 0.0


def optimum(history: History) -> Optimum | None:
    """The last of what was best: the validation loss, or a metric that says how good the model is.

    None where nothing finite was validated.
    """
    return history.cached("optimum", lambda: _optimum(history))


def _optimum(history: History) -> Optimum | None:
    loss = history.val_loss_name()
    names = [loss] if loss is not None else []
    names += [n for n in (history.evals[-1].metrics if history.evals else ()) if n != loss and _is_quality(n)]
    found = [best for n in names if (best := _best(history.eval_series(n), lowest=n == loss)) is not None]
    if not found:
        return None
    at = max(range(len(found)), key=lambda i: found[i][0])
    step, value, later = found[at]
    record = next(e for e in history.evals if e.step == step)
    return Optimum(
        names[at],
        value,
        step,
        record.epoch,
        record.time_s,
        later,
        history.step,
        history.epoch,
        history.time_s,
    )


def _is_quality(name: str) -> bool:
    """Whether a metric grows as the model gets better, judged by the words of its name."""
    return any(word in _QUALITIES for word in re.split(r"[^a-z0-9]+", name.lower()))


def _best(series: Series, *, lowest: bool) -> tuple[int, float, int] | None:
    """Step and value of the best finite evaluation, and how many came after it."""
    values = np.where(np.isfinite(series.values), series.values if lowest else -series.values, np.inf)
    if not np.isfinite(values).any():
        return None
    at = int(values.argmin())
    step = int(series.steps[at])
    return step, float(series.values[at]), int((series.steps > step).sum())
