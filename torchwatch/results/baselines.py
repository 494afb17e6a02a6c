"""What the comparison with naive predictors yields."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from torchwatch.results.autopsy import Remark

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Baseline:
    """One predictor that does not look at the inputs.

    Attributes:
        name: ``mean``, ``median``, ``majority`` or ``prior`` (``unigram`` of tokens).
        metric: in which it is compared, the one that it is best in: ``mean squared error``, ``mean absolute
            error``, ``error rate`` or ``log-loss (nats)``.
        error: its error.
        model_error: the model's error on the same samples.
        skill: ``1 − model_error / error``: 1 is perfect, 0 as good as the baseline, below 0 worse; NaN where
            the baseline makes no error.
        skill_low: lower end of the skill's bootstrap 95 % interval.
        skill_high: upper end.
        skill_by_output: of each output or label (K,).
    """

    name: str
    metric: str
    error: float
    model_error: float
    skill: float
    skill_low: float
    skill_high: float
    skill_by_output: Floats = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True, slots=True)
class Baselines:
    """The model against naive predictors.

    Attributes:
        baselines: each of them.
        oracle: they were fitted on the very targets that they are scored on, because there are no training
            data: no honest predictor could be that good, so a skill a little below 0 is no proof.
        fitted_on: how many samples they were fitted on.
        samples: how many samples they were scored on.
        worse: names of those that the model is worse than, its interval below 0.
        unit: what was drawn again for the intervals: ``sample`` or ``group``.
        remarks: what it has to say.
    """

    baselines: tuple[Baseline, ...]
    oracle: bool
    fitted_on: int
    samples: int
    worse: tuple[str, ...]
    unit: str
    remarks: tuple[Remark, ...] = ()

    def __getitem__(self, name: str) -> Baseline:
        for baseline in self.baselines:
            if baseline.name == name:
                return baseline
        raise KeyError(
            f"there is no baseline {name!r}; there are {', '.join(b.name for b in self.baselines)}"
        )
