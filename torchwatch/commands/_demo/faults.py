"""The mistakes that the demo plants: each a change to the healthy recipe, with what should be found.

Nothing here imports torch, so that ``torchwatch demo --help`` is quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the network is trained; the defaults are the healthy run.

    Attributes:
        epochs: passes over the training images.
        lr: learning rate of SGD with momentum 0.9.
        batch_size: images per step.
        weight_decay: L2 penalty.
        dropout: probability.
        cosine: decay the learning rate to zero along a half cosine, else keep it.
        train_images: train on only so many images (None: all 1,437).
        zero_grad: clear the gradients before each backward pass.
        forgotten: a layer whose parameters the optimizer is not given.
        lr_growth: (step, factor): from this step on each step multiplies the learning rate by the factor.
        bias_shift: (step, layer, shift): at this step the shift is added to the layer's biases.
        keep_graphs: validate without ``torch.no_grad()`` and keep every batch's loss in a list.
        delay_s: time that the data set takes per image (seconds).
    """

    epochs: int = 14
    lr: float = 0.03
    batch_size: int = 64
    weight_decay: float = 1e-2
    dropout: float = 0.5
    cosine: bool = True
    train_images: int | None = None
    zero_grad: bool = True
    forgotten: str | None = None
    lr_growth: tuple[int, float] | None = None
    bias_shift: tuple[int, str, float] | None = None
    keep_graphs: bool = False
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Fault:
    """A planted mistake and what names it.

    Attributes:
        planted: the mistake in one sentence.
        recipe: the training that contains it.
        roots: checks of which one must be the root of an incident.
        layers: the layers that the root may name (empty: it names none or any).
        onset: first and last step at which the root may begin.
    """

    planted: str
    recipe: Recipe
    roots: tuple[str, ...]
    onset: tuple[int, int]
    layers: tuple[str, ...] = ()


HEALTHY = Recipe()

_SHIFT_STEP = 150
_GROWTH_STEP = 150
_DELAY_S = 0.0005

FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        "dead-relu": Fault(
            planted=f"at step {_SHIFT_STEP} the biases of conv3 drop by 20, as one far too large update does",
            recipe=Recipe(bias_shift=(_SHIFT_STEP, "conv3", -20.0)),
            roots=("dead-units",),
            layers=("relu3", "head"),
            onset=(_SHIFT_STEP - 10, _SHIFT_STEP + 10),
        ),
        "missing-zero-grad": Fault(
            planted="optimizer.zero_grad() is never called, so gradients pile up",
            recipe=Recipe(zero_grad=False),
            roots=("missing-zero-grad",),
            onset=(1, 5),
        ),
        "exploding-lr": Fault(
            planted=f"from step {_GROWTH_STEP} on each step multiplies the lr by 1,000 (0.999 was meant)",
            recipe=Recipe(epochs=10, lr_growth=(_GROWTH_STEP, 1000.0)),
            roots=(
                "parameter-nonfinite", "gradient-nonfinite", "loss-nonfinite", "exploding-gradients",
                "loss-explosion",
            ),
            onset=(_GROWTH_STEP, _GROWTH_STEP + 5),
        ),
        "overfit": Fault(
            planted="100 training images, no dropout, no weight decay, 80 epochs",
            recipe=Recipe(
                epochs=80, train_images=100, batch_size=20, dropout=0.0, weight_decay=0.0, cosine=False
            ),
            roots=("overfitting",),
            onset=(50, 200),
        ),
        "forgotten-parameters": Fault(
            planted="the optimizer is not given the parameters of conv2",
            recipe=Recipe(forgotten="conv2"),
            roots=("unoptimized-parameters",),
            layers=("conv2",),
            onset=(1, 5),
        ),
        "memory-leak": Fault(
            planted="validation runs without torch.no_grad() and keeps its losses, each with its whole graph",
            recipe=Recipe(epochs=40, keep_graphs=True),
            roots=("memory-growth",),
            onset=(1, 200),
        ),
        "slow-loader": Fault(
            planted=f"reading an image takes {1000 * _DELAY_S:g} ms, and no worker reads ahead",
            recipe=Recipe(epochs=6, delay_s=_DELAY_S),
            roots=("input-bound",),
            onset=(1, 30),
        ),
    }
)  # fmt: skip
"""By the name that ``--fault`` takes."""
