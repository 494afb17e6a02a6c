"""The weight-randomisation check: does a map depend on what the model has learned?

Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018. Signed maps are compared first: methods that
multiply by the input keep much of |map| whatever the weights are, while the signs follow the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from torchwatch.results.attributions import Randomisation
from torchwatch.statistics.ranks import spearman

if TYPE_CHECKING:
    from torchwatch.examinations.case import Case

Explain = Callable[[nn.Module], Tensor]
"""From a model to its maps of the same samples (n, …), on any device."""

DRAWS = 5
_SAME = 0.7
"""Above this correlation with maps of a random model a map is that of the input, not of the model."""
_FEWEST = 4
"""With fewer elements in a map, random maps correlate too often by chance."""
_MOST = 20_000
"""Elements of a map that are compared."""


@dataclass(frozen=True)
class Stage:
    """How many of the layers, counted from the output, are randomised."""

    words: str
    layers: int


def stages_of(model: nn.Module) -> tuple[Stage, ...]:
    """The last layer with weights, the last half of them, all of them."""
    count = len(_holders(model))
    if not count:
        return ()
    name = _holders(model)[-1][0] or type(model).__name__
    wanted = {1: f"last layer ({name})", (count + 1) // 2: "last half", count: "all layers"}
    return tuple(Stage(words, layers) for layers, words in sorted(wanted.items()))


def check(
    case: Case,
    copy_of: Callable[[], nn.Module],
    explains: Mapping[str, Explain],
    beat: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, Randomisation]:
    """Compare each method's maps before and after randomising the weights.

    Args:
        case: for its seed.
        copy_of: makes a copy of the model, free to change.
        explains: methods by name.
        beat: told how many copies are done, of how many.

    Returns:
        By name of the method; empty where the model has no weights.
    """
    stages = stages_of(case.model)
    if not stages:
        return {}
    original = copy_of()
    before = {name: _flat(explain(original)) for name, explain in explains.items()}
    plan = [*stages[:-1], *[stages[-1]] * DRAWS]
    found: dict[str, list[tuple[int, float, float]]] = {name: [] for name in explains}
    for number, stage in enumerate(plan):
        beat(number, len(plan))
        twin = copy_of()
        randomise(twin, stage.layers, case.generator(f"randomise {number}"))
        for name, explain in explains.items():
            after = _flat(explain(twin))
            signed = _correlation(before[name], after)
            found[name].append((stage.layers, signed, _correlation(abs(before[name]), abs(after))))
    return {name: _concluded(stages, found[name], before[name].shape) for name in explains}


def _concluded(
    stages: Sequence[Stage], found: Sequence[tuple[int, float, float]], shape: tuple[int, ...]
) -> Randomisation:
    signed = [np.array([s for layers, s, _ in found if layers == stage.layers]) for stage in stages]
    sizes = [np.array([m for layers, _, m in found if layers == stage.layers]) for stage in stages]
    last = signed[-1][np.isfinite(signed[-1])]
    error = float(last.std(ddof=1) / math.sqrt(last.size)) if last.size > 1 else math.nan
    told = last.size and shape[1] >= _FEWEST
    return Randomisation(
        stages=tuple(stage.words for stage in stages),
        correlation=np.array([_mean(s) for s in signed]),
        magnitude=np.array([_mean(m) for m in sizes]),
        error=error,
        draws=DRAWS,
        samples=shape[0],
        depends=bool(abs(float(last.mean())) < _SAME) if told else None,
    )


def randomise(model: nn.Module, layers: int, generator: torch.Generator) -> None:
    """Draw the weights of the last ``layers`` layers anew, in place.

    Weights come from a normal distribution about 0 with their own root mean square; biases and the weights of
    normalisations, whose signs and level keep activations alive, are shuffled.
    """
    with torch.no_grad():
        for _, module in _holders(model)[-layers:]:
            normalises = "norm" in type(module).__name__.lower()
            for name, parameter in module._parameters.items():
                if parameter is None or not parameter.is_floating_point():
                    continue
                if name.endswith("bias") or normalises:
                    order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
                    parameter.copy_(parameter.reshape(-1)[order].reshape(parameter.shape))
                    continue
                size = parameter.float().square().mean().sqrt()
                drawn = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(drawn.to(parameter.device) * size)


def _holders(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Modules with parameters of their own, in the model's order."""
    return [(n, m) for n, m in model.named_modules() if any(p is not None for p in m._parameters.values())]


def _flat(maps: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    flat = maps.detach().reshape(maps.shape[0], -1)
    step = -(-flat.shape[1] // _MOST)
    return flat[:, ::step].double().cpu().numpy()


def _correlation(
    before: np.ndarray[Any, np.dtype[np.float64]], after: np.ndarray[Any, np.dtype[np.float64]]
) -> float:
    """Mean over samples; a map that became constant has changed altogether, and counts as 0."""
    each = []
    for a, b in zip(before, after, strict=True):
        value = spearman(a, b)
        constant = np.isfinite(b).all() and np.ptp(b) == 0 and np.ptp(a) > 0
        each.append(0.0 if constant else value)
    return _mean(np.array(each))


def _mean(values: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else math.nan
