import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from rich.live import Live

from tests.helpers_cli import Terminal, call
from tests.helpers_runs import HOSTILE, alert, header, hostile_run, is_harmless, steps, whole_run, write_run
from torchwatch.commands._screens import StatusLine
from torchwatch.records import End, Record, encode


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run.jsonl", whole_run())


@pytest.fixture
def unfinished(tmp_path: Path) -> Path:
    return write_run(tmp_path / "open.jsonl", whole_run()[:-1])


def follows(monkeypatch: pytest.MonkeyPatch, *records: Record | None) -> None:
    """Let ``follow`` give these; None is a look at the file that found nothing new."""

    def follow(path: str, *, wait: bool = False) -> Iterator[Record | None]:
        yield from records

    monkeypatch.setattr("torchwatch.runfile.follow", follow)


def test_finished_run_in_lines(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = call(monkeypatch, "tail", run)
    assert shown.code == 0
    assert shown.err == ""
    assert shown.out.splitlines() == [
        "run       digits · SmallNet, 12,345 parameters · started 2026-01-02T03:04:05+00:00",
        "WARNING   step 60  dead-units  conv2  92 % of units are dead",
        "          fix: Use LeakyReLU.",
        "note      loss not seen: call watch.log(loss=loss)",
        "finished  100 steps, 1 epoch in 10.2 s · health 93/100 (excellent)",
    ]


def test_recorded_alerts_come_first_then_progress_every_five_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old, new = steps(1, 200), steps(201, 320)
    follows(monkeypatch, header(), *old[:60], alert(), *old[60:], None, None, *new, alert(layer="late"))
    lines = call(monkeypatch, "tail", "run.jsonl").out.splitlines()
    assert lines[1].startswith("WARNING   step 60")
    progress = [line for line in lines if line.startswith("step ")]
    assert [line.split(" · ")[0] for line in progress[:3]] == ["step 201", "step 251", "step 301"]
    assert lines.index(progress[2]) < next(i for i, line in enumerate(lines) if "late" in line)


def test_no_follow_ends_with_where_it_is(unfinished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = call(monkeypatch, "tail", unfinished, "--no-follow")
    assert shown.out.splitlines()[-2].startswith(
        "step 100 · epoch 0 · loss 0.12 · 320 samples/s · RAM 512.0 MB"
    )
    assert re.search(r"no end recorded: last line .* ago, so the run goes on, hangs or was killed", shown.out)


def test_alerts_only(run: Path, unfinished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = call(monkeypatch, "tail", run, "--alerts").out.splitlines()
    assert [line.split()[0] for line in lines] == ["WARNING", "fix:", "finished"]
    lines = call(monkeypatch, "tail", unfinished, "--alerts", "--no-follow").out.splitlines()
    assert [line.split()[0] for line in lines] == ["WARNING", "fix:"]


def test_json_lines_are_the_recorded_ones_and_a_status(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [json.loads(line) for line in call(monkeypatch, "tail", run, "--json").out.splitlines()]
    assert [line["kind"] for line in lines] == ["alert", "note", "status", "end"]
    assert lines[0] == json.loads(encode(alert()))
    assert (lines[2]["step"], lines[2]["samples_per_s"]) == (100, 320.0)
    only = call(monkeypatch, "tail", run, "--json", "--alerts").out.splitlines()
    assert [json.loads(line)["kind"] for line in only] == ["alert"]


def test_json_status_while_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    follows(monkeypatch, header(), *steps(1, 200), None, *steps(201, 300))
    lines = [json.loads(line) for line in call(monkeypatch, "tail", "x", "--json").out.splitlines()]
    assert [(line["kind"], line["step"]) for line in lines] == [
        ("status", 201),
        ("status", 251),
        ("status", 300),
    ]


@pytest.mark.parametrize(("level", "code"), [("critical", 0), ("warning", 1)])
@pytest.mark.parametrize("form", [[], ["--json"], ["--alerts"], ["--no-follow"]])
def test_fail_on(level: str, code: int, form: list[str], run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(monkeypatch, "tail", run, "--fail-on", level, *form).code == code


def test_another_run_in_the_file_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    follows(monkeypatch, header(), *steps(1, 60), alert(), None, header(name="second"), *steps(1, 3), End())
    shown = call(monkeypatch, "tail", "run.jsonl", "--fail-on", "warning")
    assert shown.code == 0
    assert "run       second" in shown.out


def of_rank(folder: Path, rank: int, *records: Record) -> Path:
    name = "run.jsonl" if rank == 0 else f"run.rank{rank}.jsonl"
    return write_run(folder / name, [header(rank=rank, world=3), *records])


def test_all_ranks_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What several ranks say is said once; how each of them ended is always said."""
    run = of_rank(tmp_path, 0, *whole_run()[1:])
    of_rank(tmp_path, 1, *whole_run()[1:])
    of_rank(
        tmp_path, 2, *steps(1, 30), alert(check="input-bound", layer=None), End("crashed", step=30, steps=30)
    )
    shown = call(monkeypatch, "tail", run, "--no-follow", "--log-file", tmp_path / "log")
    of_ranks = [line for line in shown.out.splitlines() if line.startswith("rank ")]
    assert [line[:40] for line in of_ranks] == [
        "rank 1    finished  100 steps, 1 epoch i",
        "rank 2    WARNING   step 60  input-bound",
        "rank 2    crashed   30 steps, 0 epochs i",
    ]
    written = (tmp_path / "log").read_text().splitlines()
    assert [line for line in written if line.startswith("rank ")] == of_ranks
    assert shown.out.splitlines()[0].startswith("run       digits")
    only_alerts = call(monkeypatch, "tail", run, "--alerts").out.splitlines()
    assert [line for line in only_alerts if line.startswith("rank ")] == of_ranks
    assert call(monkeypatch, "tail", tmp_path / "run.rank1.jsonl").out.count("rank 2") == 0


def test_json_lines_of_other_ranks_have_their_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = of_rank(tmp_path, 0, *whole_run()[1:])
    of_rank(tmp_path, 2, *whole_run()[1:])
    lines = [
        json.loads(line) for line in call(monkeypatch, "tail", run, "--json", "--no-follow").out.splitlines()
    ]
    assert [(line["kind"], line.get("rank")) for line in lines] == [
        ("alert", None),
        ("note", None),
        ("status", None),
        ("end", None),
        ("alert", 2),
        ("note", 2),
        ("end", 2),
    ]
    alerts = [
        json.loads(line) for line in call(monkeypatch, "tail", run, "--json", "--alerts").out.splitlines()
    ]
    assert [(line["kind"], line.get("rank")) for line in alerts] == [("alert", None), ("alert", 2)]


def test_an_alert_of_another_rank_counts_for_fail_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = of_rank(tmp_path, 0, *steps(1, 30), End("finished", step=30, steps=30))
    of_rank(tmp_path, 1, *steps(1, 30), alert(severity="critical"), End("finished", step=30, steps=30))
    assert call(monkeypatch, "tail", run, "--no-follow", "--fail-on", "critical").code == 1


def test_log_file_gets_the_same_as_plain_text(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "tail.log"
    shown = call(monkeypatch, "tail", run, "--log-file", log, terminal=True)
    assert "\x1b[" in shown.out
    written = log.read_text().splitlines()
    assert "\x1b" not in log.read_text()
    assert [line for line in written if not line.startswith("step ")] == [
        "run       digits · SmallNet, 12,345 parameters · started 2026-01-02T03:04:05+00:00",
        "WARNING   step 60  dead-units  conv2  92 % of units are dead",
        "          fix: Use LeakyReLU.",
        "note      loss not seen: call watch.log(loss=loss)",
        "finished  100 steps, 1 epoch in 10.2 s · health 93/100 (excellent)",
    ]


def test_waits_for_a_file_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def follow(path: str, *, wait: bool = False) -> Iterator[Record | None]:
        asked.append(wait)
        yield End()

    monkeypatch.setattr("torchwatch.runfile.follow", follow)
    call(monkeypatch, "tail", "x")
    call(monkeypatch, "tail", "x", "--wait")
    assert asked == [False, True]


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def status_line(clock: Clock) -> tuple[StatusLine, io.StringIO, Live]:
    out = Terminal()
    console = Console(file=out, force_terminal=True, width=100, color_system=None, legacy_windows=False)
    live = Live(console=console, auto_refresh=False, transient=True)
    return StatusLine(console, live, clock), out, live


def test_status_line_is_refreshed_at_most_eight_times_a_second() -> None:
    clock = Clock()
    screen, out, live = status_line(clock)
    with live:
        for record in steps(1, 800):
            screen.show(record)
            clock.now_s += 1 / 800
        drawn = out.getvalue().count("samples/s")
    assert 6 <= drawn <= 9


def test_status_line_says_how_long_nothing_came() -> None:
    clock = Clock()
    screen, out, live = status_line(clock)
    with live:
        screen.show(steps(7, 7)[0])
        for _ in range(300):
            clock.now_s += 0.2
            screen.show(None)
    assert "nothing new for 10.2 s" in out.getvalue()
    assert "nothing new for 9" not in out.getvalue()


def test_terminal_shows_alerts_above_the_status_line_and_wipes_it(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = call(monkeypatch, "tail", run, terminal=True, width=120).out
    assert "\x1b[?25l" in shown
    assert "\x1b[?25h" in shown
    assert shown.index("WARNING") < shown.index("finished")
    assert shown.rstrip().endswith("\x1b[2K")


@pytest.mark.parametrize("variable", ["NO_COLOR", "TERM"])
def test_colours_can_be_refused(run: Path, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from torchwatch.__main__ import main

    out = Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(variable, {"NO_COLOR": "1", "TERM": "dumb"}[variable])
    assert main(["tail", str(run), "--no-follow"]) == 0
    assert "\x1b[33m" not in out.getvalue()
    assert ("\x1b" in out.getvalue()) is (variable == "NO_COLOR")


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("terminal", [True, False])
def test_hostile_text_is_escaped(
    text: str, terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_run(tmp_path / "hostile.jsonl", hostile_run(text))
    shown = call(monkeypatch, "tail", path, "--no-follow", "--alerts", terminal=terminal)
    assert shown.code == 0
    assert is_harmless(shown.out, colours=terminal)
    json_lines = call(monkeypatch, "tail", path, "--no-follow", "--json").out
    assert json.loads(json_lines.splitlines()[0])["title"] == text
    assert is_harmless(json_lines)
