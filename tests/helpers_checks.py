"""Whether a check speaks about a hand-made run: in a real engine with only that check selected."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from tests.helpers_handmade import column, layout, records
from torchwatch.check import Selection, select
from torchwatch.engine import Engine
from torchwatch.records import Alert, Record, decode, encode

__all__ = ["ANY", "assert_fires", "assert_quiet", "column", "layout", "only", "records", "run_check"]

ANY: Any = object()


def only(slug: str, limits: Mapping[str, Any] | None = None) -> Selection:
    """A selection of one check, with overridden limits."""
    chosen = select({slug: dict(limits)} if limits else None)
    return dataclasses.replace(chosen, checks=tuple(c for c in chosen.checks if c.slug == slug))


def run_check(
    slug: str, history: Iterable[Record], limits: Mapping[str, Any] | None = None
) -> tuple[Engine, list[Alert]]:
    """The engine after the run and all its alerts, end pass included; a check that raises fails the test.

    Every record goes through the file format first, as it would in life.
    """
    engine = Engine(only(slug, limits))
    alerts = [a for r in history for a in engine.feed(decode(encode(r)))]
    alerts += engine.finish()
    assert not engine.failed, engine.failed
    return engine, alerts


def assert_fires(
    slug: str,
    history: Iterable[Record],
    *,
    layer: str | None = ANY,
    severity: str | None = None,
    since: tuple[int, int] | None = None,
    by: int | None = None,
    limits: Mapping[str, Any] | None = None,
) -> Alert:
    """The check opens an issue (the first one that fits is returned as it was opened).

    Args:
        slug: the check.
        history: the records.
        layer: the issue's layer; None: an issue about the whole run.
        severity: its severity word when it opened or after it escalated.
        since: range (inclusive) in which its onset must lie.
        by: latest step at which it may be noticed.
        limits: overridden limits.
    """
    _, alerts = run_check(slug, history, limits)
    spoken = [a for a in alerts if a.state != "resolved" and (layer is ANY or a.layer == layer)]
    fitting = [
        a for a in spoken
        if (severity is None or a.severity == severity)
        and (since is None or since[0] <= a.since_step <= since[1])
        and (by is None or a.step <= by)
    ]  # fmt: skip
    said = [(a.state, a.severity, a.layer, a.since_step, a.step, a.title) for a in alerts]
    assert fitting, f"{slug}: nothing fits layer={layer!r} severity={severity} since={since} by={by}: {said}"
    return fitting[0]


def assert_quiet(
    slug: str,
    history: Iterable[Record],
    *,
    allow_info: bool = False,
    ready: bool = True,
    limits: Mapping[str, Any] | None = None,
) -> Engine:
    """The check says nothing about the run, although it could look (``ready``: it was not "not run").

    ``allow_info`` lets infos pass: a healthy run must stay free of warnings only.
    """
    engine, alerts = run_check(slug, history, limits)
    loud = [a for a in alerts if not (allow_info and a.severity == "info")]
    assert not loud, [(a.severity, a.layer, a.step, a.title, a.detail) for a in loud]
    assert not ready or not engine.not_run(), engine.not_run()
    return engine
