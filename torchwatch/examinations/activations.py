"""What layers put out over all samples: level, spread, sparsity, dead units, saturation, geometry.

Outputs are looked at while the model runs, and only sums are kept; rank, cosine and CKA are computed from up
to 512 samples and up to 512 features of each layer, channels averaged over places until they are few enough.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt
import torch

from torchwatch.examinations._activations_remarks import remarks
from torchwatch.examinations._activations_watch import Key, Seen, Watch
from torchwatch.examinations.case import Case
from torchwatch.examinations.chunks import in_chunks
from torchwatch.examinations.examination import Examination, NotApplicable
from torchwatch.probes._rare import Geometry, described
from torchwatch.probes._units import DORMANT, SILENT
from torchwatch.results.activations import Activations

_DESCRIBED = 512
_DESCRIBED_OF_MANY = 256
_MANY_LAYERS = 100
_FEATURES = 512
_LEAST_FEATURES = 64
_MOST_BYTES = 256 * 2**20
"""Of the features of all layers."""
_LISTED = 1_000

Floats = npt.NDArray[np.float64]


def examine(case: Case) -> Activations:
    """Run the model over all samples and look at every layer."""
    count = len(case.samples)
    layers = sum(1 for m in case.model.modules() if not m._modules)
    samples = min(count, _DESCRIBED if layers <= _MANY_LAYERS else _DESCRIBED_OF_MANY)
    affordable = _MOST_BYTES // (4 * max(1, layers) * samples)
    most = max(_LEAST_FEATURES, min(_FEATURES, affordable))
    seen = _passes(case, samples, most)
    if not seen:
        raise NotApplicable("no layer of the model puts out floating-point numbers that can be looked at")
    found = _result(case, seen, samples)
    return dataclasses.replace(found, remarks=remarks(found))


def _passes(case: Case, samples: int, most: int) -> dict[Key, Seen]:
    """All chunks, joined; a chunk that runs out of memory leaves nothing behind."""
    count = len(case.samples)

    def work(start: int, end: int) -> dict[Key, Seen]:
        watch = Watch(end - start, max(0, min(end, samples) - start), most)
        with torch.no_grad(), watch.on(case.model):
            case.raw({k: v[start:end] for k, v in case.samples.inputs.items()})
        return watch.seen

    joined: dict[Key, Seen] = {}
    for start, end, seen in in_chunks(work, count, case.options.chunk):
        for key, row in seen.items():
            if key in joined:
                joined[key].join(row, described=start < samples)
            else:
                joined[key] = row
        case.tick(end, count)
    return joined


def _result(case: Case, seen: dict[Key, Seen], samples: int) -> Activations:
    rows = list(seen.values())
    moments = np.array([_moments(row) for row in rows])
    units = [_units(row) for row in rows]
    geometry, spread = _geometry(case, rows, samples)
    return Activations(
        layers=tuple(name for name, _ in seen),
        kinds=tuple(row.kind for row in rows),
        sides=tuple(side for _, side in seen),
        shapes=tuple(row.shape for row in rows),
        post_activation=np.array([row.judged for row in rows]),
        mean=moments[:, 0],
        std=moments[:, 1],
        absmax=moments[:, 2],
        zero_fraction=moments[:, 3],
        nonfinite=moments[:, 4].astype(np.int64),
        units=np.array([0 if row.peaks is None else len(row.peaks) for row in rows]),
        dead_fraction=np.array([dead for dead, _, _ in units]),
        dormant_fraction=np.array([dormant for _, dormant, _ in units]),
        dead_units=tuple(which for _, _, which in units),
        saturated_fraction=moments[:, 5],
        sample_spread=np.array(spread),
        effective_rank=_column([g.effective_rank for g in geometry]),
        most_rank=np.array([0 if r.features is None else min(r.features.shape) for r in rows]),
        cosine=_column([g.cosine for g in geometry]),
        cka=_column([g.cka for g in geometry]),
        samples=len(case.samples),
        described=samples,
    )


def _column(values: list[float | None]) -> Floats:
    return np.array([math.nan if v is None else v for v in values])


def _moments(row: Seen) -> tuple[float, ...]:
    """Mean, std, largest magnitude, share of zeros, number of non-finite entries, share of saturated ones.

    Deviations of parts are joined by the formula of Chan, Golub & LeVeque (1979).
    """
    count = np.array([n for n, _ in row.parts], dtype=np.float64)
    parts = np.array([vector for _, vector in row.parts])
    total, whole = count.sum(), parts[:, 0].sum()
    with np.errstate(all="ignore"):
        mean = whole / total
        deviation = parts[:, 3].sum() + (count * np.square(parts[:, 0] / count - mean)).sum()
        std = np.sqrt(deviation / total)
    return (
        mean,
        std,
        parts[:, 4].max(),
        parts[:, 5].sum() / total,
        parts[:, 6].sum(),
        parts[:, 7].sum() / total,
    )


def _units(row: Seen) -> tuple[float, float, npt.NDArray[np.int64]]:
    """Share of dead and of dormant units, and which are dead; NaN where they are not judged."""
    nothing = np.empty(0, dtype=np.int64)
    if not row.judged or row.peaks is None or row.activity is None or len(row.peaks) < 2:
        return math.nan, math.nan, nothing
    peaks, activity = row.peaks.numpy(), row.activity.numpy() / max(1, row.places)
    dead = peaks <= SILENT
    level = float(activity.mean())
    dormant = activity <= DORMANT * level if math.isfinite(level) else np.full(len(peaks), np.nan)
    return float(dead.mean()), float(np.mean(dormant)), np.flatnonzero(dead)[:_LISTED]


def _geometry(case: Case, rows: list[Seen], samples: int) -> tuple[list[Geometry], list[float]]:
    """Rank, cosine and CKA with the next row that has features, from Gram matrices; spread across samples."""
    having = [r for r in rows if r.features is not None and len(r.features) >= 2]
    found, spreads = {}, {}
    for number, row in enumerate(having):
        following = having[number + 1 : number + 2]
        with np.errstate(all="ignore"):  # what is not finite stays so
            found[id(row)] = described([(samples, _gram(r)) for r in (row, *following)])[0]
            spreads[id(row)] = _spread(row)
        case.tick(number, len(having))
    nothing = Geometry(None, None, None)
    return [found.get(id(r), nothing) for r in rows], [spreads.get(id(r), math.nan) for r in rows]


def _gram(row: Seen) -> Floats:
    """Inner products of samples and of a constant, in the form that ``described`` reads."""
    assert row.features is not None
    x = row.features.double().numpy()
    with_ones = np.concatenate([x, np.ones((1, x.shape[1]))])
    return np.asarray(with_ones @ with_ones.T)


def _spread(row: Seen) -> float:
    assert row.features is not None
    x = row.features.double().numpy()
    size = float(np.sqrt(np.square(x).mean()))
    return float(np.sqrt(x.var(0).mean())) / size if size > 0 else math.nan


EXAMINATION = Examination(
    title="Activations",
    examine=examine,
    tells="dead, dormant and saturated units, and layers that put out the same for every sample",
)
