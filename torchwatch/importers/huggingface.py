"""Hugging Face ``trainer_state.json``: the Trainer's log, also in its checkpoints."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torchwatch.errors import NotARunFile
from torchwatch.importers.columns import Roles, count_numbers, words
from torchwatch.importers.log import Log
from torchwatch.importers.source import Row, Source, as_row
from torchwatch.importers.table import log_of
from torchwatch.text import printable

NAME = "Hugging Face trainer_state"

_SPEED = ("_runtime", "_per_second", "_time", "_compilation_time")
_REWARDED = {"reward_std", "completion_length", "completions/mean_length", "objective/rlhf_reward"}
_MOST_PLANNED = 1 << 40


def recognises(source: Source) -> bool:
    """Whether it is one JSON object with a ``log_history``."""
    return source.head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{" and isinstance(_state(source), dict)


def read(source: Source, columns: Mapping[str, str] | None) -> Log:
    """The log: train rows, evaluations (several sets of one step are joined), without the final means."""
    state = _state(source)
    if state is None:
        raise NotARunFile(f"{printable(source.path)} is not a run file, nor a trainer_state.json")
    history = [as_row(r.items()) for r in state["log_history"] if isinstance(r, dict)]
    rows = [_without_speed(r) for r in history if "train_runtime" not in r]
    if not rows:
        raise NotARunFile(
            f"{printable(source.path)} is a trainer_state.json without a log: it has logged nothing"
        )
    counts = count_numbers(rows)
    roles = Roles(
        loss="loss",
        step="step" if "step" in counts else None,
        epoch="epoch" if "epoch" in counts else None,
        epoch_is_done=True,
        grad_norm="grad_norm" if "grad_norm" in counts else None,
        lr=tuple(n for n in ("learning_rate", "lr") if n in counts)[:1],
        evals={n: n for n in _evaluated(rows, counts, state.get("best_metric"))},
    )
    if "loss" not in counts:
        raise NotARunFile(f"{printable(source.path)} is a trainer_state.json without a training loss")
    log = log_of(source, NAME, rows, columns, roles)
    _mark_skipped(log)
    if _REWARDED & counts.keys():
        log.declared["reinforcement"] = True
        log.notes.append("A reward is logged: taken for reinforcement learning, whose loss need not fall.")
    log.planned_steps = _planned(state.get("max_steps"))
    log.finished = len(rows) < len(history) or state.get("global_step") == log.planned_steps
    log.hyperparameters = _hyperparameters(state)
    return log


def _evaluated(rows: Sequence[Row], names: Iterable[str], best: Any) -> list[str]:
    """Metrics of the evaluations: losses first, then the one by which the best checkpoint was chosen.

    The state does not name that one, but its best value. Without it overall scores and short names come
    first: of dozens of scores per class the first would say little.
    """
    found = [n for n in names if n.startswith(("eval_", "test_"))]
    chosen = {n for n in found for r in rows if best is not None and r.get(n) == best}

    def rank(name: str) -> tuple[bool, bool, bool, int]:
        parts = words(name)
        return "loss" not in parts, name not in chosen, "overall" not in parts, len(parts)

    return sorted(found, key=rank)


def _mark_skipped(log: Log) -> None:
    """A gradient that is not finite beside a finite loss and a rate that stood still: float16 skipped it."""
    rate: list[float] | None = None
    skipped = 0
    measured = [p for p in log.points if p.grad_norm is not None]
    for point in log.points:
        if point.loss is None:
            continue
        odd = point.grad_norm is not None and not math.isfinite(point.grad_norm) and math.isfinite(point.loss)
        if odd and point.lr is not None and (point.lr == rate or point.lr == [0.0]):
            point.skipped = True
            skipped += 1
        rate = point.lr
    if skipped:
        for point in measured:
            point.skipped = bool(point.skipped)
        log.notes.append(
            f"{skipped} logged step{'s' * (skipped != 1)} with a gradient that is not finite, a finite loss "
            "and an unchanged learning rate: taken for steps that a gradient scaler skipped."
        )


def _without_speed(row: Row) -> Row:
    return {n: v for n, v in row.items() if not n.endswith(_SPEED) and n != "total_flos"}


def _planned(value: Any) -> int | None:
    return value if type(value) is int and 0 < value < _MOST_PLANNED else None


def _hyperparameters(state: dict[str, Any]) -> dict[str, Any]:
    """What else the state says, without numbers that stand for "no limit"."""
    names = ("train_batch_size", "num_train_epochs", "max_steps", "logging_steps", "eval_steps", "save_steps")
    return {
        n: v
        for n in names
        if isinstance(v := state.get(n), (int, float)) and math.isfinite(v) and 0 < v < _MOST_PLANNED
    }


def _state(source: Source) -> dict[str, Any] | None:
    """The parsed file; None where it is something else."""
    found = source.document if b'"log_history"' in source.content else None
    return found if found is not None and isinstance(found.get("log_history"), list) else None
