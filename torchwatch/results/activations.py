"""What the examination of the activations yields."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from torchwatch.results.autopsy import Remark

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Activations:
    """Outputs of layers over all samples, in the order of the calls.

    A row is the output of a layer, or the input of a Linear or convolution layer that no layer put out: there
    a functional activation shows. All calls of a layer are pooled.

    Attributes:
        layers: full names (L).
        kinds: class of each (L).
        sides: ``output`` or ``input`` (L).
        shapes: of one sample, at the first call (L).
        post_activation: whether these are values after an activation, whose units are judged (L,).
        mean: of all entries, in the unit of the output (L,), as are the next ones; NaN where one is not
            finite.
        std: standard deviation of all entries (L,).
        absmax: largest magnitude (L,).
        zero_fraction: share of entries that are exactly 0, 0 to 1 (L,).
        nonfinite: NaN and infinite entries (L,).
        units: channels of images, else features (L,); 0 where there are none.
        dead_fraction: share of units that stay at 0 (at most 1e-6) for every sample and place, 0 to 1 (L,);
            NaN where units are not judged.
        dormant_fraction: share of units whose mean magnitude is at most 0.025 of the mean over all units of
            the layer, dead ones among them (Sokar et al. 2023), 0 to 1 (L,); NaN as above.
        dead_units: indices of the dead units, at most 1,000 of each layer (L).
        saturated_fraction: share of entries within 0.01 of a bound of Sigmoid, Tanh, Hardsigmoid, Hardtanh,
            Softsign or of a recurrent layer, 0 to 1 (L,); NaN for others.
        sample_spread: standard deviation across samples, pooled over features, over the rms (L,): 0 where
            every sample gets the same; NaN where samples cannot be told apart in the output, or all is 0.
        effective_rank: exponential of the entropy of the normalised singular values of the matrix of
            samples by features, not centred (Roy & Vetterli 2007), from 1 to ``most_rank`` (L,); NaN as
            above.
        most_rank: the smaller of samples and features it is computed from (L,).
        cosine: mean correlation of the outputs of two samples, −1 to 1 (L,); NaN as above.
        cka: debiased linear CKA with the next row (Kornblith et al. 2019, Nguyen et al. 2021), up to 1
            (L,); NaN for the last row and as above.
        samples: how many samples were passed.
        described: how many of them rank, cosine and CKA are computed from.
        remarks: what there is to say.
    """

    layers: tuple[str, ...]
    kinds: tuple[str, ...]
    sides: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    post_activation: Flags
    mean: Floats
    std: Floats
    absmax: Floats
    zero_fraction: Floats
    nonfinite: Integers
    units: Integers
    dead_fraction: Floats
    dormant_fraction: Floats
    dead_units: tuple[Integers, ...]
    saturated_fraction: Floats
    sample_spread: Floats
    effective_rank: Floats
    most_rank: Integers
    cosine: Floats
    cka: Floats
    samples: int
    described: int
    remarks: tuple[Remark, ...] = ()

    def names(self) -> list[str]:
        """Names of the rows for people: ``fc1``, or ``input of fc2``."""
        return [f"input of {n}" if s == "input" else n for n, s in zip(self.layers, self.sides, strict=True)]
