"""How sure the model is: spread under dropout, coverage of its intervals, reliability of its confidence.

Monte-Carlo dropout (Gal & Ghahramani 2016): the dropout modules alone are switched on, everything else stays
in evaluation mode, and the model predicts 30 times. The spread is rough: it depends on the rates and places
of dropout that were chosen for training, and knows nothing of the noise in the targets. Of a classifier
without dropout the reliability diagram of its own confidence is left.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from torchwatch.examinations._dropout_passes import PassesOfClasses, PassesOfNumbers, of_classes, of_numbers
from torchwatch.examinations._scored import Decisions, Numbers, scored
from torchwatch.examinations.case import Case
from torchwatch.examinations.examination import Examination, NotApplicable
from torchwatch.results import Remark
from torchwatch.results.uncertainty import Coverage, Reliability, Uncertainty
from torchwatch.statistics import classification, metrics
from torchwatch.statistics.intervals import central
from torchwatch.statistics.ranks import spearman
from torchwatch.text import number, percent

Floats = npt.NDArray[np.float64]

PASSES = 30
LEVELS = (0.5, 0.8, 0.9, 0.95)
_KEPT_VALUES = 50_000
_DROPOUTS = (
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout,
)  # fmt: skip


def examine(case: Case) -> Uncertainty:
    """Measure the spread under dropout, and compare it and the confidence with errors."""
    dropouts = dropouts_of(case.model)
    classes = case.task.classifies
    if not dropouts and not (classes and case.targets is not None):
        raise NotApplicable(
            "the model has no dropout modules (nn.Dropout and its kin, p > 0), so there are no passes to "
            "compare: an ensemble, or dropout in training, would tell its uncertainty"
        )
    with dropout_on(dropouts):
        if classes:
            passes = of_classes(case, PASSES) if dropouts else None
        else:
            numbers = of_numbers(case, PASSES)
    known = None if case.targets is None else scored(case)
    if not classes:
        assert known is None or isinstance(known, Numbers)
        return _regression(case, tuple(dropouts), numbers, known)
    assert known is None or isinstance(known, Decisions)
    return _classification(case, tuple(dropouts), passes, known)


def dropouts_of(model: nn.Module) -> dict[str, nn.Module]:
    """Dropout modules with a rate above 0, by full name: torch's, and others whose class is named so."""
    return {name: m for name, m in model.named_modules() if _is_dropout(m) and _rate(m) > 0}


def _is_dropout(module: nn.Module) -> bool:
    return isinstance(module, _DROPOUTS) or (
        type(module).__name__.endswith("Dropout") and not any(module.children())
    )


def _rate(module: nn.Module) -> float:
    rate = getattr(module, "p", getattr(module, "drop_prob", 0.0))
    return float(rate) if isinstance(rate, (int, float)) else 0.0


@contextmanager
def dropout_on(dropouts: dict[str, nn.Module]) -> Iterator[None]:
    """Dropout modules in training mode for the body, nothing else.

    The fused path of torch's transformer layers leaves dropout out, so it is off for the body.
    """
    before = {name: m.training for name, m in dropouts.items()}
    fused = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        for module in dropouts.values():
            module.training = True
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for name, module in dropouts.items():
            module.training = before[name]


# ---------------------------------------------------------------------- regression


