"""Writes ``docs/checks/`` from the checks' own docstrings: ``python -m docs.make_checks``.

One page per check, named by its slug, and ``index.md``, which lists them by category. A page of a check that
is gone is removed.
"""

from __future__ import annotations

import dataclasses
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from torchwatch.check import Category, all_checks
from torchwatch.commands.explain import HEADINGS, limit_notes

if TYPE_CHECKING:
    from torchwatch.check import Check

FOLDER = Path(__file__).with_name("checks")

_INTRODUCTION = """\
# Checks

Written by `python -m docs.make_checks` from the checks' own docstrings; a test keeps them in step.
`torchwatch checks` lists them, `torchwatch explain CHECK` shows one in the terminal.

A check looks at the records of a run, live and when a run file is read, and says what is wrong now. One that
lacks what it needs is listed as not run, which is not the same as fine. Severities are the ones that a check
starts from; many are milder or worse as the case may be, and their pages say when.

Every number that a check goes by is a limit, and every check can be left out. Both can be said in three
places; of a limit the later one wins, and a check that the project ignores stays ignored:

```toml
# pyproject.toml of the working directory
[tool.torchwatch]
ignore = ["noisy-loss"]

[tool.torchwatch.limits.overfitting]
patience = 5
```

```python
Watcher(model, limits={"overfitting": {"patience": 5}}, ignore=["noisy-loss"])
```

```text
torchwatch diagnose runs/digits.jsonl --limit overfitting.patience=5 --ignore noisy-loss
```

A name that does not exist is refused at the start, with the nearest one that does.
"""


def pages() -> dict[str, str]:
    """File name → text of every page, the index among them."""
    return {"index.md": index()} | {f"{slug}.md": page(check) for slug, check in all_checks().items()}


def index() -> str:
    """All checks by category, in the order in which the categories are declared."""
    parts = [_INTRODUCTION]
    for category in Category:
        rows = [
            (f"[{slug}]({slug}.md)", check.severity.word, _markdown(check.title))
            for slug, check in all_checks().items()
            if check.category is category
        ]
        if rows:
            parts.append(f"## {category.value}\n\n{_table(('check', 'severity', 'finds'), rows)}\n")
    return "\n".join(parts)


def page(check: Check) -> str:
    """One check: its facts, its documentation, its limits, and what to write."""
    facts = [
        ("severity", check.severity.word),
        ("category", f"[{check.category.value}](index.md#{check.category.value})"),
        ("looks at every", ", ".join(sorted(on.value for on in check.when))),
        ("needs", _codes(check.reads)),
        ("also uses", _codes(check.uses)),
    ]
    parts = [f"# {check.slug}", _markdown(check.title), _table(("", ""), facts), *_sections(check)]
    parts += ["## In short", _markdown(check.fix)]
    if check.snippet:
        parts.append(f"```python\n{check.snippet.rstrip()}\n```")
    parts += _limits(check)
    return "\n\n".join(parts) + "\n"


def _sections(check: Check) -> list[str]:
    """The docstring's sections: a heading at the margin, its text indented."""
    parts: list[str] = []
    body: list[str] = []
    for line in [*check.doc.splitlines()[1:], *HEADINGS[:1]]:
        if line in HEADINGS:
            parts += [_markdown(textwrap.dedent("\n".join(body)).strip())] if body else []
            parts.append(f"## {line}")
            body = []
        else:
            body.append(line)
    return [part for part in parts[:-1] if part]


def _limits(check: Check) -> list[str]:
    defaults = dataclasses.asdict(check.limits)
    if not defaults:
        return []
    notes = limit_notes(check)
    rows = [(f"`{name}`", f"{value!r}", _markdown(notes[name])) for name, value in defaults.items()]
    name, value = next(iter(defaults.items()))
    shown = f"`Watcher(model, limits={{{check.slug!r}: {{{name!r}: {value!r}}}}})`".replace("'", '"')
    return ["## Limits", _table(("limit", "default", "meaning"), rows), f"Set one with {shown}."]


def _table(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [headings, ("---",) * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _codes(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "–"


def _markdown(text: str) -> str:
    return text.replace("``", "`")


def write() -> None:
    """Write every page; remove those of checks that are gone."""
    FOLDER.mkdir(exist_ok=True)
    made = pages()
    for path in FOLDER.glob("*.md"):
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
