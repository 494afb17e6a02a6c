"""Where the model fails: the worst samples, and the error by slices.

Errors are sliced by every metadata column, by group, and by the *predicted* value. They are not sliced by the
target: given the target, even the best predictor errs upwards at low and downwards at high targets, by
regression to the mean, so such a plot accuses every model. Given the prediction, a calibrated model has no
bias in any slice.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from torchwatch.examinations._scored import Decisions, Numbers, scored, units
from torchwatch.examinations._slices import Column, columns_of, sliced
from torchwatch.examinations.case import Case
from torchwatch.examinations.examination import Examination, NotApplicable
from torchwatch.results import Remark
from torchwatch.results.failures import Failure, Failures, Slices
from torchwatch.text import number, percent, printable

WORST = 50
_SHOWN_OUTPUTS = 8
_SURE = 0.01
_MUCH = 1.25
"""A slice is remarked where its mean error is this many times that of the other samples, and surely so."""

_LEAST_IN_SLICE = 5


def examine(case: Case) -> Failures:
    """Rank samples by error, and compare slices."""
    known = scored(case)
    kept = np.isfinite(known.error)
    if not kept.any():
        raise NotApplicable(
            "no sample has both a finite prediction and a target: there are no errors to rank"
        )
    columns, not_sliced = columns_of(case, known)
    slices = _slices(case, known, columns)
    error = known.error[kept]
    return Failures(
        worst=_worst(case, known),
        mean_error=float(error.mean()),
        median_error=float(np.median(error)),
        share_of_worst=_share_of_worst(error),
        samples=int(kept.sum()),
        error_name=_error_name(known),
        slices=slices,
        not_sliced=not_sliced,
        remarks=_remarks(slices, error, classifies=case.task.classifies),
    )


def _error_name(known: Numbers | Decisions) -> str:
    return "squared error" if isinstance(known, Numbers) else "negative log-likelihood (nats)"


def _slices(case: Case, known: Numbers | Decisions, columns: list[Column]) -> tuple[Slices, ...]:
    unit = units(case)[0]
    rng = case.rng("failures")
    found = []
    for done, column in enumerate(columns):
        found.append(sliced(column, known, unit, rng))
        case.tick(done + 1, len(columns))
    return tuple(found)


def _share_of_worst(error: npt.NDArray[np.float64]) -> float:
    total = error.sum()
    count = max(1, round(0.05 * error.size))
    return float(np.sort(error)[-count:].sum() / total) if total > 0 else float("nan")


# ---------------------------------------------------------------------- the worst


def _worst(case: Case, known: Numbers | Decisions) -> tuple[Failure, ...]:
    order = np.argsort(-np.where(np.isfinite(known.error), known.error, -np.inf), kind="stable")[:WORST]
    chosen = order[np.isfinite(known.error[order])]
    return tuple(_failure(case, known, int(i)) for i in chosen)


def _failure(case: Case, known: Numbers | Decisions, i: int) -> Failure:
    said, wanted, confidence = _said(case, known, i)
    return Failure(
        index=int(case.samples.index[i]),
        error=float(known.error[i]),
        prediction=said,
        target=wanted,
        confidence=confidence,
        group=None if case.groups is None else _simple(case.groups[i]),
        metadata={k: _simple(v[i]) for k, v in case.samples.metadata.items()},
    )


def _said(case: Case, known: Numbers | Decisions, i: int) -> tuple[tuple[Any, ...], tuple[Any, ...], float]:
    """Prediction, target and confidence of one sample, at most 8 values each."""
    if isinstance(known, Numbers):
        p, y = known.predictions[i, :_SHOWN_OUTPUTS], known.targets[i, :_SHOWN_OUTPUTS]
        return tuple(map(float, p)), tuple(map(float, y)), float("nan")
    mine = np.flatnonzero(known.sample == i)
    shown = mine[:_SHOWN_OUTPUTS]
    if known.labels > 1:
        return tuple(map(int, known.predicted[shown])), tuple(map(int, known.true[shown])), float(
            known.confidence[mine].mean()
        )  # fmt: skip
    names = case.class_names
    said = tuple(names[c] for c in known.predicted[shown])
    return said, tuple(names[c] for c in known.true[shown]), float(known.confidence[mine].mean())


def _simple(value: Any) -> Any:
    """A value that a report can hold."""
    value = value.item() if isinstance(value, np.generic) else value
    return value if value is None or isinstance(value, (bool, int, float, str)) else printable(value, 200)


# ---------------------------------------------------------------------- remarks


def _remarks(
    slices: tuple[Slices, ...], error: npt.NDArray[np.float64], *, classifies: bool
) -> tuple[Remark, ...]:
    """The clearest slice of each column, p corrected for the number of columns as well."""
    remarks = []
    for each in slices:
        sure = each.p * max(1, len(slices)) < _SURE
        others = (error.sum() - each.error * each.count) / np.maximum(error.size - each.count, 1)
        chosen = np.flatnonzero(sure & (each.error > _MUCH * others) & (each.count >= _LEAST_IN_SLICE))
        if chosen.size:
            worst = int(chosen[np.argmax(each.error[chosen])])
            remarks.append(_high_slice(each, worst, float(others[worst]), chosen.size))
    share = _share_of_worst(error)
    if error.size >= 100 and share > 0.5:
        text = f"The worst 5 % of the samples make {percent(share)} of the summed error."
        fix = "Look at these samples one by one: wrong labels and broken inputs collect there."
        # of a good classifier's log-loss nearly all lies in its few mistakes
        remarks.append(Remark("info" if classifies else "warning", text, fix))
    return tuple(remarks)


def _high_slice(each: Slices, worst: int, others: float, count: int) -> Remark:
    name = printable(each.names[worst], 60)
    column = printable(each.column, 60)
    more = f"; {count - 1} more of its slices stand out" if count > 1 else ""
    text = (
        f"Errors are {number(each.error[worst] / others)} times as large where {column} is {name} "
        f"({each.count[worst]:,} samples: mean error {number(each.error[worst])} against {number(others)}, "
        f"p = {number(each.p[worst])}){more}."
    )
    fix = {
        "predicted value": "Errors that depend on the prediction: try a transformed target or another loss.",
        "confidence": "",
    }.get(each.kind, "Compare the inputs and labels of this slice with the rest; more data of it would help.")
    severity = "info" if each.kind in ("confidence", "predicted class") else "warning"
    return Remark(severity, text, fix)  # type: ignore[arg-type]


EXAMINATION = Examination(
    title="Failures",
    examine=examine,
    tells="which samples are worst, and which slices of the data the model fails on",
    needs_targets=True,
)
