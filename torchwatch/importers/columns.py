"""Which column of a log is what: said by the user, or told by its name."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from torchwatch.errors import ConfigError
from torchwatch.importers.source import Row
from torchwatch.text import printable

TARGETS = ("loss", "step", "epoch", "lr", "time", "grad_norm")
"""What a column can be besides a metric of an evaluation (``val_…``, ``eval_…``, ``test_…``)."""

_STEP = ("step", "global_step", "trainer_global_step", "train_global_step", "train_step", "iteration", "iter")
_MORE_STEPS = ("it", "steps", "iterations", "update", "updates", "num_updates")
_EPOCH = ("epoch", "epochs", "train_epoch", "ep")
_TIME = ("time", "timestamp", "wall_time", "elapsed", "elapsed_time", "elapsed_s", "time_s")
_GRAD_NORM = ("grad_norm", "gradient_norm", "train_grad_norm", "global_grad_norm", "total_grad_norm")
_VALIDATION = {"val": "val", "valid": "val", "validation": "val", "dev": "val", "eval": "eval"}
_VALIDATION |= {"evaluation": "eval", "test": "test"}
_TRAINING = {"train", "training", "tr", "step", "epoch", "running", "batch", "ema", "smoothed", "objective"}
_TOTALS = {"total": 1, "avg": 2, "average": 2, "mean": 2}
_NO_LOSS = {"min", "max", "std", "var", "scale", "weight", "coef", "best", "lr", "time", "grad"}
_RATE = re.compile(
    r"(train_)?(lr|learning_rate)([-_/ ].*|\d+)?|(x|lr)/.*lr\d*|.*/(lr|learning_rate)\d*", re.IGNORECASE
)


@dataclass(frozen=True)
class Roles:
    """Columns by what they are.

    ``loss`` names the training loss, ``epoch_loss`` its twin that means a whole epoch; ``evals`` maps columns
    to metrics of the evaluation; ``components`` are further losses where there is no total.
    ``epoch_is_done``: the epoch counts what is done, so that 1 is the end of the first.
    """

    loss: str | None = None
    epoch_loss: str | None = None
    step: str | None = None
    epoch: str | None = None
    time: str | None = None
    grad_norm: str | None = None
    lr: tuple[str, ...] = ()
    epoch_is_done: bool = False
    evals: Mapping[str, str] = field(default_factory=dict)
    components: tuple[str, ...] = ()

    @property
    def known(self) -> frozenset[str]:
        """Columns that are something."""
        single = (self.loss, self.epoch_loss, self.step, self.epoch, self.time, self.grad_norm)
        return frozenset(n for n in (*single, *self.lr, *self.evals) if n)


def count_numbers(rows: Iterable[Row]) -> Counter[str]:
    """How often each column holds a number, in the order of the columns."""
    return Counter(name for row in rows for name, value in row.items() if isinstance(value, float))


def guess(counts: Mapping[str, int]) -> Roles:
    """Roles from the names of the columns.

    Args:
        counts: column → how many rows have a number in it; columns in their order.
    """
    names = {name: words(name) for name in counts}
    counted = _STEP + _MORE_STEPS + _EPOCH
    evals = {n: told for n, w in names.items() if (told := eval_name(n)) and "_".join(w) not in counted}
    rest = {n: w for n, w in names.items() if n not in evals}
    rates = tuple(n for n in rest if _RATE.fullmatch(n.strip()))
    ranked = sorted(
        (rank, index, n) for index, (n, w) in enumerate(rest.items()) if (rank := _loss_rank(w)) is not None
    )
    loss = ranked[0][2] if ranked else None
    twin = next((n for _, _, n in ranked[1:] if loss and _are_twins(loss, n)), None)
    if loss and twin:
        by_step, by_epoch = (twin, loss) if "epoch" in names[loss] else (loss, twin)
        loss, twin = (by_step, by_epoch) if counts[by_step] >= counts[by_epoch] else (by_epoch, by_step)
    partial = bool(ranked) and ranked[0][0] >= _COMPONENT
    return Roles(
        loss=loss,
        epoch_loss=twin if twin and loss and "epoch" not in names[loss] else None,
        step=_first(rest, _STEP + _MORE_STEPS),
        epoch=_first(rest, _EPOCH),
        time=_first(rest, _TIME),
        grad_norm=_first(rest, _GRAD_NORM),
        lr=rates,
        evals=evals,
        components=tuple(n for _, _, n in ranked[1:] if n != twin) if partial else (),
    )


def given(mapping: Mapping[str, str], counts: Mapping[str, int]) -> Roles:
    """Roles as the user named them; the others are guessed.

    Raises:
        ConfigError: a column that is not there, or something that a column cannot be.
    """
    for target, column in mapping.items():
        if target not in TARGETS and eval_name(target) is None:
            known = ", ".join(TARGETS)
            raise ConfigError(f"a column can be {known} or a metric such as val_loss, not {target!r}")
        if column not in counts:
            near = difflib.get_close_matches(column, list(counts), n=1)
            there = f"did you mean {near[0]!r}?" if near else f"there are {_listed(counts)}"
            raise ConfigError(f"no column {column!r} with numbers in this log; {there}")
    taken = set(mapping.values())
    roles = guess({n: c for n, c in counts.items() if n not in taken})
    evals = dict(roles.evals) | {c: t for t, c in mapping.items() if t not in TARGETS}
    if "loss" in mapping:
        roles = replace(roles, epoch_loss=None, components=())
    rates = (mapping["lr"],) if "lr" in mapping else roles.lr
    return replace(
        roles,
        loss=mapping.get("loss", roles.loss),
        step=mapping.get("step", roles.step),
        epoch=mapping.get("epoch", roles.epoch),
        time=mapping.get("time", roles.time),
        grad_norm=mapping.get("grad_norm", roles.grad_norm),
        lr=rates,
        evals=evals,
    )


def parse_columns(text: str) -> dict[str, str]:
    """``loss=train_loss,step=iteration`` as a mapping. Raises ConfigError if malformed."""
    mapping = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        target, sign, column = (p.strip() for p in part.partition("="))
        if not sign or not target or not column:
            raise ConfigError(
                f"--columns needs WHAT=COLUMN,…, such as loss=train_loss,step=iteration, not {part!r}"
            )
        mapping[target] = column
    if not mapping:
        raise ConfigError("--columns needs WHAT=COLUMN,…, such as loss=train_loss,step=iteration")
    return mapping


def words(name: str) -> tuple[str, ...]:
    """The words of a column's name in small letters."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip())
    return tuple(w for w in re.split(r"[^a-z0-9]+", spaced.lower()) if w)


