import errno
import io
import os
import random
import stat
from pathlib import Path

import pytest

from tests.helpers_runs import alert, header, hostile_run, is_harmless, steps, whole_run
from torchwatch.records import End, Note
from torchwatch.sinks.terminal import TerminalSink


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLORTERM", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def shown(records, stream: io.StringIO, **options) -> str:
    sink = TerminalSink(stream, **options)
    for record in records:
        sink.write(record)
    sink.close()
    return stream.getvalue()


def test_healthy_run_is_one_line() -> None:
    records = [header(), *steps(1, 100), End(steps=100, epochs=1, time_s=10.0, health_score=100)]
    assert shown(records, io.StringIO()) == (
        "finished  100 steps, 1 epoch in 10.0 s · health 100/100 (excellent)\n"
    )


def test_alert_note_and_end_come_in_order() -> None:
    text = shown(whole_run(), io.StringIO()).splitlines()
    assert [line.split()[0] for line in text] == ["WARNING", "fix:", "note", "finished"]


def test_colours_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[33m" in shown([alert()], Terminal())
    assert "\x1b" not in shown([alert()], io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[33m" not in shown([alert()], Terminal())


def test_dumb_terminal_gets_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in shown([alert()], Terminal())


def test_default_stream_is_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    sink = TerminalSink()
    sink.write(alert())
    sink.close()
    assert capsys.readouterr().err.startswith("WARNING")


def test_close_shows_what_was_held_back() -> None:
    assert "… and 2 more" in shown([alert(layer=f"l{i}") for i in range(5)], io.StringIO())


@pytest.mark.parametrize("terminal", [True, False])
def test_log_file_is_plain_and_private(tmp_path: Path, terminal: bool) -> None:
    log = tmp_path / "run.log"
    stream = Terminal() if terminal else io.StringIO()
    shown(whole_run(), stream, log_file=log)
    lines = log.read_text().splitlines()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert is_harmless(log.read_text())
    assert lines[0].startswith("run       digits")
    assert "WARNING   step 60  dead-units  conv2  92 % of units are dead" in lines
    assert lines[-1].startswith("finished  100 steps")
    assert [line.split(" · ")[0] for line in lines if line.startswith("step")] == [
        "step 1",
        "step 51",
        "step 100",
    ]


def test_log_file_is_appended_to(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    log.write_text("before\n")
    shown([alert()], io.StringIO(), log_file=log)
    assert log.read_text().startswith("before\nWARNING")


def test_log_file_is_opened_at_the_first_line(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    sink = TerminalSink(io.StringIO(), log_file=log)
    assert not log.exists()
    sink.write(alert())
    assert log.exists()
    sink.close()


def test_log_file_that_fails_says_so_once(tmp_path: Path) -> None:
    log = tmp_path / "nowhere" / "run.log"
    text = shown(whole_run(), io.StringIO(), log_file=log)
    assert text.count("cannot be written: No such file or directory; it ends here") == 1
    assert "WARNING" in text


def test_full_disk_ends_the_log_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("torchwatch.sinks.logfile.os.write", full)
    text = shown(whole_run(), io.StringIO(), log_file=tmp_path / "run.log")
    assert text.count("No space left on device") == 1
    assert text.splitlines()[-1].startswith("finished")


@pytest.mark.parametrize("text", ["\x1b[31m\n[red]<script>\u202e", "y" * 10_000])
def test_hostile_text_reaches_neither_terminal_nor_file_raw(tmp_path: Path, text: str) -> None:
    log = tmp_path / "run.log"
    ours = shown(hostile_run(text), Terminal(), log_file=log).replace("\r\x1b[2K", "")
    assert is_harmless(ours, colours=True)
    assert is_harmless(log.read_text())
    assert max(len(line) for line in log.read_text().splitlines()) < 3000


def test_stream_that_cannot_encode_does_not_stop_the_sink() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", errors="backslashreplace")
    sink = TerminalSink(stream)
    sink.write(Note(message="Schicht → 層"))
    sink.close()
    stream.flush()
    assert raw.getvalue().decode("ascii").startswith("note      Schicht \\u2192")


def test_showing_draws_nothing_from_the_random_generators() -> None:
    TerminalSink(Terminal()).write(alert(fix="word " * 60))
    before = random.getstate()
    shown([*whole_run(), *(alert(layer=f"l{i}", fix="word " * 60) for i in range(9))], Terminal())
    assert random.getstate() == before


class ClosedPipe(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_closed_standard_error_is_an_ordinary_error(capfd: pytest.CaptureFixture[str]) -> None:
    """Rich would end the process and point the host's standard output at nothing."""
    sink = TerminalSink(ClosedPipe())
    with pytest.raises(BrokenPipeError):
        sink.write(alert())
    os.write(1, b"still there")
    assert capfd.readouterr().out == "still there"


def test_a_progress_bar_of_the_host_makes_room_on_a_terminal_only() -> None:
    assert shown([alert()], Terminal()).startswith("\r\x1b[2K")
    assert "\r" not in shown([alert()], io.StringIO())
