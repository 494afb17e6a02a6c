"""What the examination of the gradients yields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from torchwatch.results.autopsy import Remark

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

State = Literal["flows", "vanishing", "zero", "unreached", "frozen", "nonfinite"]
"""``flows``; ``vanishing``: far below the largest, also for the size of its weights; ``zero``: exactly 0 in
every batch; ``unreached``: the loss does not depend on it; ``frozen``: no parameter wants a gradient;
``nonfinite``: NaN or infinite in a batch."""


@dataclass(frozen=True, slots=True)
class GradientFlow:
    """Gradients of the loss on several batches, layer by layer in the order of the calls.

    A layer is a module with parameters of its own; parameters that several share count for the first.

    Attributes:
        layers: full names (L).
        kinds: class of each (L).
        parameters: number of weights that want a gradient (L,); of frozen layers all weights.
        gradient_norm: L2 norm of the layer's gradient, mean over batches (L,), loss per unit of weight; NaN
            for frozen layers, 0 where none arrives.
        gradient_rms: ``gradient_norm`` over the root of ``parameters`` (L,): comparable between layers.
        gradient_spread: standard deviation of the norm over batches (L,).
        weight_norm: L2 norm of the weights (L,).
        ratio: ``gradient_norm / weight_norm`` (L,); NaN for weights of norm 0.
        agreement: norm of the batches' mean gradient over the mean norm (L,): 1 where all batches pull one
            way, about 1 ⁄ √batches where their gradients have nothing in common.
        states: what to make of each (L).
        trainable: layers that want a gradient.
        with_gradient: those of them that get one.
        first_last_ratio: ``gradient_rms`` of the first layer with a gradient over that of the last; NaN for
            fewer than two.
        loss: mean of the loss over the batches.
        batches: how many.
        batch_size: samples in the largest.
        own_loss: whether it was the user's loss.
        remarks: what there is to say.
    """

    layers: tuple[str, ...]
    kinds: tuple[str, ...]
    parameters: Integers
    gradient_norm: Floats
    gradient_rms: Floats
    gradient_spread: Floats
    weight_norm: Floats
    ratio: Floats
    agreement: Floats
    states: tuple[State, ...]
    trainable: int
    with_gradient: int
    first_last_ratio: float
    loss: float
    batches: int
    batch_size: int
    own_loss: bool
    remarks: tuple[Remark, ...] = ()
