"""The moments of a layer's output on the CPU, by the cheapest kernels there are.

What :func:`torchwatch.probes._moments.reference` defines, taken in pieces that stay in the cache. On the CPU
reading a scalar waits for nothing, so what is rare is looked at only where it shows: non-finite entries when
a sum is not finite, zeros when the smallest magnitude is 0, a small spread when the difference of the large
sums says so. Of torch's kernels ``dot``, ``mv``, ``sum``, ``abs`` and ``amax`` run at the speed of memory;
``count_nonzero``, ``isfinite().sum()`` and every comparison that makes booleans cost 5 to 30 such reads.

Longer than a file should be: what is read in one pass over a tensor belongs together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from torchwatch.probes._moments import NEAR, Arrangement, Bounds, Moments, Units, reference
from torchwatch.probes._scratch import PIECE, Buffers, Scratch

_ROWS = 1024
"""Rows that ``mv`` may add up one after the other in float32."""

_NARROWEST = 64
"""Samples of fewer features are added up by themselves: a piece would have more rows than that."""

_CANCELLED = 0.01
"""Where a difference of sums is smaller than this share of them, it is computed again, centred first."""

_SMALL = 1e-30
"""A Σx² below this may have lost squares that are too small for float32."""


class CpuKernels:
    """The functions of :mod:`torchwatch.probes._moments` for tensors on the CPU; in any number of threads."""

    def __init__(self) -> None:
        self._scratch = Scratch()

    def moments(
        self,
        tensor: torch.Tensor,
        arrangement: Arrangement,
        *,
        per_unit: bool = False,
        bounds: Bounds | None = None,
        nonnegative: bool = False,
    ) -> Moments:
        """As :func:`~torchwatch.probes._moments.reference`."""
        buffers = self._scratch.take(tensor.dtype)
        try:
            call = _Call(tensor, arrangement, buffers, bounds)
            return call.moments(per_unit=per_unit, nonnegative=nonnegative)
        finally:
            self._scratch.give(buffers)

    def units(self, tensor: torch.Tensor, arrangement: Arrangement) -> Units:
        """As :func:`~torchwatch.probes._moments.reference_units`."""
        buffers = self._scratch.take(tensor.dtype)
        try:
            return _Call(tensor, arrangement, buffers, None).units()
        finally:
            self._scratch.give(buffers)

    def square(self, tensor: torch.Tensor) -> float:
        """Σx² of a contiguous tensor."""
        buffers = self._scratch.take(tensor.dtype)
        try:
            return _Call(tensor, Arrangement(1, 1, 1, tensor.numel()), buffers, None).square()
        finally:
            self._scratch.give(buffers)


class _Call:
    """One tensor, and what is known of it so far."""

    def __init__(
        self, tensor: torch.Tensor, arrangement: Arrangement, buffers: Buffers, bounds: Bounds | None
    ) -> None:
        self._tensor, self._arrangement, self._buffers = tensor, arrangement, buffers
        self._bounds = bounds
        self._flat = tensor.view(-1)
        self._narrow = tensor.dtype is not buffers.dtype
        self._square = self._zeros = 0.0
        self._saturated = math.nan if bounds is None else 0.0
        self._highest: list[float] = []
        self._peaks: list[torch.Tensor] = []
        self._magnitudes: list[torch.Tensor] = []

    def moments(self, *, per_unit: bool, nonnegative: bool) -> Moments:
        """Everything."""
        fused = self._nothing() if self._is_fused() else None
        sums = self._feature_sums() if fused is None else fused
        scan = self._scan_nonnegative if nonnegative else self._scan
        scan(fused, per_unit=per_unit)
        total = float(torch.sum(sums))
        nonfinite = 0.0
        if not (math.isfinite(self._square) and math.isfinite(total)):
            nonfinite = self._count_nonfinite()
            if not nonfinite:  # finite, and too large for sums in this precision
                return _in_double(self._tensor, self._arrangement, per_unit=per_unit, bounds=self._bounds)
            self._zeros = self._count_zeros()
        units = self._units(sums if nonnegative else None) if per_unit else None
        absmax = _highest(self._highest) if units is None else float(torch.amax(units[0]))
        spread, deviation = self._deviations(sums, total)
        vector = [total, self._square, spread, deviation, absmax, self._zeros, nonfinite, self._saturated]
        return Moments(vector, units)

    def units(self) -> Units:
        """Peaks and activity alone."""
        for piece in self._pieces(self._flat, self._whole_units()):
            self._take_units(torch.abs(piece, out=self._buffers.work[: piece.numel()]))
        return self._units(None)

    def square(self) -> float:
        """Σx² alone, also of entries whose squares do not fit into float32."""
        found = 0.0
        for piece in self._pieces(self._flat, PIECE):
            found += float(torch.dot(piece, piece))
        if math.isfinite(found) and found > _SMALL:
            return found
        return float(torch.linalg.vector_norm(self._flat, dtype=torch.float64)) ** 2

    def _pieces(self, flat: torch.Tensor, size: int) -> Iterator[torch.Tensor]:
        """The entries in their order, ``size`` at a time, in the buffers' precision."""
        for piece in flat.split(size) if flat.numel() > size else (flat,):
            yield self._buffers.wide[: piece.numel()].copy_(piece) if self._narrow else piece

    # ------------------------------------------------------------------ what is always read

    def _is_fused(self) -> bool:
        """Whether the sums of the features are taken with all else, from pieces of whole samples."""
        samples, features = self._arrangement.samples, self._arrangement.features
        return samples > 1 and _NARROWEST <= features <= PIECE

    def _nothing(self) -> torch.Tensor:
        return torch.zeros(self._arrangement.features, dtype=self._buffers.dtype, device="cpu")

    def _size(self, *, whole_samples: bool, per_unit: bool) -> int:
        """Length of a piece: whole samples where sums are taken from it, else whole units if they are."""
        if whole_samples:
            features = self._arrangement.features
            return PIECE // features * features
        return self._whole_units() if per_unit else PIECE

    def _add(self, sums: torch.Tensor, piece: torch.Tensor) -> None:
        """Σ over the samples, per feature, of a piece of whole samples."""
        features = self._arrangement.features
        rows = piece.view(-1, features)
        if len(rows) == 1:
            sums.add_(rows[0])
        else:
            sums.addmv_(rows.t(), self._buffers.ones[: len(rows)])

    def _feature_sums(self) -> torch.Tensor:
        """Σ over the samples, per feature. Shape (features,)."""
        samples, features, ones = self._arrangement.samples, self._arrangement.features, self._buffers.ones
        if samples == 1:
            return self._flat.to(self._buffers.dtype)
        if not self._narrow:
            rows = self._flat.view(samples, features)
            first, *others = rows.split(_ROWS) if samples > _ROWS else (rows,)
            sums = torch.mv(first.t(), ones[: len(first)])
            for block in others:
                sums += torch.mv(block.t(), ones[: len(block)])
            return sums
        sums = self._nothing()
        if features > PIECE:
            for row in self._flat.view(samples, features):
                sums += row
            return sums
        for piece in self._pieces(self._flat, min(PIECE // features, _ROWS) * features):
            rows = piece.view(-1, features)
            sums += torch.mv(rows.t(), ones[: len(rows)])
        return sums

    def _scan(self, sums: torch.Tensor | None, *, per_unit: bool) -> None:
        """Σx², magnitudes, zeros and saturation, piece by piece; sums of the features if they are given."""
        for piece in self._pieces(self._flat, self._size(whole_samples=sums is not None, per_unit=per_unit)):
            count = piece.numel()
            work = self._buffers.work[:count]
            if sums is not None:
                self._add(sums, piece)
            self._square += float(torch.dot(piece, piece))
            torch.abs(piece, out=work)
            low, high = torch.aminmax(work)
            self._highest.append(float(high))
            if per_unit:
                self._take_units(work)
            if float(low) == 0:
                self._zeros += count - float(torch.sum(torch.sign(work, out=work)))
            if self._bounds is not None:
                self._saturated += _saturated(piece, work, self._bounds)

    def _scan_nonnegative(self, sums: torch.Tensor | None, *, per_unit: bool) -> None:
        for piece in self._pieces(self._flat, self._size(whole_samples=sums is not None, per_unit=per_unit)):
            count = piece.numel()
            work = self._buffers.work[:count]
            if sums is not None:
                self._add(sums, piece)
            self._square += float(torch.dot(piece, piece))
            self._zeros += count - float(torch.sum(torch.sign(piece, out=work)))
            if per_unit:
                self._take_peaks(piece)
            else:
                self._highest.append(float(torch.amax(piece)))
            if self._bounds is not None:
                self._saturated += _saturated(piece, work, self._bounds)

    # ------------------------------------------------------------------ units

    def _whole_units(self) -> int:
        """Size of a piece in which every unit is whole; makes the buffers as large."""
        width = self._arrangement.inner if self._arrangement.inner > 1 else self._arrangement.units
        if width > self._buffers.size:
            self._buffers.make_room(width)
        return max(1, PIECE // width) * width

    def _take_peaks(self, work: torch.Tensor) -> torch.Tensor:
        """Largest magnitudes of a piece, per unit (or per sample, position and unit); it as a matrix."""
        _, _, units, inner = self._arrangement
        matrix = work.view(-1, inner if inner > 1 else units)
        self._peaks.append(torch.amax(matrix, 1 if inner > 1 else 0))
        return matrix

    def _take_units(self, work: torch.Tensor) -> None:
        """Largest and summed magnitudes of a piece, per unit (or per sample, position and unit)."""
        inner = self._arrangement.inner
        matrix = self._take_peaks(work)
        if inner > 1:
            self._magnitudes.append(torch.mv(matrix, self._buffers.ones[:inner]))
        else:
            self._magnitudes.append(torch.mv(matrix.t(), self._buffers.ones[: len(matrix)]))

    def _units(self, sums: torch.Tensor | None) -> Units:
        """Peaks and activity; ``sums``: those of the features, where no entry is negative."""
        samples, outer, units, inner = self._arrangement
        peaks = torch.amax(_joined(self._peaks).view(-1, units), 0)
        if sums is not None:
            activity = sums.view(outer, units, inner).sum((0, 2))
        else:
            activity = _joined(self._magnitudes).view(-1, units).sum(0)
        return peaks.float(), (activity / (samples * outer * inner)).float()

    # ------------------------------------------------------------------ what is rarely read

    def _deviations(self, sums: torch.Tensor, total: float) -> tuple[float, float]:
        """``spread`` and ``deviation``."""
        samples = self._arrangement.samples
        count, square = self._flat.numel(), self._square
        spread = square - (square if samples == 1 else _dot(sums) / samples)
        deviation = square - total * total / count
        if samples > 1 and spread < _CANCELLED * square:
            spread = self._centred(sums / samples)
        if deviation < _CANCELLED * square:
            deviation = spread + samples * _dot(sums / samples - total / count)
        return spread, deviation

    def _centred(self, means: torch.Tensor) -> float:
        """Σ_f Σ_b (x_bf − m_f)²."""
        features = means.numel()
        found = 0.0
        if features > PIECE:
            for row in self._flat.view(-1, features):
                found += sum(
                    _dot(torch.sub(part, mean, out=self._buffers.work[: len(part)]))
                    for part, mean in zip(self._pieces(row, PIECE), means.split(PIECE), strict=True)
                )
            return found
        for piece in self._pieces(self._flat, PIECE // features * features):
            work = self._buffers.work[: piece.numel()]
            torch.sub(piece.view(-1, features), means, out=work.view(-1, features))
            found += _dot(work)
        return found

    def _count_nonfinite(self) -> float:
        found = 0.0
        for piece in self._pieces(self._flat, PIECE):
            work = torch.mul(piece, 0, out=self._buffers.work[: piece.numel()])
            found += float(torch.sum(work.nan_to_num_(nan=1.0)))
        return found

    def _count_zeros(self) -> float:
        """Exact also where NaN, which has no sign, is among the entries."""
        found = 0.0
        for piece in self._pieces(self._flat, PIECE):
            work = torch.eq(piece, 0, out=self._buffers.work[: piece.numel()])
            found += float(torch.sum(work))
        return found


def _in_double(
    tensor: torch.Tensor, arrangement: Arrangement, *, per_unit: bool, bounds: Bounds | None
) -> Moments:
    vector, units = reference(tensor, arrangement, per_unit=per_unit, bounds=bounds)
    return Moments(vector.tolist() if isinstance(vector, torch.Tensor) else vector, units)


def _saturated(piece: torch.Tensor, work: torch.Tensor, bounds: Bounds) -> float:
    low, high = bounds
    below = float(torch.sum(torch.le(piece, low + NEAR, out=work)))
    return below + float(torch.sum(torch.ge(piece, high - NEAR, out=work)))


def _dot(flat: torch.Tensor) -> float:
    """Σx², in pieces that are short enough for float32."""
    return sum(float(torch.dot(p, p)) for p in (flat.split(PIECE) if flat.numel() > PIECE else (flat,)))


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _highest(values: list[float]) -> float:
    """The largest value; NaN if one of them is."""
    return math.nan if any(map(math.isnan, values)) else max(values)
