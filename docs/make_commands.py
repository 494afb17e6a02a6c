"""Writes ``docs/commands.md`` from the commands' own help: ``python -m docs.make_commands``."""

from __future__ import annotations

import importlib
from pathlib import Path

import click

from torchwatch.commands import TABLE

PAGE = Path(__file__).with_name("commands.md")

_INTRODUCTION = """\
# Commands

Written by `python -m docs.make_commands` from what `--help` says; a test keeps it in step.

Data goes to standard output, talk to standard error. Every command has `--json`. Colours are for terminals:
`NO_COLOR`, `TERM=dumb` and pipes are obeyed. Text that comes from a run is shown escaped.

| exit code | meaning |
|---|---|
| 0 | fine |
| 1 | something as bad as `--fail-on` was found (`demo`: the planted fault was not named) |
| 2 | the input cannot be used; one sentence says why |
| 70 | a fault of torchwatch itself; `TORCHWATCH_TRACEBACK=1` shows where |
| 130, 141 | interrupted; the reader of the pipe went away |
"""


def page() -> str:
    """The whole page as Markdown: a section per command, in the table's order."""
    sections = [_section(name, module, line) for name, (module, line) in TABLE.items()]
    return "\n".join([_INTRODUCTION, *sections])


def _section(name: str, module: str, line: str) -> str:
    command: click.Command = importlib.import_module(module).command
    settings = {"max_content_width": 100, "terminal_width": 100, "help_option_names": ["-h", "--help"]}
    context = click.Context(command, info_name=f"torchwatch {name}", **settings)
    shown = "\n".join(row.rstrip() for row in command.get_help(context).splitlines())
    return f"## {name}\n\n{line}\n\n```text\n{shown}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