def _regression(
    case: Case, dropouts: tuple[str, ...], passes: PassesOfNumbers, numbers: Numbers | None
) -> Uncertainty:
    coverage, ranks = None, float("nan")
    remarks: tuple[Remark, ...] = ()
    targets = None if numbers is None else numbers.targets[passes.rows]
    if numbers is not None and targets is not None:
        fine = numbers.finite[passes.rows] & np.isfinite(passes.mean) & np.isfinite(passes.std)
        samples = int(fine.any(1).sum())
        if samples > 1:
            coverage = _coverage(passes, targets, fine)
            ranks = _ranks(passes, targets, fine)
            remarks = _regression_remarks(coverage, ranks, samples)
    count = passes.mean.shape[1]
    shown = np.arange(min(count, max(1, _KEPT_VALUES // max(1, len(passes.mean)))))
    finite = passes.std[np.isfinite(passes.std)]
    typical = float(np.median(finite)) if finite.size else float("nan")
    return Uncertainty(
        passes=PASSES,
        dropouts=dropouts,
        index=case.samples.index[passes.rows],
        shown=shown,
        mean=passes.mean[:, shown],
        std=passes.std[:, shown],
        residuals=np.empty(0) if targets is None else targets[:, shown] - passes.mean[:, shown],
        right=np.empty(0, bool),
        entropy=np.empty(0),
        mutual_information=np.empty(0),
        typical=typical,
        ranks_errors=ranks,
        coverage=coverage,
        reliability=(),
        remarks=(*_rough(dropouts, typical), *_part(passes, case), *remarks),
    )


def _coverage(passes: PassesOfNumbers, targets: Floats, fine: npt.NDArray[np.bool_]) -> Coverage:
    """Share of targets inside mean ± z·std, from dropout alone and with the noise of the other samples."""
    residual = np.where(fine, targets - passes.mean, 0.0)
    variance = np.where(fine, passes.std**2, 0.0)
    count = fine.sum(0)
    others = metrics.over((residual**2).sum(0) - residual**2, count - 1)
    noise = np.maximum(others - metrics.over(variance.sum(0), count), 0)
    alone, wide = np.sqrt(variance), np.sqrt(variance + np.nan_to_num(noise))
    distance = np.abs(residual)
    z = [central(level) for level in LEVELS]
    return Coverage(
        nominal=np.array(LEVELS),
        dropout=np.array([float(metrics.mean((distance <= k * alone)[fine])) for k in z]),
        with_noise=np.array([float(metrics.mean((distance <= k * wide)[fine])) for k in z]),
    )


def _ranks(passes: PassesOfNumbers, targets: Floats, fine: npt.NDArray[np.bool_]) -> float:
    """Spearman of each sample's spread and error, RMS over its outputs."""
    rows = fine.any(1)
    count = fine[rows].sum(1)
    spread = np.sqrt(np.where(fine, passes.std, 0.0)[rows] ** 2 @ np.ones(fine.shape[1]) / count)
    error = np.where(fine, targets - passes.mean, 0.0)[rows]
    return spearman(spread, np.sqrt((error**2).sum(1) / count))


def _regression_remarks(coverage: Coverage, ranks: float, samples: int) -> tuple[Remark, ...]:
    remarks = []
    nominal, held = coverage.nominal[2], coverage.dropout[2]
    if held < nominal - 0.1:
        text = (
            f"Intervals of the dropout passes that should hold {percent(nominal)} of the targets hold "
            f"{percent(held)}: no error bars. With the noise of the residuals added they hold "
            f"{percent(coverage.with_noise[2])}."
        )
        remarks.append(Remark("info", text))
    bound = 2 / np.sqrt(max(samples - 1, 1))
    if samples >= 20 and np.isfinite(ranks) and ranks < bound:
        text = f"The spread does not tell where errors are large (Spearman {number(ranks)})."
        remarks.append(Remark("info", text, "Do not use it to reject samples."))
    return tuple(remarks)


def _rough(dropouts: tuple[str, ...], typical: float) -> tuple[Remark, ...]:
    if not dropouts:
        return ()
    if typical == 0:
        text = f"{PASSES} passes with dropout give the same predictions: dropout changes nothing here."
        return (Remark("warning", text, "See whether what is dropped reaches the output (ablation)."),)
    text = (
        "Monte-Carlo dropout is a rough measure: it depends on where and at which rates dropout was put for "
        f"training ({len(dropouts)} module{'s' * (len(dropouts) > 1)}), and knows nothing of the noise in "
        "the targets."
    )
    return (Remark("info", text),)


def _part(passes: PassesOfNumbers | PassesOfClasses | None, case: Case) -> tuple[Remark, ...]:
    """Said where the outputs are so large that only some samples were looked at."""
    if passes is None or len(passes.rows) == len(case.samples):
        return ()
    all_of = len(case.samples)
    text = f"For time, {len(passes.rows):,} of the {all_of:,} samples went through the dropout passes."
    return (Remark("info", text),)


# ---------------------------------------------------------------------- classes


def _classification(
    case: Case, dropouts: tuple[str, ...], passes: PassesOfClasses | None, decisions: Decisions | None
) -> Uncertainty:
    diagrams, ranks, right = [], float("nan"), np.empty(0, bool)
    if decisions is not None:
        diagrams.append(reliability("model", decisions.confidence, decisions.right))
    if passes is not None and passes.true is not None:
        right = passes.right
        diagrams.append(reliability("mean of the dropout passes", passes.confidence, right))
        ranks = metrics.auroc(passes.entropy, ~right)
    nothing = np.empty(0)
    typical = float("nan")
    if passes is not None and passes.std.size:
        typical = float(np.median(passes.std))
    return Uncertainty(
        passes=PASSES if dropouts else 0,
        dropouts=dropouts,
        index=case.samples.index if passes is None else case.samples.index[passes.rows],
        shown=np.empty(0, np.int64),
        mean=nothing if passes is None else passes.confidence[:_KEPT_VALUES],
        std=nothing if passes is None else passes.std[:_KEPT_VALUES],
        residuals=nothing,
        right=right[:_KEPT_VALUES],
        entropy=nothing if passes is None else passes.entropy[:_KEPT_VALUES],
        mutual_information=nothing if passes is None else passes.mutual_information[:_KEPT_VALUES],
        typical=typical,
        ranks_errors=ranks,
        coverage=None,
        reliability=tuple(diagrams),
        remarks=(
            *_rough(dropouts, typical),
            *_part(passes, case),
            *_class_remarks(dropouts, diagrams, ranks),
        ),
    )


def reliability(of: str, confidence: Floats, right: npt.NDArray[np.bool_]) -> Reliability:
    """Reliability diagram of decisions (M,)."""
    bins = classification.calibration(confidence, right)
    low, high = classification.wilson(bins.right, bins.count)
    return Reliability(of, bins.edges, bins.count, bins.confidence, bins.accuracy, low, high, bins.ece)


def _class_remarks(
    dropouts: tuple[str, ...], diagrams: list[Reliability], ranks: float
) -> tuple[Remark, ...]:
    if not dropouts:
        text = "The model has no dropout modules: only the reliability of its own confidence can be shown."
        return (Remark("info", text),)
    remarks = []
    if len(diagrams) == 2:
        text = (
            f"Expected calibration error: {number(diagrams[0].ece)} of the model, {number(diagrams[1].ece)} "
            "of the mean of the dropout passes."
        )
        remarks.append(Remark("info", text))
    if np.isfinite(ranks):
        text = (
            "The predictive entropy picks a wrong decision before a right one with probability "
            f"{number(ranks)} (0.5 is chance)."
        )
        remarks.append(Remark("info", text))
    return tuple(remarks)


EXAMINATION = Examination(
    title="Uncertainty",
    examine=examine,
    tells="how sure the model is, and whether it is right as often as it is sure",
)
