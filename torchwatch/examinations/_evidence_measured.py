"""What predictions, baselines, activations, gradients and ablation say about the four hypotheses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from torchwatch.results.activations import Activations
from torchwatch.results.baselines import Baselines
from torchwatch.results.gradient_flow import GradientFlow
from torchwatch.results.predictions import Predictions
from torchwatch.results.verdict import Evidence


def evidence(results: Mapping[str, Any]) -> Iterator[Evidence]:
    """Evidence of the results that are there."""
    for name, of in _OF.items():
        if name in results:
            yield from of(results[name], results)


def _of_predictions(result: Predictions, _: Mapping[str, Any]) -> Iterator[Evidence]:
    numbers = result.numbers
    if numbers is None:
        return
    reading = Counter(numbers.readings).most_common(1)[0][0]
    r, slope = numbers.overall("pearson"), numbers.overall("slope")
    figures = f"(spread {numbers.overall('std_ratio'):.2f} of the targets', r {r:.2f}, slope {slope:.2f})"
    if reading == "honest shrinkage":
        says = f"Predictions are close to the mean as far as a weak signal asks for it {figures}."
        yield Evidence("task ceiling", 1.5, says, "predictions")
        yield Evidence("training", -0.5, says, "predictions")
    elif reading == "collapsed":
        yield Evidence("training", 0.7, f"Predictions are nearly constant {figures}.", "predictions")
        yield Evidence("architecture", 0.3, f"Predictions are nearly constant {figures}.", "predictions")
        yield Evidence("task ceiling", -0.5, f"Predictions are nearly constant {figures}.", "predictions")
    elif reading == "over-shrunk":
        says = f"Predictions know more than they say {figures}."
        yield Evidence("training", 1.0, says, "predictions")
    elif reading == "over-dispersed":
        says = f"Predictions say more than they know {figures}."
        yield Evidence("training", 0.3, says, "predictions")
        yield Evidence("data", 0.3, says, "predictions")
    elif reading in ("unrelated", "against"):
        yield Evidence("data", 0.3, f"Predictions are unrelated to the targets {figures}.", "predictions")


def _of_activations(result: Activations, results: Mapping[str, Any]) -> Iterator[Evidence]:
    """Layers without a living unit: the architecture's fault where fresh weights do not help."""
    dead = np.flatnonzero(result.post_activation & (np.nan_to_num(result.dead_fraction) > _DEAD))
    if not dead.size:
        return
    first = int(dead[0])
    says = f"{result.dead_fraction[first]:.0%} of the units of {result.layers[first]} are dead"
    says += f", and so are most of {dead.size - 1} other layers." if dead.size > 1 else "."
    if _revived(results):
        yield Evidence("training", 1.0, says + " With fresh weights the same layers learn.", "activations")
    else:
        yield Evidence("architecture", 1.5, says, "activations")
        yield Evidence("training", 0.7, says, "activations")
    yield Evidence("task ceiling", -1.0, says, "activations")


_DEAD = 0.9


def _revived(results: Mapping[str, Any]) -> bool:
    relearning = results.get("relearning")
    restarted = None if relearning is None else relearning["restarted"]
    return restarted is not None and bool(restarted.better)


def _of_gradients(result: GradientFlow, results: Mapping[str, Any]) -> Iterator[Evidence]:
    silent = [n for n, s in zip(result.layers, result.states, strict=True) if s in ("zero", "vanishing")]
    if not silent:
        return
    says = f"No gradient worth the name reaches {silent[0]}"
    says += f" and {len(silent) - 1} more layers." if len(silent) > 1 else "."
    yield Evidence("training" if _revived(results) else "architecture", 0.7, says, "gradient_flow")


def _of_baselines(result: Baselines, _: Mapping[str, Any]) -> Iterator[Evidence]:
    if result.worse and not result.oracle:
        says = f"Worse than predicting without looking at the inputs ({', '.join(result.worse)})."
        yield Evidence("training", 0.5, says, "baselines")
        yield Evidence("task ceiling", -0.5, says, "baselines")


_OF: Mapping[str, Callable[[Any, Mapping[str, Any]], Iterator[Evidence]]] = {
    "predictions": _of_predictions,
    "activations": _of_activations,
    "gradient_flow": _of_gradients,
    "baselines": _of_baselines,
}
