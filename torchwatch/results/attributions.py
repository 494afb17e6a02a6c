"""What attributions yield: which parts of the input the output depends on, and if the maps can be trusted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from torchwatch.results.autopsy import Remark

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class AxisProfile:
    """How much of the attribution lies at each element along one axis of the input.

    Attributes:
        axis: name of the axis.
        elements: names of its n elements.
        importance: sum of |attribution| over the other axes, mean over the samples (n,); in units of the
            explained output for methods that multiply by the input, else output per input.
        error: standard error of that mean over the samples (n,); NaN for one sample.
        ranking: places of the elements, most important first (n,).
    """

    axis: str
    elements: tuple[str, ...]
    importance: Floats
    error: Floats
    ranking: tuple[int, ...]

    def top(self, count: int) -> tuple[str, ...]:
        """Names of the most important elements."""
        return tuple(self.elements[i] for i in self.ranking[:count])


@dataclass(frozen=True, slots=True)
class Convergence:
    """How well attributions add up to the change of the output that they explain (completeness).

    Attributes:
        delta: mean over samples of |sum of the attributions − change of the output|; unit of the output.
        change: mean over samples of |output − output at the baseline|; unit of the output.
        ratio: ``delta / change``.
        beyond: share of the samples whose own delta is over 5 % of their own change.
    """

    delta: float
    change: float
    ratio: float
    beyond: float


@dataclass(frozen=True, slots=True)
class Randomisation:
    """Whether a map depends on the model: its rank correlation with maps of randomised copies (Adebayo 2018).

    Layers are randomised from the output to the input, each stage containing the one before.

    Attributes:
        stages: the stages; the last one randomises everything.
        correlation: Spearman of the signed maps before and after, mean over samples and draws, one per stage
            (s,); NaN where it could not be computed.
        magnitude: the same of their absolute values (s,).
        error: standard error of the last stage's correlation over the draws.
        draws: how often the last stage was drawn.
        samples: number of samples.
        depends: False where the map stays the same without the learned weights, True where it does not; None
            where that cannot be told (too few elements).
    """

    stages: tuple[str, ...]
    correlation: Floats
    magnitude: Floats
    error: float
    draws: int
    samples: int
    depends: bool | None


@dataclass(frozen=True, slots=True)
class MethodAttribution:
    """What one method says.

    Attributes:
        method: its name, such as ``integrated_gradients``.
        title: its name in prose.
        profiles: one for each axis of the input.
        convergence: None for methods that do not promise to add up.
        randomisation: None where it was not tested.
    """

    method: str
    title: str
    profiles: tuple[AxisProfile, ...]
    convergence: Convergence | None = None
    randomisation: Randomisation | None = None

    def profile(self, axis: str) -> AxisProfile:
        """The profile along an axis; :class:`KeyError` where there is no such axis."""
        for profile in self.profiles:
            if profile.axis == axis:
                return profile
        raise KeyError(axis)


@dataclass(frozen=True, slots=True)
class OutputAttribution:
    """Integrated Gradients of one output of several.

    Attributes:
        output: which one.
        profiles: one for each axis of the input.
        convergence: how well they add up.
    """

    output: str
    profiles: tuple[AxisProfile, ...]
    convergence: Convergence


@dataclass(frozen=True, slots=True)
class AttributionMap:
    """Attributions over two axes of the input, summed over the others; bins where there are many elements.

    Attributes:
        rows: name of the vertical axis.
        columns: name of the horizontal axis.
        row_edges: first element of each row, and one past the last (r + 1,).
        column_edges: the same for columns (c + 1,).
        signed: mean over samples of the attribution, summed over each cell (r, c).
        magnitude: mean over samples of |attribution|, summed over each cell (r, c).
    """

    rows: str
    columns: str
    row_edges: np.ndarray[Any, np.dtype[np.int64]]
    column_edges: np.ndarray[Any, np.dtype[np.int64]]
    signed: Floats
    magnitude: Floats


@dataclass(frozen=True, slots=True)
class Attributions:
    """All methods on the same samples; the first one is what other examinations go by.

    Attributes:
        explained: the number that was explained, in words.
        place: what it was attributed to: the input, or its embedding.
        axes: names of the input's axes.
        baseline: what "nothing" was, in words.
        samples: how many samples were attributed.
        n_steps: steps of Integrated Gradients.
        methods: what each method says; Integrated Gradients first.
        outputs: Integrated Gradients of each output, where there are a few of them.
        overview: the first method's map; None where the input has one axis.
        not_run: methods that could not be run here, and why.
        sample_rate: of the time axis (Hz); None where it is not known.
        remarks: what there is to say.
    """

    explained: str
    place: str
    axes: tuple[str, ...]
    baseline: str
    samples: int
    n_steps: int
    methods: tuple[MethodAttribution, ...]
    outputs: tuple[OutputAttribution, ...] = ()
    overview: AttributionMap | None = None
    not_run: tuple[tuple[str, str], ...] = ()
    sample_rate: float | None = None
    remarks: tuple[Remark, ...] = field(default=())

    @property
    def primary(self) -> MethodAttribution:
        """Integrated Gradients; the first method that ran where they did not."""
        return self.methods[0]

    def profile(self, axis: str) -> AxisProfile:
        """The primary method's profile along an axis; :class:`KeyError` where there is no such axis."""
        return self.primary.profile(axis)

    def method(self, name: str) -> MethodAttribution:
        """What one method says; :class:`KeyError` where it was not run."""
        for method in self.methods:
            if method.method == name:
                return method
        raise KeyError(name)
