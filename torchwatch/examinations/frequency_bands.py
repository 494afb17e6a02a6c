"""Frequency bands: how much worse the model is when a band is filtered out of its input.

The band-stop works on the spectrum with tapered edges and leaves all phases as they are. The importance of a
band is the rise of the mean error, with a bootstrap interval over the samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from torchwatch.examinations._bands import Band, bands_for, power_in, without
from torchwatch.examinations.case import OutOfTime
from torchwatch.examinations.examination import Examination, NotApplicable
from torchwatch.results import Remark
from torchwatch.results.frequency_bands import FrequencyBands
from torchwatch.statistics.bootstrap import mean_interval
from torchwatch.text import percent

if TYPE_CHECKING:
    from torchwatch.examinations.case import Case

Floats = np.ndarray[Any, np.dtype[np.float64]]

_FEWEST_TIMES = 8


@dataclass(frozen=True)
class _Signals:
    """Finite samples, their errors, and where time runs in them."""

    inputs: dict[str, Tensor]
    targets: Tensor
    before: Floats
    rate: float
    axis: int


def examine(case: Case) -> FrequencyBands:
    """Filter each band out and predict again.

    Raises:
        NotApplicable: no sample rate, no time axis, or too few points along it.
        ConfigError: a user's band that is none.
        OutOfTime: the time limit is over before the first band is done.
    """
    rate, axis = _time(case)
    main = case.samples.inputs[case.main]
    length = main.shape[axis]
    bands = bands_for(rate, length / rate, case.options.bands)
    if not bands:
        raise NotApplicable(f"no band lies below the Nyquist frequency of {rate / 2:g} Hz: set other `bands`")
    errors = case.errors(case.outputs).double()
    finite = torch.isfinite(main.reshape(len(main), -1)).all(1) & torch.isfinite(errors)
    if not bool(finite.any()):
        raise NotApplicable("every sample has NaN or infinity in its input or error: see data quality")
    signals = _Signals(
        {k: v[finite] for k, v in case.samples.inputs.items()},
        case.wanted_targets[finite],
        errors[finite].numpy(),
        rate,
        axis,
    )
    found = _without_each(case, signals, bands)
    result = FrequencyBands(
        bands=tuple(b.name for b in bands),
        edges=np.array([[b.low, b.high] for b in bands]),
        importance=found[:, 0],
        interval=found[:, 1:3],
        power=found[:, 3],
        ranking=tuple(int(i) for i in np.argsort(-found[:, 0], kind="stable") if np.isfinite(found[i, 0])),
        baseline=float(signals.before.mean()),
        metric="mean squared error" if case.task.name == "regression" else "negative log-likelihood (nats)",
        axis=case.axes[axis - 1],
        sample_rate=rate,
        resolution=rate / length,
        samples=len(signals.before),
    )
    return replace(result, remarks=tuple(_remarks(result)))


def _time(case: Case) -> tuple[float, int]:
    """Sample rate (Hz) and place of the time axis among those of the input, the batch axis counted."""
    rate = case.inputs.sample_rate
    if rate is None:
        raise NotApplicable("the sample rate is not known: pass sample_rate= (Hz)")
    if not (math.isfinite(rate) and rate > 0):
        raise NotApplicable(f"sample_rate must be a positive number of Hz, not {rate!r}")
    if case.integer_main():
        raise NotApplicable("the main input holds indices, which have no frequencies")
    if "time" not in case.axes:
        raise NotApplicable(f"the input has no axis named 'time' among {case.axes}: name it with axes=")
    axis = case.axes.index("time") + 1
    length = case.samples.inputs[case.main].shape[axis]
    if length < _FEWEST_TIMES:
        raise NotApplicable(f"{length} points in time are too few for a spectrum")
    return float(rate), axis


def _without_each(case: Case, signals: _Signals, bands: tuple[Band, ...]) -> Floats:
    """Importance, both ends of its interval and power share of each band (b, 4); NaN where not tested."""
    found = np.full((len(bands), 4), math.nan)
    main, rate, axis = signals.inputs[case.main], signals.rate, signals.axis
    resolution = rate / main.shape[axis]
    over = False
    for number, band in enumerate(bands):
        power, total = power_in(main, band, rate, axis)
        found[number, 3] = power / total if total > 0 else math.nan
        if over or band.high - band.low < resolution or band.high <= resolution:
            continue  # a band that holds no frequency of these samples cannot be tested
        try:
            case.tick(number, len(bands))
            filtered = {**signals.inputs, case.main: without(main, band, rate, axis)}
            rise = case.errors(case.predict(filtered), signals.targets).double().numpy() - signals.before
        except OutOfTime:
            if not np.isfinite(found[:, 0]).any():
                raise
            over = True
            continue
        found[number, 0] = rise.mean()
        found[number, 1:3] = mean_interval(rise, case.rng(f"band {band.name}"))
    return found


def _remarks(result: FrequencyBands) -> list[Remark]:
    said = [_most_important(result)] if result.ranking else []
    missing = [b for b, v in zip(result.bands, result.importance, strict=True) if math.isnan(v)]
    if missing:
        text = (
            f"Not tested: {', '.join(missing)}; samples of {1 / result.resolution:.3g} s tell frequencies "
            f"{result.resolution:.3g} Hz apart."
        )
        said.append(Remark("info", text, "Take longer samples, or more time where the time limit was over."))
    return said


def _most_important(result: FrequencyBands) -> Remark:
    best = result.ranking[0]
    low, high = result.interval[best]
    lower, upper = result.edges[best]
    name = f"{result.bands[best]} ({lower:g}–{upper:g} Hz)"
    if not low > 0:
        return Remark(
            "info",
            f"No band is needed: the largest rise of the {result.metric}, without {name}, is "
            f"{result.importance[best]:.3g} with an interval of {low:.3g} to {high:.3g} that holds 0.",
        )
    share = result.importance[best] / result.baseline if result.baseline > 0 else math.nan
    return Remark(
        "info",
        f"The model needs {name} most: without it the {result.metric} rises by {result.importance[best]:.3g} "
        f"(95 % interval {low:.3g} to {high:.3g}; {percent(share)} of it), and "
        f"{percent(result.power[best])} of the input's power lies there.",
    )


EXAMINATION = Examination(
    title="Frequency bands",
    examine=examine,
    tells="which frequencies the model needs",
    needs_targets=True,
)
