"""Metrics of evaluations by their names: which way is better, what is measured per class or per set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torchwatch.history import Series

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torchwatch.history import History

MOST_EVALS = 256
"""Last evaluations that are looked at."""

_LOWER_IS_BETTER = frozenset({
    "loss", "error", "err", "wer", "cer", "mse", "mae", "rmse", "perplexity", "ppl", "nll", "bpc", "bpb",
    "fid",
})  # fmt: skip
_NO_QUALITY = ("loss", "runtime", "per_second", "time", "samples", "steps", "epoch", "perplexity", "ppl")
_LEAST_METRICS = 2


def words(name: str) -> list[str]:
    """The words of a metric's name, in lower case, without what stands behind the first dot."""
    return name.partition(".")[0].lower().replace("-", "_").replace("/", "_").split("_")


def lower_is_better(name: str) -> bool:
    """Whether a metric is an error or a loss, by its name."""
    return not _LOWER_IS_BETTER.isdisjoint(words(name))


def says_quality(name: str) -> bool:
    """Whether a metric says how good the model is and is not a loss, by its name."""
    return not any(word in name.lower() for word in _NO_QUALITY)


def tail(series: Series) -> Series:
    """The last finite values, one per step."""
    fine = np.isfinite(series.values) & np.append(True, np.diff(series.steps) > 0)
    return Series(series.steps[fine][-MOST_EVALS:], series.values[fine][-MOST_EVALS:])


def quality(history: History) -> tuple[str, Series] | None:
    """The first validation metric that says how good the model is, turned so that more is better."""
    for record in history.evals[:1]:
        for name in record.metrics:
            if says_quality(name) and "." not in name:
                series = tail(history.eval_series(name))
                return name, Series(series.steps, -series.values if lower_is_better(name) else series.values)
    return None


def keyed(metrics: Mapping[str, float | None]) -> dict[str, dict[str, float]]:
    """What was logged as a dictionary: name → key → value ("val_recall.cat" is key "cat" of "val_recall")."""
    found: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        base, dot, key = name.partition(".")
        if dot and value is not None and np.isfinite(value):
            found.setdefault(base, {})[key] = value
    return found


def sets(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Metrics that are measured on several sets: metric → set → its full name.

    Sets are the keys of a dictionary ("val_accuracy.french"), or the second word of the name
    ("eval_french_accuracy") where at least two of them come with the same two or more metrics: "val_box_loss"
    and "val_class_loss" are parts of one loss.
    """
    found: dict[str, dict[str, str]] = {}
    spoken: dict[str, dict[str, str]] = {}
    for name in names:
        base, dot, key = name.partition(".")
        if dot:
            found.setdefault(base, {})[key] = name
        else:
            prefix, _, rest = name.partition("_")
            word, underscore, metric = rest.partition("_")
            if underscore and word and metric:
                spoken.setdefault(word, {})[f"{prefix}_{metric}"] = name
    for word, metrics in spoken.items():
        alike = [w for w, m in spoken.items() if m.keys() == metrics.keys()]
        if len(metrics) >= _LEAST_METRICS and len(alike) > 1:
            for metric, name in metrics.items():
                found.setdefault(metric, {})[word] = name
    return {metric: by_set for metric, by_set in found.items() if len(by_set) > 1}
