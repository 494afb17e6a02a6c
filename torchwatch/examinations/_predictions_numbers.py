"""Scores of a regression, what they favour, and the sentences for it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt

from torchwatch.examinations._scored import Numbers
from torchwatch.results import Remark
from torchwatch.results.predictions import NumberScores, Reading
from torchwatch.statistics import metrics
from torchwatch.statistics.resampling import relation_intervals
from torchwatch.text import number, percent

Floats = npt.NDArray[np.float64]

CONSTANT = 0.01
"""Predictions that spread less than this share of the targets' spread are (nearly) constant."""

SMALL_SPREAD = 0.5
STEEP, SURELY_STEEP = 2.0, 1.25
"""Over-shrunk: a calibration slope of at least this, and its interval's lower end above that."""

HONEST = (0.67, 1.5)
"""Calibration slopes near 1."""

LEAST_SAMPLES = 10
_COLUMNS = 1000
"""Outputs that are scored at once, for memory."""

_PATTERNS, _FEW_DRAWS = 200, 200
"""Where gaps differ from output to output, each is scored alone: with fewer draws, for time."""

_MEASURES = {
    "rmse": metrics.rmse,
    "nrmse": metrics.nrmse,
    "mae": metrics.mae,
    "r2": metrics.r2,
    "std_ratio": metrics.std_ratio,
    "pearson": metrics.pearson,
    "slope": metrics.calibration_slope,
}


