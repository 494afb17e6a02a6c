"""The validation loss rises while the training loss falls.

What it detects
    The best validation loss lies at least three evaluations back (in a long run a tenth of all), and the
    last is worse than it by more than 5 % (Prechelt's generalisation loss). Either it is a plain turn:
    validation fell before the best, at each evaluation since it rose while training fell, and the mean of
    the last three lies above the best by more than noise of a size that is itself not well known (Student's
    t). Or it is not: then the last three (the last tenth) must all be worse by 5 % and by more than noise,
    the slope since the best must rise for certain, and validation rose at least twice while training fell.
    So a clear turn is told after three evaluations, and one in a validation loss that scatters by a tenth
    after ten or more. The levels of training and validation loss are never compared with each other: they
    can be on different scales.

Why it matters
    The model now learns its training set by heart. The best weights were those of the named step.

What to do
    Stop at the named step or go back to its checkpoint. To get further, use more data or augmentation,
    dropout, weight decay, or a smaller model.

When it is fine
    A validation loss can rise on a few confident mistakes while accuracy still improves: as long as the first
    other validation metric improves, this is only noted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.loss._curves import Values, first_level
from torchwatch.checks.loss._levels import train_levels
from torchwatch.checks.loss._metrics import quality as measured_quality
from torchwatch.checks.loss._metrics import tail
from torchwatch.history import History, Series
from torchwatch.statistics import noise, noise_at, noise_beside, slope_bounds, t_tail
from torchwatch.text import number, percent, printable

_TREND_EVALS = 8
_LAST = 3

_SNIPPET = """\
if val_loss < best:
    best, waited = val_loss, 0
    torch.save(model.state_dict(), "best.pt")
elif (waited := waited + 1) >= 3:
    break
"""


@dataclass(frozen=True)
class Limits:
    """When a model overfits. A guard at 0 is off.

    Attributes:
        rises: evaluations since the best in which validation rose and training fell (evaluations).
        patience: guard: last evaluations, all after the best, that must all be worse as below (evaluations).
        patience_share: guard: or as large a share of all evaluations so far, because over a long run the
            validation loss also wanders for longer (share).
        generalisation_loss: guard: smallest rise of the validation loss over its best (percent).
        sigmas: guard: smallest rise, in σ of the validation loss (σ).
        certain_slope: guard: 1 asks that the slope since the best rises for certain (95 %), because one lucky
            evaluation before many equal ones is no rise (switch).
        steady_sigmas: by how much the mean of the last three evaluations must lie above the best, where
            validation rose and training fell at every one since (σ, as the quantile of Student's t that is as
            seldom); 0 always asks for the guards above.
        metric_improves: guard: 1 only notes it while the first other validation metric improves (switch).
    """

    rises: int = 2
    patience: int = 3
    patience_share: float = 0.1
    generalisation_loss: float = 5.0
    sigmas: float = 2.0
    certain_slope: int = 1
    steady_sigmas: float = 3.0
    metric_improves: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """One finding while validation is worse than it was and training better."""
    name = history.val_loss_name()
    if name is None:
        return NotReady("no validation loss yet")
    val = tail(history.eval_series(name))
    needed = max(limits.rises + 1, limits.patience + 2)
    if val.values.size < needed:
        return NotReady(f"needs {needed} evaluations, {val.values.size} seen")
    best = int(val.values.argmin())
    since = val.values.size - 1 - best
    patience = max(limits.patience, math.ceil(limits.patience_share * val.values.size))
    if since < max(limits.rises, patience) or not _exceeds(val.values[-1:], val.values, best, limits):
        return []
    train = train_levels(history, val.steps)
    both = (np.diff(val.values) > 0) & ((np.diff(train) < 0) | _memorised(history, train[1:]))
    plain = best > 0 and bool(both[best:].all()) and _is_clear(val.values, best, limits)
    if not plain and not _is_certain(val, best, patience, limits):
        return []
    if both[best:].sum() < limits.rises or not _train_fell(history, train, best):
        return []
    return [_finding(history, name, val, best, train, limits)]


def _exceeds(recent: Values, values: Values, best: int, limits: Limits) -> bool:
    """Whether the least of the recent values lies above the best by a share that counts."""
    level = float(values[best])
    scale = level if values.min() > 0 else float(values[: best + 1].max() - level)
    return not limits.generalisation_loss or recent.min() - level > limits.generalisation_loss / 100 * scale


def _is_clear(values: Values, best: int, limits: Limits) -> bool:
    """Whether the mean of the last three lies above the best by more than noise and luck can bring about.

    With few evaluations the noise itself is not known well; Student's t takes that into account.
    """
    scaled = np.log(values) if values.min() > 0 else values
    sigma, degrees = noise_beside(scaled, best)
    if not limits.steady_sigmas or not degrees:
        return False
    above = float(scaled[-_LAST:].mean() - scaled[best]) - math.sqrt(2 * math.log(values.size)) * sigma
    if sigma == 0:
        return above > 0
    return t_tail(above / sigma * math.sqrt(_LAST), degrees) < NormalDist().cdf(-limits.steady_sigmas)


def _is_certain(val: Series, best: int, patience: int, limits: Limits) -> bool:
    """Whether validation is worse than its best for good, whatever it did between."""
    if not _is_worse(val.values, best, patience, limits):
        return False
    return not limits.certain_slope or slope_bounds(val.steps[best:], val.values[best:])[0] > 0


def _is_worse(val: Values, best: int, patience: int, limits: Limits) -> bool:
    """Whether the last evaluations are all worse than the best by more than noise and by a share that counts.

    The lowest of n noisy values lies √(2 ln n) σ low by luck alone.
    """
    last = val[-max(1, patience) :]
    if not _exceeds(last, val, best, limits):
        return False
    if not limits.sigmas:
        return True
    level = float(val[best])
    sigma = noise_at(level, val)
    if math.isnan(sigma):
        return False
    luck = math.sqrt(2 * math.log(val.size))
    return float(last.min()) - level > (limits.sigmas + luck) * sigma


def _memorised(history: History, train: Values) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Where the training loss is as good as 0 and cannot fall further."""
    first = first_level(history)
    return train < 0.01 * first if first is not None and first > 0 else np.zeros(train.size, np.bool_)


