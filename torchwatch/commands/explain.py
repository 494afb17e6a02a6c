"""``torchwatch explain``: the documentation of one check."""

from __future__ import annotations

import dataclasses
import itertools
import textwrap
from typing import TYPE_CHECKING

import click

from torchwatch.check import all_checks, select
from torchwatch.commands._shared import console, json_option, print_json, print_table
from torchwatch.commands.checks import summary

if TYPE_CHECKING:
    from rich.console import Console

    from torchwatch.check import Check

HEADINGS = ("What it detects", "Why it matters", "What to do", "When it is fine")

_WIDEST = 100


@click.command("explain")
@click.argument("check", metavar="CHECK")
@json_option
def command(check: str, *, as_json: bool) -> None:
    """Explain one check: what it detects, why it matters, what to do, when it is fine, and its limits.

    \b
    Example:
      torchwatch explain overfitting
    """  # noqa: D301 - `\b` keeps click from filling the example
    select(ignore=(check,))  # raises with the nearest match if there is no such check
    found = all_checks()[check]
    if as_json:
        print_json({**summary(found), "documentation": found.doc, "snippet": found.snippet})
        return
    _print(console(), found)


def reflowed(doc: str, width: int) -> list[str]:
    """The documentation's lines, each paragraph filled to ``width``; what is indented more is kept."""
    lines: list[str] = []
    for indent, group in itertools.groupby(doc.replace("``", "`").splitlines(), _indent):
        if indent in (0, 4):
            margin = " " * indent
            text = " ".join(line.strip() for line in group)
            lines += textwrap.wrap(text, width, initial_indent=margin, subsequent_indent=margin)
        else:
            lines += group
    return lines


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip()) if line.strip() else -1


def limit_notes(check: Check) -> dict[str, str]:
    """What each limit means: the ``name: meaning`` entries of its dataclass's docstring."""
    names = [f.name for f in dataclasses.fields(check.limits)]
    notes = dict.fromkeys(names, "")
    current = None
    for line in (type(check.limits).__doc__ or "").splitlines():
        head, colon, rest = line.strip().partition(":")
        if colon and head in notes:
            current, line = head, rest  # noqa: PLW2901 - the entry begins after its name
        if current is not None:
            notes[current] = f"{notes[current]} {line.strip()}".strip()
    return notes


def _print(out: Console, check: Check) -> None:
    from rich.text import Text

    from torchwatch.sinks.lines import SEVERITY_STYLE

    title = Text(check.slug, "bold").append("  ")
    title.append(check.severity.word, SEVERITY_STYLE[check.severity.word])
    when = ", ".join(sorted(on.value for on in check.when))
    out.print(title.append(f"  {check.category.value}, looks at every {when}"))
    out.print()
    for line in reflowed(check.doc, min(out.width, _WIDEST)):
        out.print(Text(line, "bold" if line in HEADINGS else ""), soft_wrap=True)
    out.print()
    rows = [("needs", ", ".join(check.reads) or "–"), ("also uses", ", ".join(check.uses) or "–")]
    print_table(out, ("records", ""), rows)
    _print_limits(out, check)
    if check.snippet:
        out.print("\nIn code", style="bold")
        for line in check.snippet.rstrip("\n").splitlines():
            out.print(Text(f"    {line}", "green"), soft_wrap=True)


def _print_limits(out: Console, check: Check) -> None:
    defaults = dataclasses.asdict(check.limits)
    if not defaults:
        return
    out.print()
    notes = limit_notes(check)
    rows = [(name, f"{value!r}", notes[name]) for name, value in defaults.items()]
    print_table(out, ("limit", "default", "meaning"), rows)
