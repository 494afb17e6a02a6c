"""``torchwatch tail``: follow a run from its file, without touching the training."""

from __future__ import annotations

from contextlib import ExitStack

import click

from torchwatch.commands._shared import exit_code, fail_on_option, json_option, run_argument


@click.command("tail")
@run_argument
@click.option("--alerts", "alerts_only", is_flag=True, help="Show alerts only, no progress.")
@click.option("--no-follow", is_flag=True, help="Show what is there and stop.")
@click.option("--wait", is_flag=True, help="Wait for the file if there is none yet.")
@click.option("--log-file", metavar="FILE", help="Also append the same to this file as plain text.")
@fail_on_option
@json_option
def command(
    run: str,
    *,
    alerts_only: bool,
    no_follow: bool,
    wait: bool,
    log_file: str | None,
    fail_on: str | None,
    as_json: bool,
) -> int:
    """Follow a run while it is being recorded: progress, and alerts as they come.

    Alerts recorded before are shown first. Ends when the run ends, with its health score; Ctrl-C stops
    following and leaves the training alone. On a pipe there is a line of progress every five seconds of the
    run; with --json each line is an alert, a note, a status, or the end of the run.

    Of a distributed run give rank 0's file: what other ranks say that no rank said before, and how each of
    them ended, is shown as well (with --json all of it, with the `rank`).

    \b
    Example:
      torchwatch tail runs/digits.jsonl
      torchwatch tail runs/digits.jsonl --json --alerts | jq .title
    """  # noqa: D301 - `\b` keeps click from filling the example
    from torchwatch.commands._screens import LogFile, screen_for
    from torchwatch.records import Alert, RunHeader
    from torchwatch.run import with_ranks
    from torchwatch.runfile import follow, read_records

    found: list[Alert] = []
    records = read_records(run) if no_follow else follow(run, wait=wait)
    with ExitStack() as stack:
        screens = [screen_for(stack, as_json=as_json, alerts_only=alerts_only)]
        screens += [LogFile(stack, log_file)] if log_file is not None else []
        for rank, record in with_ranks(records, run, patience_s=0.0 if no_follow else 6.0):
            for screen in screens:
                screen.show(record, rank)
            if isinstance(record, Alert):
                found.append(record)
            elif isinstance(record, RunHeader) and rank == 0:
                found.clear()  # another run took the file's place
        for screen in screens:
            screen.finish(run)
    return exit_code(found, fail_on)
