"""The command line. Only :func:`main` prints errors and returns exit codes.

0 fine · 1 something as bad as ``--fail-on`` was found · 2 the input cannot be used · 130 interrupted ·
141 the reader of a pipe went away · 70 a fault of torchwatch itself.
"""

from __future__ import annotations

import difflib
import importlib
import io
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from torchwatch import __version__
from torchwatch.commands import TABLE
from torchwatch.errors import TorchwatchError
from torchwatch.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

OK, FOUND, UNUSABLE, INTERNAL, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 70, 130, 141

_LONGEST_MESSAGE = 2000


class Commands(click.Group):
    """A group whose commands are imported when they are run, not when they are listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """All command names in the table's order."""
        return list(TABLE)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command, imported now; None if there is none of that name."""
        if cmd_name not in TABLE:
            return None
        command: click.Command = importlib.import_module(TABLE[cmd_name][0]).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, with the nearest name where there is no such command."""
        near = difflib.get_close_matches(args[0], TABLE, n=1)
        if args[0] not in TABLE and near:
            ctx.fail(f"there is no command {args[0]!r}; did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list of commands from the table, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in TABLE.items()])


@click.group(
    name="torchwatch",
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Run `torchwatch COMMAND --help` for the options and an example of a command.",
)
@click.version_option(__version__, prog_name="torchwatch", message="%(prog)s %(version)s")
def cli() -> None:
    """A flight recorder for PyTorch training: follow a run live, and open its recording afterwards."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; errors become one sentence on standard error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run(sys.argv[1:] if arguments is None else list(arguments))
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return PIPE_CLOSED
    except Exception as error:  # noqa: BLE001 - the last place where a failure can become a sentence
        return _report(error)
    return code


def _run(arguments: list[str]) -> int:
    """Click's own ``main`` would turn a closed pipe into exit code 1, which means "found" here."""
    try:
        with cli.make_context("torchwatch", arguments) as context:
            result: Any = cli.invoke(context)
    except click.exceptions.Exit as request:
        return request.exit_code
    except click.Abort:
        return INTERRUPTED
    return result if isinstance(result, int) else OK


def _report(error: Exception) -> int:
    if os.environ.get("TORCHWATCH_TRACEBACK"):
        raise error
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return UNUSABLE
    if isinstance(error, click.ClickException):
        return _say(_usage(error), error.exit_code)
    if isinstance(error, TorchwatchError):
        return _say(str(error), UNUSABLE)
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename is not None else ""
        return _say(f"{name}{error.strerror or error}", UNUSABLE)
    fault = f"unexpected {type(error).__name__}: {error}; this is a fault of torchwatch"
    return _say(f"{fault}, TORCHWATCH_TRACEBACK=1 shows where", INTERNAL)


def _usage(error: click.ClickException) -> str:
    message = error.format_message().rstrip(".")
    message = message[:1].lower() + message[1:]
    context = getattr(error, "ctx", None)
    return f"{message}; see `{context.command_path} --help`" if context else message


def _say(sentence: str, code: int) -> int:
    print(f"torchwatch: {printable(sentence, _LONGEST_MESSAGE)}", file=sys.stderr)  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main())