def number_scores(numbers: Numbers, names: tuple[str, ...], drawn: Floats) -> NumberScores:
    """Scores of each output over its finite pairs; outputs with the same gaps are scored together.

    Args:
        numbers: the regression, (N, K).
        names: of the outputs (K).
        drawn: bootstrap weights (D, N).
    """
    count = numbers.predictions.shape[1]
    patterns, which = np.unique(numbers.finite, axis=1, return_inverse=True)
    if patterns.shape[1] > _PATTERNS:
        drawn = drawn[:_FEW_DRAWS]
    fields: dict[str, Floats] = {}
    for pattern, rows in enumerate(patterns.T):
        columns = np.flatnonzero(which.ravel() == pattern)
        for part in np.array_split(columns, -(-columns.size // _COLUMNS)):
            p, y = (values[np.ix_(rows, part)] for values in (numbers.predictions, numbers.targets))
            for name, scores in _scores(p, y, drawn[:, rows]).items():
                fields.setdefault(name, np.full(count, np.nan))[part] = scores
    readings = tuple(reading({k: float(v[i]) for k, v in fields.items()}) for i in range(count))
    counts = fields.pop("count").astype(np.int64)
    return NumberScores(names=names, count=counts, readings=readings, **fields)


def _scores(p: Floats, y: Floats, drawn: Floats) -> dict[str, Floats]:
    (r_low, r_high), (slope_low, slope_high) = relation_intervals(p, y, drawn)
    return {
        "count": np.full(p.shape[1], float(len(p))),
        "prediction_mean": metrics.mean(p),
        "prediction_std": metrics.std(p),
        "target_mean": metrics.mean(y),
        "target_std": metrics.std(y),
        **{name: measure(p, y) for name, measure in _MEASURES.items()},
        "pearson_low": r_low,
        "pearson_high": r_high,
        "slope_low": slope_low,
        "slope_high": slope_high,
    }


def reading(of: dict[str, float]) -> Reading:
    """What one output's numbers favour; the words are those of :data:`Reading`.

    The best predictor of least squared error has the spread ratio r and the slope 1. A small spread is
    therefore judged by the slope: near 1 it is honest, far above 1 the same predictions only scaled up would
    be better. Where not even the correlation is sure, a small spread whose slope may be 1 is left undecided.
    """
    if of["count"] < LEAST_SAMPLES or not of["target_std"] > 0:
        return "unknown"
    ratio, slope = of["std_ratio"], of["slope"]
    if ratio <= CONSTANT:
        return "collapsed"
    if of["pearson_high"] < 0:
        return "against"
    if not of["pearson_low"] > 0:
        return "shrunk" if ratio < SMALL_SPREAD and of["slope_low"] <= 1 <= of["slope_high"] else "unrelated"
    if slope >= STEEP and of["slope_low"] > SURELY_STEEP:
        return "over-shrunk"
    if slope < HONEST[0] and of["slope_high"] < 0.9:
        return "over-dispersed"
    if ratio >= SMALL_SPREAD:
        return "sound"
    return "honest shrinkage" if HONEST[0] <= slope <= HONEST[1] else "shrunk"


def number_remarks(scores: NumberScores) -> tuple[Remark, ...]:
    """What the readings of the outputs have to say: a sentence for each reading that occurs."""
    remarks = []
    for word, count in Counter(scores.readings).most_common():
        chosen = [i for i, r in enumerate(scores.readings) if r == word]
        middle = _middle(scores, chosen)
        subject = "" if len(scores.names) == 1 else f"{count:,} of {len(scores.names):,} outputs (medians): "
        said = _SAY[word](scores, middle)
        if said is not None:
            remarks.append(Remark(said.severity, subject + said.text, said.fix))
    return (*remarks, *_offset(scores))


def _middle(scores: NumberScores, chosen: list[int]) -> int:
    """Of the chosen outputs the one with the median slope: its numbers stand for them."""
    slopes = scores.slope[chosen]
    order = np.argsort(np.where(np.isfinite(slopes), slopes, np.inf), kind="stable")
    return chosen[int(order[(len(chosen) - 1) // 2])]


def _slope(s: NumberScores, i: int) -> str:
    return f"{number(s.slope[i])} (95 % {number(s.slope_low[i])} … {number(s.slope_high[i])})"


def _r(s: NumberScores, i: int) -> str:
    return f"{number(s.pearson[i])} (95 % {number(s.pearson_low[i])} … {number(s.pearson_high[i])})"


def _two_readings(s: NumberScores, i: int) -> str:
    return (
        f"Predictions spread only {number(s.std_ratio[i])} times as wide as the targets. That has two "
        "readings: a model collapsed towards the mean, or the honest answer to a weak signal, whose best "
        "predictor spreads by its correlation with the targets. "
    )


def _collapsed(s: NumberScores, i: int) -> Remark:
    text = (
        f"Predictions are nearly constant: their standard deviation is {number(s.prediction_std[i])} against "
        f"{number(s.target_std[i])} of the targets (ratio {number(s.std_ratio[i])}), around "
        f"{number(s.prediction_mean[i])}."
    )
    fix = (
        "Look for a path that carries no signal (gradient flow, activations); where all layers train, the "
        "inputs may hold no signal (ablation) or the targets be shuffled against them (data quality)."
    )
    return Remark("critical", text, fix)


def _over_shrunk(s: NumberScores, i: int) -> Remark:
    text = (
        f"{_two_readings(s, i)}The numbers favour collapse: the calibration slope is {_slope(s, i)}, far "
        f"above 1; r = {number(s.pearson[i])}. Scaling the predictions alone would lift R² from "
        f"{number(s.r2[i])} to {number(s.pearson[i] ** 2)}."
    )
    fix = (
        "The model knows more than it says: train longer or with a higher learning rate, lower the weight "
        "decay, and check the scale of the targets and the activation at the output."
    )
    return Remark("critical", text, fix)


def _honest(s: NumberScores, i: int) -> Remark:
    text = (
        f"{_two_readings(s, i)}The numbers favour honest shrinkage: r = {_r(s, i)} is close to the ratio, "
        f"and the calibration slope is {_slope(s, i)}, near 1."
    )
    fix = "A wider output would not help; a stronger signal would: better inputs, cleaner targets, more data."
    return Remark("warning", text, fix)


def _shrunk(s: NumberScores, i: int) -> Remark:
    text = (
        f"{_two_readings(s, i)}The numbers favour neither: r = {_r(s, i)}, calibration slope {_slope(s, i)}."
    )
    return Remark("warning", text, "More samples narrow these intervals: raise `samples`.")


def _over_dispersed(s: NumberScores, i: int) -> Remark:
    text = (
        f"Predictions vary more than they know: the calibration slope is {_slope(s, i)}, well below 1, with "
        f"r = {number(s.pearson[i])}. Shrinking them towards their mean alone would lift R² to "
        f"{number(s.pearson[i] ** 2)} from {number(s.r2[i])}."
    )
    fix = "This is how overfitting looks on held-out data: regularise, stop earlier, or add data."
    return Remark("warning", text, fix)


def _unrelated(s: NumberScores, i: int) -> Remark:
    text = (
        f"Predictions vary (std ratio {number(s.std_ratio[i])}) but have no correlation with the targets "
        f"that chance would not give: r = {_r(s, i)}."
    )
    fix = (
        "Check that inputs and targets belong together (shuffled or shifted labels), that the weights are "
        "the trained ones, and that these data resemble the training data."
    )
    return Remark("warning", text, fix)


def _against(s: NumberScores, i: int) -> Remark:
    text = f"Predictions run against the targets: r = {_r(s, i)}."
    fix = "Look for a flipped sign, labels shifted in time, or a normalisation undone the wrong way round."
    return Remark("warning", text, fix)


def _unknown(s: NumberScores, i: int) -> Remark:
    if s.count[i] < LEAST_SAMPLES:
        text = f"{s.count[i]} finite samples are too few to judge the spread of predictions."
        return Remark("warning", text, f"Give at least {LEAST_SAMPLES} samples.")
    text = f"The targets are constant ({number(s.target_mean[i])}): nothing can be predicted in them."
    return Remark("warning", text, "Check how the targets are made, or examine other samples.")


def _sound(_: NumberScores, __: int) -> None:
    return None


_SAY = {
    "collapsed": _collapsed,
    "over-shrunk": _over_shrunk,
    "honest shrinkage": _honest,
    "shrunk": _shrunk,
    "over-dispersed": _over_dispersed,
    "unrelated": _unrelated,
    "against": _against,
    "unknown": _unknown,
    "sound": _sound,
}


def _offset(s: NumberScores) -> tuple[Remark, ...]:
    """A mean error that makes a quarter of the squared error, and is no chance."""
    bias = s.target_mean - s.prediction_mean
    share = metrics.over(bias**2, s.rmse**2)
    scatter = np.sqrt(np.maximum(s.rmse**2 - bias**2, 0) / np.maximum(s.count, 1))
    off = np.flatnonzero((share > 0.25) & (np.abs(bias) > 3 * scatter) & (s.count >= LEAST_SAMPLES))
    if not off.size:
        return ()
    worst = int(off[np.argmax(share[off])])
    where = "" if len(s.names) == 1 else f" at {s.names[worst]}, the worst of {off.size:,} outputs"
    side = "below" if bias[worst] > 0 else "above"
    text = (
        f"Predictions lie {number(abs(bias[worst]))} {side} the targets on average{where}: that offset alone "
        f"makes {percent(share[worst])} of the mean squared error."
    )
    fix = "Check the bias of the last layer, and whether targets are normalised alike in training and here."
    return (Remark("warning", text, fix),)