def _train_fell(history: History, train: Values, best: int) -> bool:
    recent = train[-3:]
    # Before the first loss was logged nothing is known: the first level after it is an even lower one.
    known = train[best:][np.isfinite(train[best:])]
    now, then = float(np.median(recent)), float(known[0]) if known.size else math.nan
    return now < then or bool(_memorised(history, recent).all())


def _improves(quality: Series, patience: int) -> bool:
    """Whether the last evaluations beat all before by more than noise, or the metric rises for certain."""
    values, count = quality.values, max(1, patience)
    if values.size <= count:
        return False
    sigma = noise(values)
    if float(values[-count:].max() - values[:-count].max()) > (0.0 if math.isnan(sigma) else sigma):
        return True
    last = slice(-max(_TREND_EVALS, 3 * count), None)
    return slope_bounds(quality.steps[last], values[last])[0] > 0


def _finding(history: History, name: str, val: Series, best: int, train: Values, limits: Limits) -> Finding:
    onset, level, now = int(val.steps[best]), float(val.values[best]), float(val.values[-1])
    quality = measured_quality(history) if limits.metric_improves else None
    improves = quality is not None and _improves(quality[1], limits.patience)
    shown = printable(name)
    rise = percent(now / level - 1) if level > 0 else number(now - level)
    where = _where(history, onset)
    detail = (
        f"{shown} {number(level)} at {where}, {number(now)} at step {int(val.steps[-1])}, "
        f"{val.values.size - 1 - best} evaluations later. Training loss {number(float(train[best]))} then, "
        f"{number(float(train[-1]))} now."
    )
    if improves and quality is not None:
        detail += f" Only noted, because {printable(quality[0])} still improves."
    return Finding(
        title=f"{shown} is {rise} above its best at {where} while the training loss falls",
        since_step=onset,
        detail=detail,
        severity=Severity.INFO if improves else Severity.WARNING,
        metric=shown,
        value=now,
        threshold=level,
        fix=f"Stop at {where} or go back to its checkpoint; then more data, dropout or weight decay.",
    )


def _where(history: History, step: int) -> str:
    epoch = next((e.epoch for e in history.evals if e.step == step), None)
    return f"step {step}" if epoch is None else f"epoch {epoch} (step {step})"


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.LOSS,
    # Generalisation is no numerical trouble: it never causes what other checks see, so it is last in line.
    cause=Cause.OTHER,
    when=frozenset({On.EVAL}),
    reads=("loss", "val_loss"),
    limits=Limits(),
    find=find,
    fix="Stop at the best evaluation or go back to its checkpoint; then dropout, weight decay or more data.",
    snippet=_SNIPPET,
    resolve_after=2,
)