def eval_name(name: str) -> str | None:
    """The name of an evaluation's metric, with ``val_``, ``eval_`` or ``test_`` in front; None: it is none.

    >>> eval_name("Loss/val"), eval_name("validation_loss"), eval_name("eval_f1"), eval_name("interval")
    ('val_Loss', 'val_loss', 'eval_f1', None)
    """
    parts = [p for p in re.split(r"([/_\s.-]+)", name.strip()) if p]
    bare = [p.lower() for p in parts]
    if bare[0] in _VALIDATION and len(parts) > 2:
        return f"{_VALIDATION[bare[0]]}_{''.join(parts[2:])}"
    if bare[-1] in _VALIDATION and len(parts) > 2:
        return f"{_VALIDATION[bare[-1]]}_{''.join(parts[:-2])}"
    return None


_COMPONENT = 10


def _loss_rank(parts: tuple[str, ...]) -> int | None:
    """How much like the training loss a name is: 0 is it, from 10 on it is one of several terms."""
    if "loss" not in parts or set(parts) & _NO_LOSS:
        return None
    extra = [w for w in parts if w != "loss" and w not in _TRAINING]
    if not extra:
        return 0
    if all(w in _TOTALS for w in extra):
        return max(_TOTALS[w] for w in extra)
    return _COMPONENT + len(extra)


def _are_twins(one: str, other: str) -> bool:
    """Whether the names differ in ``step`` and ``epoch`` alone."""
    bare = [tuple(w for w in words(n) if w not in ("step", "epoch")) for n in (one, other)]
    return bare[0] == bare[1] and "epoch" in {*words(one), *words(other)}


def _first(columns: Mapping[str, tuple[str, ...]], names: tuple[str, ...]) -> str | None:
    found = {"_".join(w): n for n, w in reversed(list(columns.items()))}
    return next((found[name] for name in names if name in found), None)


def _listed(names: Iterable[str]) -> str:
    shown = [printable(n, 40) for n in names]
    return ", ".join(shown[:12]) + (" …" if len(shown) > 12 else "")
