"""``torchwatch checks``: what is looked for, and from which records."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from torchwatch.check import Category, all_checks
from torchwatch.commands._shared import console, json_option, print_json, print_table

if TYPE_CHECKING:
    from torchwatch.check import Check


@click.command("checks")
@click.option(
    "--category",
    type=click.Choice([c.value for c in Category]),
    metavar="CATEGORY",
    help=f"Only the checks of one category: {', '.join(c.value for c in Category)}.",
)
@json_option
def command(*, category: str | None, as_json: bool) -> None:
    """List all checks: what each one finds, when it looks and which records it reads.

    \b
    Example:
      torchwatch checks --category gradients
    """  # noqa: D301 - `\b` keeps click from filling the example
    checks = [c for c in all_checks().values() if category in (None, c.category.value)]
    if as_json:
        print_json([summary(c) for c in checks])
        return
    _print(checks)


def summary(check: Check) -> dict[str, Any]:
    """The check as plain JSON values."""
    return {
        "check": check.slug,
        "title": check.title,
        "severity": check.severity.word,
        "category": check.category.value,
        "when": sorted(on.value for on in check.when),
        "reads": list(check.reads),
        "uses": list(check.uses),
        "limits": dataclasses.asdict(check.limits),
        "fix": check.fix,
    }


def _print(checks: list[Check]) -> None:
    from rich.text import Text

    from torchwatch.sinks.lines import INDENT, SEVERITY_STYLE, show

    out = console()
    rows = [
        (
            Text(c.slug, "bold"),
            Text(c.severity.word, SEVERITY_STYLE[c.severity.word]),
            Text(c.category.value),
            Text(", ".join(sorted(on.value for on in c.when))),
            Text(", ".join(c.reads)),
            Text(c.title),
        )
        for c in checks
    ]
    if out.width >= _WIDE:
        print_table(out, ("check", "severity", "category", "when", "reads", "finds"), rows)
        return
    for slug, severity, category, when, reads, title in rows:
        show(out, Text("  ").join((slug, severity, category, Text(f"at every {when}", "dim"))))
        show(out, Text(f"{'':{INDENT}}").append_text(title).append(f" Reads {reads}.", "dim"))


_WIDE = 120
