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
        budget: share of step time that watching may cost, all probes and the recorder together (default 0.01;
            None: no control, everything at its full rate).
        gradients_every: gradient norms and update ratios on every n-th step (steps). Default None: every
            step, unless that alone breaks the budget, as on sub-millisecond steps; a number forces it.
        activations_every: activations, weights and all other heavy probes on every n-th step (steps). Default
            None: every 10th, or less often as the budget demands; a number forces it.
        dense_steps: measure everything on each of the first n steps as well (steps, default 10).
        rare_every: effective rank, cosine and CKA on every n-th sampled step (sampled steps, default 10).
        zoom_steps: after a warning, measure everything on that many steps (steps, default 50; at most that
            many in any 1,000; 0: never).
        sentinel: sum every output on every step so that the first NaN can be named. Default None: as long as
            the budget allows; without a budget always.
        blackbox_steps: measured steps that are kept in memory for the black box (steps, default 50).
        dead_window_samples: a unit is dead after this many samples without activity (samples, default 512).
        update_slice: elements per parameter that the update ratio reads (elements, default 4096).
        attention: entropy, maximum and sparsity per attention head on sampled steps. Default None: on for
            models that contain transformer blocks or multi-head attention.
        histograms: histograms of gradients and activations on sampled steps (default False).
        profile_every: run the profiler for ``profile_steps`` on every n-th step (steps, default None: never).
        profile_steps: length of such a window (steps, default 3).
        profile_trace: folder for Chrome traces of the windows (default None: none is written).
        logs: record warnings and errors of ``logging`` and ``warnings`` while watching (default True).
        energy: record energy and CO2 (default True).
        country: ISO 3166 code of the grid whose CO2 factor counts (three letters, default None: the world's
            average).
        interval_steps: an interval closes after this many steps, if no epoch ends first (steps, default 200).
        flush_s: how often finished steps are written, checked and shown (seconds, default 0.1,
            at most 1).
        fast_steps_per_s: above this rate steps are batched into ``steps`` lines (steps/second, default 50).
        queue_steps: steps that may wait for the recorder before detail is dropped (steps, default 4096).
        disk_full_bytes: the run file is written in full up to this size (bytes, default 64 MB) …
        disk_bytes_per_hour: … and grows by at most this much after that, by leaving out columns first (bytes
            per hour, default 32 MB).
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

    budget: float | None = 0.01
    gradients_every: int | None = None
    activations_every: int | None = None
    dense_steps: int = 10
    rare_every: int = 10
    zoom_steps: int = 50
    sentinel: bool | None = None
    blackbox_steps: int = 50
    dead_window_samples: int = 512
    update_slice: int = 4096
    attention: bool | None = None
    histograms: bool = False
    profile_every: int | None = None
    profile_steps: int = 3
    profile_trace: str | None = None
    logs: bool = True
    energy: bool = True
    country: str | None = None
    interval_steps: int = 200
    flush_s: float = 0.1
    fast_steps_per_s: float = 50.0
    queue_steps: int = 4096
    disk_full_bytes: int = 64_000_000
    disk_bytes_per_hour: int = 32_000_000
    system_s: float = 1.0
    drain_s: float = 5.0
    limits: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    declare: Mapping[str, Any] = field(default_factory=dict)
    terminal: bool = True
    log_file: str | None = None

    def __post_init__(self) -> None:
        for name in ("interval_steps", "update_slice", "queue_steps", "rare_every", "profile_steps"):
            _require(self, name, lambda v: isinstance(v, int) and v >= 1, "a whole number of at least 1")
        for name in ("gradients_every", "activations_every", "profile_every"):
            _require(
                self,
                name,
                lambda v: v is None or (isinstance(v, int) and v >= 1),
                "a whole number of at least 1, or None",
            )
        for name in ("dense_steps", "dead_window_samples", "zoom_steps", "blackbox_steps"):
            _require(self, name, lambda v: isinstance(v, int) and v >= 0, "a whole number of at least 0")
        for name in ("disk_full_bytes", "disk_bytes_per_hour"):
            _require(self, name, lambda v: isinstance(v, int) and v >= 0, "a whole number of bytes")
        _require(self, "budget", lambda v: v is None or 0 < v <= 1, "a share between 0 and 1, or None")
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
