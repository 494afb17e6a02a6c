"""``torchwatch status``: the health of a run in one screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from torchwatch.commands._shared import (
    Waiting,
    console,
    exit_code,
    fail_on_option,
    json_option,
    print_json,
    print_table,
    run_argument,
    unfinished,
)
from torchwatch.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from torchwatch.diagnosis import Diagnosis
    from torchwatch.sinks.progress import Progress

TOP = 5
REASONS = 6


@click.command("status")
@run_argument
@fail_on_option
@json_option
def command(run: str, *, fail_on: str | None, as_json: bool) -> int:
    """Show the health of a run in one screen: score, progress, the worst issues and layers.

    Works on a finished run and on one that is still being written.

    \b
    Example:
      torchwatch status runs/digits.jsonl
    """  # noqa: D301 - `\b` keeps click from filling the example
    from torchwatch.diagnosis import diagnose

    waiting = Waiting()
    try:
        found = diagnose(run, on_record=waiting)
    finally:
        progress = waiting.done()
    if as_json:
        print_json(summary(found, progress))
    else:
        _print(console(), found, progress, run)
    return exit_code(found.issues, fail_on)


def summary(found: Diagnosis, progress: Progress) -> dict[str, Any]:
    """The screen as plain JSON values."""
    body = found.as_json()
    names = ("run", "model", "status", "complete", "health_score", "band", "severities", "not_run")
    position = {k: v for k, v in progress.as_json().items() if k not in ("kind", "open")}
    return {
        **{name: body[name] for name in names},
        "progress": position,
        "issue_count": found.issue_count,
        "issues": body["issues"][:TOP],
        "layers": body["layers"][:TOP],
    }


def _print(out: Console, found: Diagnosis, progress: Progress, run: str) -> None:
    from rich.text import Text

    from torchwatch.sinks.lines import health_text, issue_text, show

    head = Text(f"{'run':10}").append(printable(found.run, 200), "bold")
    show(out, head.append(f" · {printable(found.model, 80)}" if found.model else ""))
    state = unfinished(run) if found.status == "unfinished" else printable(found.status, 20)
    show(out, Text(f"{'state':10}{state}"))
    show(out, Text(f"{'progress':10}{progress.line(issues=False)}"))
    show(out, health_text(found.health_score, found.severities))
    if found.issues:
        out.print("\nTop issues", style="bold")
        for issue in found.issues[:TOP]:
            show(out, issue_text(issue))
        if found.issue_count > TOP:
            more = f"… and {found.issue_count - TOP} more: torchwatch diagnose {printable(run, 200)}"
            show(out, Text(f"{'':10}{more}", "dim"))
    _print_layers(out, found)
    if found.not_run:
        out.print("\nNot run", style="bold")
        print_table(out, ("because", "checks"), _reasons(found.not_run))


def _print_layers(out: Console, found: Diagnosis) -> None:
    if not found.layers:
        return
    from torchwatch.sinks.lines import layer_name

    out.print("\nTop layers", style="bold")
    rows = [
        (layer_name(item.layer), printable(item.type, 40), ", ".join(dict.fromkeys(item.issues)))
        for item in found.layers[:TOP]
    ]
    print_table(out, ("layer", "type", "issues"), rows)


def _reasons(not_run: Mapping[str, str]) -> list[tuple[str, str]]:
    """The commonest reasons, each with its checks."""
    checks: dict[str, list[str]] = {}
    for slug, reason in not_run.items():
        checks.setdefault(printable(reason, 80), []).append(slug)
    ranked = sorted(checks.items(), key=lambda item: -len(item[1]))
    rows = [(reason, ", ".join(slugs)) for reason, slugs in ranked[:REASONS]]
    rest = sum(len(slugs) for _, slugs in ranked[REASONS:])
    return [*rows, ("other reasons", f"{rest} more: see `torchwatch diagnose`")] if rest else rows
