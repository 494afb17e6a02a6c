"""What can be configured; every field with its unit and default."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torchwatch.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchConfig:
    """How a :class:`~torchwatch.Watcher` records. All fields are keywords.

    Attributes:
        gradients_every: gradient norms and update ratios on every n-th step (steps, default 1).
        activations_every: activations and weight norms on every n-th step (steps, default 10).
        dense_steps: measure everything on each of the first n steps as well (steps, default 10).
        dead_window_samples: a unit is dead after this many samples without activity (samples, default 512).
        update_slice: elements per parameter that the update ratio reads (elements, default 4096).
        interval_steps: an interval closes after this many steps, if no epoch ends first (steps, default 200).
        flush_s: how often finished steps are written, checked and shown (seconds, default 0.1,
            at most 1).
        fast_steps_per_s: above this rate steps are batched into ``steps`` lines (steps/second, default 50).
        queue_steps: steps that may wait for the recorder before detail is dropped (steps, default 4096).
        system_s: time between ``system`` records (seconds, default 1.0).
        drain_s: longest wait at exit for the recorder to finish (seconds, default 5.0).
        limits: overrides per check, ``{"overfitting": {"patience": 5}}``.
        ignore: checks that are not run.
        declare: what only the user can know: ``planned_steps``, ``augmentation``, ``causal``, ``mc_dropout``,
            ``frozen_stages``, ``baseline``, ``fine_tuning``, ``adversarial``, ``reinforcement``.
        terminal: show alerts on standard error as they come (default True).
        log_file: also write alerts and progress as plain text to this file (default None).

    Raises:
        ConfigError: a value is out of range.
    """

    gradients_every: int = 1
    activations_every: int = 10
    dense_steps: int = 10
    dead_window_samples: int = 512
    update_slice: int = 4096
    interval_steps: int = 200
    flush_s: float = 0.1
    fast_steps_per_s: float = 50.0
    queue_steps: int = 4096
    system_s: float = 1.0
    drain_s: float = 5.0
    limits: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    declare: Mapping[str, Any] = field(default_factory=dict)
    terminal: bool = True
    log_file: str | None = None

    def __post_init__(self) -> None:
        for name in ("gradients_every", "activations_every", "interval_steps", "update_slice", "queue_steps"):
            _require(self, name, lambda v: isinstance(v, int) and v >= 1, "a whole number of at least 1")
        for name in ("dense_steps", "dead_window_samples"):
            _require(self, name, lambda v: isinstance(v, int) and v >= 0, "a whole number of at least 0")
        for name in ("fast_steps_per_s", "system_s", "drain_s"):
            _require(self, name, lambda v: isinstance(v, (int, float)) and v > 0, "a positive number")
        _require(self, "flush_s", lambda v: 0 < v <= 1, "between 0 and 1 second")
        unknown = set(self.declare) - DECLARABLE
        if unknown:
            word = min(unknown)
            close = difflib.get_close_matches(word, sorted(DECLARABLE), n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(DECLARABLE))}"
            raise ConfigError(f"nothing called {word!r} can be declared{hint}")

    def with_keywords(self, **keywords: Any) -> WatchConfig:
        """A copy in which every keyword that is not None replaces the field of its name."""
        return dataclasses.replace(self, **{k: v for k, v in keywords.items() if v is not None})

    def as_json(self) -> dict[str, Any]:
        """All fields but limits and ignore (the header has those) as plain JSON values."""
        body = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del body["limits"], body["ignore"]
        body["declare"] = dict(self.declare)
        return body


DECLARABLE = frozenset(
    {
        "planned_steps",
        "augmentation",
        "causal",
        "mc_dropout",
        "frozen_stages",
        "baseline",
        "fine_tuning",
        "adversarial",
        "reinforcement",
    }
)


def _require(config: WatchConfig, name: str, fits: Any, what: str) -> None:
    value = getattr(config, name)
    try:
        good = not isinstance(value, bool) and fits(value)
    except TypeError:
        good = False
    if not good:
        raise ConfigError(f"{name} must be {what}, not {value!r}")
