"""Whether targets that repeat the input are meant one place on, as those of causal language models are.

Their loss compares each output with the next token, and their data give the tokens themselves as labels. Read
place by place, such a model would be scored on repeating what it is shown, and the best would look the worst.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from torchwatch.examinations.axes import integer
from torchwatch.examinations.tasks import IGNORED

_ROWS = 4
_STILL = 1e-3
"""A change of outputs below this share of the largest one is rounding."""


def predicts_next_token(
    forward: Callable[[Mapping[str, Tensor]], Tensor],
    inputs: Mapping[str, Tensor],
    main: str,
    targets: Tensor,
) -> bool:
    """Whether the targets are the tokens themselves, and no output sees a later token.

    Args:
        forward: from named inputs to the model's output (n, T, classes).
        inputs: named inputs of the samples.
        main: name of the tokens among them, (N, T).
        targets: as the data give them.
    """
    tokens = inputs[main]
    if not integer(tokens) or tokens.ndim != 2 or tokens.shape[1] < 2 or targets.shape != tokens.shape:
        return False
    counted = targets != IGNORED
    if not bool(counted.any()) or not bool((targets == tokens)[counted].all()):
        return False
    few = {k: v[:_ROWS] for k, v in inputs.items()}
    return _blind_to_later(forward, few, main, _last_seen(few, main))


def _last_seen(inputs: Mapping[str, Tensor], main: str) -> Tensor:
    """Place of the last token of each row that no attention mask hides (n,)."""
    tokens = inputs[main]
    mask = inputs.get("attention_mask")
    places = torch.arange(tokens.shape[1]).expand(tokens.shape)
    if mask is not None and mask.shape == tokens.shape:
        places = torch.where(mask != 0, places, 0)
    return places.amax(1)


def _blind_to_later(
    forward: Callable[[Mapping[str, Tensor]], Tensor], inputs: Mapping[str, Tensor], main: str, last: Tensor
) -> bool:
    """Whether another last token changes the output there, and none before it."""
    tokens = inputs[main]
    rows = torch.arange(len(tokens))
    changed = tokens.clone()
    # a token of the same data is one that the model knows
    changed[rows, last] = torch.where(tokens[rows, last] == tokens.amax(1), tokens.amin(1), tokens.amax(1))
    with torch.no_grad():
        before = forward(inputs)
        moved = (forward({**inputs, main: changed}) - before).float().abs()
    if moved.ndim != 3 or moved.shape[:2] != tokens.shape:
        return False
    moved = moved.amax(2).cpu()
    earlier = torch.arange(tokens.shape[1]) < last[:, None]
    there = float(moved[rows, last].max())
    return bool(earlier.any()) and there > 0 and float(moved[earlier].max()) < _STILL * there
