"""Ablation of the main input: all elements of all parts, draw by draw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchwatch.examinations._ablation_batch import best_batch
from torchwatch.examinations._ablation_elements import Part, parts_of
from torchwatch.examinations._ablation_fills import DRAWN, Fills, Orders
from torchwatch.examinations._ablation_intervals import Floats, Integers, crossed, paired, t_quantile
from torchwatch.examinations._ablation_passes import InputFeed, Passes
from torchwatch.examinations._ablation_shortcut import ShortcutFeed, shortcut
from torchwatch.examinations.case import Case
from torchwatch.examinations.chunks import out_of_memory
from torchwatch.results.ablation import AxisAblation

_GROWTH_CPU, _GROWTH_DEVICE = 4, 64
"""How many times ``options.chunk`` a forward pass may take: caches are small, accelerators are not."""
_WORTH_TRYING = 8
"""With fewer passes than this, looking for the best way costs more than it gains."""


@dataclass
class _Tested:
    """What is known of a part so far; differences (draws, elements, N) are on the device until the end."""

    part: Part
    orders: list[Orders]
    same: list[bool]
    differences: Tensor
    draws: np.ndarray[Any, np.dtype[np.int64]] = field(init=False)

    def __post_init__(self) -> None:
        self.draws = np.zeros(len(self.part.elements), dtype=np.int64)


class InputAblation:
    """Everything that is ablated of a case's main input, and what came of it so far.

    Args:
        case: the case; it must have targets and at least two samples.

    Attributes:
        rounds: draws per element.
        total: tests in all rounds.
        layer: name of the first layer if its output is changed instead of the input, else empty.
        passes: what runs the model.

    Raises:
        UsageError: an unknown fill, one that the input's type has no meaning for, or unknown channels.
    """

    def __init__(self, case: Case) -> None:
        self._case = case
        count = len(case.samples)
        self._fills = Fills(_home(case), case.options.fill)
        self.rounds = max(1, min(case.options.repeats, count - 1)) if self._fills.fill in DRAWN else 1
        self._tested = [self._begun(p, number) for number, p in enumerate(parts_of(case))]
        self.total = sum(len(t.part.elements) for t in self._tested) * self.rounds
        self._feed, self.layer = self._found_feed()
        self.passes = Passes(case, self._feed, self._batch())

    def _begun(self, part: Part, number: int) -> _Tested:
        rng = self._case.rng(f"ablation {number} {part.kind} {part.axis}")
        count = len(self._case.samples)
        orders = [Orders(count, self.rounds, rng) for _ in part.elements]
        same = [self._fills.leaves_alone(e) for e in part.elements]
        shape = (self.rounds, len(part.elements), count)
        return _Tested(part, orders, same, torch.zeros(shape, device=self._case.device))

    def _found_feed(self) -> tuple[InputFeed | ShortcutFeed, str]:
        if self.total >= _WORTH_TRYING:
            trials = [self._fills.job(t.part.elements[0], t.orders[0], 0) for t in self._tested]
            found = shortcut(self._case, self._fills, trials)
            if found is not None:
                return found[1], found[0]
        return InputFeed(self._case, self._fills), ""

    @torch.no_grad()
    def _batch(self) -> int:
        """The fastest batch; beyond all samples only on an accelerator, where several ablations share one."""
        case, home = self._case, self._feed.home
        on_cpu = case.device.type == "cpu"
        most = case.options.chunk * (_GROWTH_CPU if on_cpu else _GROWTH_DEVICE)
        most = min(most, len(home) * (1 if on_cpu else self.total))
        if self.total < _WORTH_TRYING:
            return min(most, case.options.chunk)
        others = {k: v.to(home.device) for k, v in case.samples.inputs.items() if k != case.main}

        def run(rows: int) -> None:
            copies = -(-rows // len(home))
            taken = {k: v.repeat(copies, *[1] * (v.ndim - 1))[:rows] for k, v in others.items()}
            main = home.repeat(copies, *[1] * (home.ndim - 1)) if copies > 1 else home
            self._feed.forward(main[:rows].clone(), taken)

        return best_batch(run, most, case.device)

    def round(self, draw: int) -> Iterator[int]:
        """Test every element once more; yields how many were."""
        for tested in self._tested:
            places = [i for i, same in enumerate(tested.same) if not same]
            elements = tested.part.elements
            jobs = [self._fills.job(elements[i], tested.orders[i], draw) for i in places]
            tested.draws[tested.same] += 1
            for start, changes in self.passes.changes(jobs):
                done = places[start : start + len(changes)]
                tested.differences[draw, done] = changes.float()
                tested.draws[done] += 1
                yield len(done)

    @property
    def anything(self) -> bool:
        """Whether anything was tested."""
        return any(bool(t.draws.any()) for t in self._tested)

    def results(self) -> Iterator[AxisAblation]:
        """What came out for each part."""
        for tested in self._tested:
            differences = tested.differences.cpu().double().numpy()
            estimates = [self._estimate(tested, differences, i) for i in range(len(tested.draws))]
            yield axis_ablation(
                tested.part, estimates, self._fills.fill, tested.draws, len(self._case.samples)
            )

    def _estimate(self, tested: _Tested, differences: Floats, place: int) -> tuple[float, float]:
        """Importance of an element and its standard error; NaN where it was not tested."""
        draws = int(tested.draws[place])
        some = differences[:draws, place]
        if not draws or not np.isfinite(some).all():
            return float("nan"), float("nan")
        if self._fills.fill != "permutation":
            return paired(some)
        orders = tested.orders[place]
        return crossed(some, np.stack([orders.donors(d) for d in range(draws)]))


def axis_ablation(
    part: Part, estimates: Sequence[tuple[float, float]], fill: str, draws: Integers, samples: int
) -> AxisAblation:
    """A part with the importance and standard error of each of its elements."""
    importance = np.array([e for e, _ in estimates])
    half = np.array([s for _, s in estimates]) * t_quantile(0.025, samples - 1)
    order = np.argsort(-importance, kind="stable")  # NaN comes last
    ranking = tuple(int(i) for i in order if not np.isnan(importance[i]))
    return AxisAblation(
        axis=part.axis,
        kind=part.kind,
        elements=tuple(e.name for e in part.elements),
        importance=importance,
        interval=np.stack([importance - half, importance + half], 1),
        ranking=ranking,
        fill=fill,
        repeats=draws,
        windows=part.windows,
        patches=part.patches,
        grid=part.grid,
        rate=part.rate,
        peak=ranking[0] if ranking and part.kind in ("window", "patch") else None,
    )


def _home(case: Case) -> Tensor:
    """The main input on the case's device; where it does not fit there, on the CPU."""
    main = case.samples.inputs[case.main]
    try:
        return main.to(case.device)
    except Exception as error:
        if not out_of_memory(error):
            raise
        return main
