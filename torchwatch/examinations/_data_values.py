"""The values of the inputs: channel by channel, what is not finite and where, what is far out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from torchwatch.examinations._data_distances import ks
from torchwatch.examinations._data_reading import Floats, Integers, Split
from torchwatch.results.data_quality import BadValue, Channels

FAR = 5.0
"""An outlier is this many standard deviations from its channel's mean."""
_LISTED = 50
_CHUNK = 64
_FEW_VALUES = 10
_FLAT = 1e-6
"""Below this share of its own size, a channel's standard deviation is rounding."""
_MOST_KS = 512
"""Of more channels, no Kolmogorov–Smirnov statistic is computed."""

Values = npt.NDArray[np.float32]


def bad_values(splits: list[Split]) -> tuple[BadValue, ...]:
    """The first NaN and infinite entries of every input and of the targets, with their places."""
    found: list[BadValue] = []
    for split in splits:
        for name, tensor in split.samples.inputs.items():
            if name == split.main and split.x is not None:
                found += _bad_in_main(split, split.x)
            elif tensor.is_floating_point():
                found += _bad_in(split, name, tensor.reshape(len(split), -1).float().numpy())
        if split.y is not None and split.y.dtype.kind == "f":
            found += _bad_in(split, "targets", split.y)
    return tuple(found[:_LISTED])


def _bad_in_main(split: Split, x: Values) -> list[BadValue]:
    return [
        BadValue(
            split.name,
            split.main,
            int(split.samples.index[sample]),
            split.channels[channel],
            split.place(place),
            str(float(x[sample, channel, place])),
        )
        for sample, channel, place in np.argwhere(~np.isfinite(x))[:_LISTED].tolist()
    ]


def _bad_in(split: Split, where: str, flat: npt.NDArray[Any]) -> list[BadValue]:
    return [
        BadValue(
            split.name,
            where,
            int(split.samples.index[sample]),
            "",
            f"entry {entry}" if flat.shape[1] > 1 else "",
            str(float(flat[sample, entry])),
        )
        for sample, entry in np.argwhere(~np.isfinite(flat))[:_LISTED].tolist()
    ]


def channels(data: Split, train: Split | None) -> Channels | None:
    """Statistics of each channel of the main input; None for integers."""
    if data.x is None:
        return None
    mean, std = moments(data.x)
    least, most = _range(data.x)
    flat = np.isfinite(mean) & ~(std > _FLAT * np.maximum(np.abs(least), np.abs(most)))
    outliers, worst_z, worst = _outliers(data, mean, np.where(flat, np.nan, std))
    nothing = np.full(mean.shape, np.nan)
    train_mean, train_std = moments(train.x) if train is not None and train.x is not None else (nothing,) * 2
    with np.errstate(all="ignore"):
        shift = np.where(train_std > 0, (mean - train_mean) / train_std, np.nan)
    return Channels(
        axis="input" if data.channels == ("",) else "channel" if data.rest else "feature",
        names=data.channels,
        mean=mean,
        std=std,
        least=least,
        most=most,
        flat=flat,
        flat_share=_flat_share(data.x),
        outliers=outliers,
        worst_z=worst_z,
        worst_sample=worst,
        train_mean=train_mean,
        train_std=train_std,
        shift=shift,
        level_ks=_levels_apart(data, train),
    )


def moments(x: Values) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each channel over its finite entries; (C,) each, float64."""
    total = np.zeros(x.shape[1])
    square, count = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    first = np.array([_first_finite(x[:, c]) for c in range(x.shape[1])])  # near the mean: no cancellation
    for start in range(0, len(x), _CHUNK):
        part = x[start : start + _CHUNK].astype(np.float64) - first[:, None]
        fine = np.isfinite(part)
        part[~fine] = 0.0
        total += part.sum((0, 2))
        square += np.square(part).sum((0, 2))
        count += fine.sum((0, 2))
    with np.errstate(all="ignore"):
        mean = total / count
        return first + mean, np.sqrt(np.maximum(0.0, square / count - mean * mean))


def _first_finite(values: Values) -> float:
    flat = values.ravel()
    fine = np.isfinite(flat[:_CHUNK])
    if fine.any():
        return float(flat[int(np.argmax(fine))])
    fine = np.isfinite(flat)
    return float(flat[int(np.argmax(fine))]) if fine.any() else 0.0


def _range(x: Values) -> tuple[Floats, Floats]:
    fine = np.isfinite(x)
    least = np.where(fine, x, np.inf).min((0, 2)).astype(np.float64)
    most = np.where(fine, x, -np.inf).max((0, 2)).astype(np.float64)
    none = ~fine.any((0, 2))
    least[none] = most[none] = np.nan
    return least, most


def _flat_share(x: Values) -> Floats:
    """Share of samples within which a channel has one value."""
    if x.shape[2] < 2:
        return np.full(x.shape[1], np.nan)
    share: Floats = (x == x[:, :, :1]).all(2).mean(0)
    return share


def _outliers(data: Split, mean: Floats, std: Floats) -> tuple[Integers, Floats, Integers]:
    """Number of outliers of each channel, the furthest, and whose it is."""
    assert data.x is not None
    count, worst = np.zeros(len(mean), dtype=np.int64), np.full(len(mean), np.nan)
    whose = np.full(len(mean), -1, dtype=np.int64)
    with np.errstate(all="ignore"):
        for start in range(0, len(data), _CHUNK):
            z = np.abs((data.x[start : start + _CHUNK] - mean[:, None]) / std[:, None])
            z[~np.isfinite(z)] = -1.0
            count += (z > FAR).sum((0, 2))
            peaks = z.max(2)
            at = peaks.argmax(0)
            peak = peaks[at, np.arange(len(mean))]
            better = (peak >= 0) & ~(peak <= worst)
            worst[better], whose[better] = peak[better], data.samples.index[start + at][better]
    few = np.array(
        [len(np.unique(data.x[:2000, c].ravel()[:20_000])) <= _FEW_VALUES for c in range(len(mean))]
    )
    count[few], worst[few], whose[few] = 0, np.nan, -1  # the rare one of a few values is no outlier
    return count, worst, whose


def _levels_apart(data: Split, train: Split | None) -> Floats:
    nothing = np.full(len(data.channels), np.nan)
    if train is None or train.x is None or data.x is None or len(data.channels) > _MOST_KS:
        return nothing
    ours, theirs = levels(data.x), levels(train.x)
    return np.array(
        [ks(a[np.isfinite(a)], b[np.isfinite(b)])[0] for a, b in zip(ours.T, theirs.T, strict=True)]
    )


def levels(x: Values) -> Floats:
    """Mean of each channel in each sample (n, C); NaN where one of its values is not finite."""
    with np.errstate(all="ignore"):
        means: Floats = x.mean(2, dtype=np.float64)
    return means
