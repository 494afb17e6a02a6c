"""The moments of a layer's output in one pass over memory: three Triton kernels.

Imported only where Triton is (it comes with PyTorch for CUDA). What they compute is defined by
:func:`torchwatch.probes._moments.reference`; the launcher is :mod:`torchwatch.probes._moments_triton`.
"""

from __future__ import annotations

import triton
import triton.language as tl

INFINITY_BITS = 0x7F800000
"""Bits of |x| at and above which x is not finite, NaN above infinity; integers order as magnitudes do."""


@triton.jit
def read(
    x, shifted, squares, partial, peaks, activity,
    samples, features, rows, units, inner, low, high,
    PER_UNIT: tl.constexpr, BOUNDS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One block of features over one chunk of samples, every entry read once.

    Per feature, relative to its first sample x₀: Σ(x − x₀) and Σ(x − x₀)² of the chunk, so that a small
    spread is no difference of large sums. Per program: Σx², max bits of |x|, zeros, non-finite, saturated.
    """
    block, chunk = tl.program_id(0), tl.program_id(1)
    f = block * BLOCK + tl.arange(0, BLOCK)
    inside = f < features
    stride = tl.zeros([BLOCK], tl.int64) + features  # a product of two 32-bit numbers would overflow
    first = tl.load(x + f, inside, other=0.0).to(tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    square = tl.zeros([BLOCK], tl.float32)
    raw = tl.zeros([BLOCK], tl.float32)
    magnitude = tl.zeros([BLOCK], tl.float32)
    highest = tl.zeros([BLOCK], tl.int32)
    zeros = tl.zeros([BLOCK], tl.int32)
    bad = tl.zeros([BLOCK], tl.int32)
    saturated = tl.zeros([BLOCK], tl.int32)
    start = chunk * rows
    for sample in range(start, tl.minimum(start + rows, samples)):
        value = tl.load(x + sample * stride + f, inside, other=0.0).to(tl.float32)
        away = value - first
        total += away
        square += away * away
        raw += value * value
        bits = value.to(tl.int32, bitcast=True) & 0x7FFFFFFF
        highest = tl.maximum(highest, bits)
        zeros += ((bits == 0) & inside).to(tl.int32)
        bad += (bits >= 0x7F800000).to(tl.int32)
        if PER_UNIT:
            magnitude += tl.abs(value)
        if BOUNDS:
            saturated += (((value <= low) | (value >= high)) & inside).to(tl.int32)
    place = chunk * stride + f
    tl.store(shifted + place, total, inside)
    tl.store(squares + place, square, inside)
    if PER_UNIT:
        unit = (f // inner) % units
        tl.atomic_max(peaks + unit, highest, inside)
        tl.atomic_add(activity + unit, magnitude, inside)
    row = partial + (chunk * tl.num_programs(0) + block) * 5
    tl.store(row, tl.sum(raw))
    tl.store(row + 1, tl.max(highest).to(tl.float32, bitcast=True))
    tl.store(row + 2, tl.sum(zeros).to(tl.float32))
    tl.store(row + 3, tl.sum(bad).to(tl.float32))
    tl.store(row + 4, tl.sum(saturated).to(tl.float32))


@triton.jit
def per_feature(
    x, shifted, squares, partial, samples, features, chunks, BLOCK: tl.constexpr
):  # fmt: skip
    """One block of features: chunks together, then (count, mean of m_f, Σ(m_f − mean)², spread)."""
    block = tl.program_id(0)
    f = block * BLOCK + tl.arange(0, BLOCK)
    inside = f < features
    stride = tl.zeros([BLOCK], tl.int64) + features
    total = tl.zeros([BLOCK], tl.float32)
    square = tl.zeros([BLOCK], tl.float32)
    for chunk in range(chunks):
        place = chunk * stride + f
        total += tl.load(shifted + place, inside, other=0.0)
        square += tl.load(squares + place, inside, other=0.0)
    mean_away = total / samples
    within = square - total * mean_away
    within = tl.where(within < 0.0, 0.0, within)  # maximum would drop a NaN
    means = tl.load(x + f, inside, other=0.0).to(tl.float32) + mean_away
    count = tl.sum(inside.to(tl.float32))
    center = tl.sum(tl.where(inside, means, 0.0)) / count
    apart = tl.where(inside, means - center, 0.0)
    row = partial + block * 4
    tl.store(row, count)
    tl.store(row + 1, center)
    tl.store(row + 2, tl.sum(apart * apart))
    tl.store(row + 3, tl.sum(within))


@triton.jit
def together(
    read_parts, feature_parts, vector, samples, reads, blocks, BOUNDS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """One program: all partial results into the vector of moments, in double precision."""
    lane = tl.arange(0, BLOCK)
    square = tl.zeros([BLOCK], tl.float64)
    highest = tl.zeros([BLOCK], tl.int32)
    zeros = tl.zeros([BLOCK], tl.float64)
    bad = tl.zeros([BLOCK], tl.float64)
    saturated = tl.zeros([BLOCK], tl.float64)
    for start in range(0, reads, BLOCK):
        inside = start + lane < reads
        row = read_parts + (start + lane) * 5
        square += tl.load(row, inside, other=0.0).to(tl.float64)
        peak = tl.load(row + 1, inside, other=0.0).to(tl.int32, bitcast=True)
        highest = tl.maximum(highest, peak)
        zeros += tl.load(row + 2, inside, other=0.0).to(tl.float64)
        bad += tl.load(row + 3, inside, other=0.0).to(tl.float64)
        saturated += tl.load(row + 4, inside, other=0.0).to(tl.float64)
    total = tl.zeros([BLOCK], tl.float64)
    features = tl.zeros([BLOCK], tl.float64)
    within = tl.zeros([BLOCK], tl.float64)
    for start in range(0, blocks, BLOCK):
        inside = start + lane < blocks
        row = feature_parts + (start + lane) * 4
        count = tl.load(row, inside, other=0.0).to(tl.float64)
        total += count * tl.load(row + 1, inside, other=0.0).to(tl.float64)
        features += count
        within += tl.load(row + 3, inside, other=0.0).to(tl.float64)
    mean = tl.sum(total) / tl.sum(features)
    between = tl.zeros([BLOCK], tl.float64)
    for start in range(0, blocks, BLOCK):
        inside = start + lane < blocks
        row = feature_parts + (start + lane) * 4
        count = tl.load(row, inside, other=0.0).to(tl.float64)
        apart = tl.load(row + 1, inside, other=0.0).to(tl.float64) - mean
        own = tl.load(row + 2, inside, other=0.0).to(tl.float64)
        between += tl.where(inside, own + count * apart * apart, 0.0)
    spread = tl.sum(within)
    tl.store(vector, tl.sum(total) * samples)
    tl.store(vector + 1, tl.sum(square))
    tl.store(vector + 2, spread)
    tl.store(vector + 3, spread + samples * tl.sum(between))
    tl.store(vector + 4, tl.max(highest).to(tl.float32, bitcast=True).to(tl.float64))
    tl.store(vector + 5, tl.sum(zeros))
    tl.store(vector + 6, tl.sum(bad))
    if BOUNDS:
        tl.store(vector + 7, tl.sum(saturated))
