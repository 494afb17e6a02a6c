"""What there is to say of activations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from torchwatch.results import Remark
from torchwatch.results.activations import Activations
from torchwatch.results.autopsy import Severity

_MANY = 0.5
_NEARLY_ALL = 0.95
_SOME = 0.1
_SAME = 1e-5
_LEAST_SAMPLES = 8
_FEW_DIRECTIONS = 2.0
_LEAST_RANK = 10
_NAMED = 5
_GATES = ("gate", "attn", "attention", "mask", "squeeze", "excit")
_ALIKE_BY_DESIGN = ("Embedding", "EmbeddingBag")


def remarks(found: Activations) -> tuple[Remark, ...]:
    """Non-finite values first, then what is the same for every sample, dead, saturated or narrow."""
    said = [*_of_nonfinite(found), *_of_same(found), *_of_dead(found), *_of_dormant(found)]
    said += [*_of_saturated(found), *_of_rank(found)]
    if not any(r.severity != "info" for r in said):
        judged = int(np.isfinite(found.dead_fraction).sum())
        text = (
            f"{len(found.layers)} layers over {found.samples:,} samples: no dead, saturated or constant layer"
        )
        said.append(Remark("info", f"{text} ({judged} with units after an activation)."))
    return tuple(said)


def _of_nonfinite(found: Activations) -> Iterator[Remark]:
    bad = np.flatnonzero(found.nonfinite)
    if bad.size:
        first = found.names()[int(bad[0])]
        text = (
            f"NaN or infinite values in {bad.size} of {len(found.layers)} layers, first in `{first}` "
            f"({int(found.nonfinite[bad[0]]):,} entries)."
        )
        yield Remark("critical", text, "Check the inputs for NaN (Data quality) and the layer for overflow.")


def _of_same(found: Activations) -> Iterator[Remark]:
    if found.samples < _LEAST_SAMPLES:
        return
    same = [i for i in np.flatnonzero(found.sample_spread < _SAME) if found.kinds[i] not in _ALIKE_BY_DESIGN]
    if same:
        first = found.names()[int(same[0])]
        text = (
            f"`{first}` puts out the same for every sample (standard deviation across samples "
            f"{found.sample_spread[same[0]]:.1g} of its rms); so do {len(same) - 1} more layers."
        )
        fix = "What follows can only learn a constant: lower the learning rate, normalise, initialise anew."
        yield Remark("critical", text, fix)


def _of_dead(found: Activations) -> Iterator[Remark]:
    worst = _above(found.dead_fraction, _SOME)
    if not worst:
        return
    top = found.dead_fraction[worst[0]]
    severity: Severity = "critical" if top >= _NEARLY_ALL else "warning" if top >= _MANY else "info"
    text = (
        f"Dead units (0 for each of {found.samples:,} samples) in {len(worst)} layers: "
        f"{_few(found, worst, found.dead_fraction)}."
    )
    fix = "Use LeakyReLU or GELU, a lower learning rate, and initialise these layers anew."
    yield Remark(severity, text, fix if severity != "info" else "")


def _of_dormant(found: Activations) -> Iterator[Remark]:
    sleeping = found.dormant_fraction - found.dead_fraction
    worst = _above(sleeping, _MANY)
    if worst:
        text = (
            f"Dormant units (mean activity at most 2.5 % of the layer's) in {len(worst)} layers, beside dead "
            f"ones: {_few(found, worst, sleeping)}."
        )
        fix = "The layer is narrower than it looks: lower the learning rate or reset these units."
        yield Remark("warning", text, fix)


def _of_saturated(found: Activations) -> Iterator[Remark]:
    last = len(found.layers) - 1
    worst = [
        i
        for i in _above(found.saturated_fraction, _MANY)
        if i != last and not any(word in found.layers[i].lower() for word in _GATES)
    ]
    if worst:
        text = f"{len(worst)} layers sit at their bounds: {_few(found, worst, found.saturated_fraction)}."
        fix = "Normalise what goes in, start with smaller weights, or use ReLU or GELU: gradients end here."
        yield Remark("warning", text, fix)


def _of_rank(found: Activations) -> Iterator[Remark]:
    narrow = np.flatnonzero((found.effective_rank < _FEW_DIRECTIONS) & (found.most_rank >= _LEAST_RANK))
    if narrow.size:
        names = found.names()
        listed = ", ".join(f"`{names[i]}` ({found.effective_rank[i]:.1f})" for i in narrow[:_NAMED])
        text = (
            f"The outputs of {narrow.size} layers lie in fewer than two directions (effective rank): "
            f"{listed}."
        )
        yield Remark("info", text)


def _above(values: npt.NDArray[np.float64], least: float) -> list[int]:
    """Rows at or above a limit, the largest first."""
    rows = np.flatnonzero(values >= least)
    return [int(i) for i in rows[np.argsort(-values[rows], kind="stable")]]


def _few(found: Activations, rows: Sequence[int], values: npt.NDArray[np.float64]) -> str:
    names = found.names()
    more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
    return ", ".join(f"`{names[i]}` ({values[i]:.0%})" for i in rows[:_NAMED]) + more
