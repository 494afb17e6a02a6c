import errno
import importlib
import io
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tests.helpers_cli import call
from tests.helpers_runs import faulty_run, whole_run, write_run
from torchwatch import __version__
from torchwatch.__main__ import main
from torchwatch.commands import TABLE


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run.jsonl", whole_run())


def test_help_lists_every_command_with_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = call(monkeypatch, "--help")
    assert shown.code == 0
    for name, (_, line) in TABLE.items():
        assert f"  {name}" in shown.out
        assert line in shown.out


def test_no_command_shows_the_help_and_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = call(monkeypatch)
    assert shown.code == 2
    assert "Commands:" in shown.err
    assert shown.out == ""


def test_version(monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(monkeypatch, "--version").out == f"torchwatch {__version__}\n"


@pytest.mark.parametrize("name", TABLE)
def test_every_command_has_json_an_example_and_its_own_name(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = importlib.import_module(TABLE[name][0]).command
    assert isinstance(command, click.Command)
    assert command.name == name
    shown = call(monkeypatch, name, "--help")
    assert shown.code == 0
    assert "--json" in shown.out
    assert f"Example:\n    torchwatch {name}" in shown.out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["explian"], "there is no command 'explian'; did you mean 'explain'?; see `torchwatch --help`"),
        (["nonsense"], "no such command 'nonsense'; see `torchwatch --help`"),
        (["tail"], "missing argument 'RUN'; see `torchwatch tail --help`"),
        (["tail", "x", "--colour"], "no such option '--colour'; see `torchwatch tail --help`"),
        (["diagnose", "x", "--fail-on", "info"], "'info' is not one of 'critical', 'warning'"),
    ],
)
def test_wrong_use_is_one_sentence_and_code_2(
    arguments: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = call(monkeypatch, *arguments)
    assert shown.code == 2
    assert shown.out == ""
    assert sentence.lower() in shown.err.lower()
    assert shown.err.count("\n") == 1


def test_interrupt_is_quiet(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("torchwatch.diagnosis.diagnose", interrupted)
    shown = call(monkeypatch, "diagnose", run)
    assert (shown.code, shown.out, shown.err) == (130, "", "")


def test_fault_of_ours_is_a_sentence_that_says_so(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("wires\ncrossed")

    monkeypatch.setattr("torchwatch.diagnosis.diagnose", broken)
    shown = call(monkeypatch, "diagnose", run)
    assert shown.code == 70
    assert shown.err == (
        "torchwatch: unexpected RuntimeError: wires\\ncrossed; this is a fault of torchwatch, "
        "TORCHWATCH_TRACEBACK=1 shows where\n"
    )
    monkeypatch.setenv("TORCHWATCH_TRACEBACK", "1")
    with pytest.raises(RuntimeError, match="wires"):
        call(monkeypatch, "diagnose", run)


def test_operating_system_error_names_the_file(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(run))

    monkeypatch.setattr("torchwatch.diagnosis.diagnose", refused)
    shown = call(monkeypatch, "diagnose", run)
    assert (shown.code, shown.err) == (2, f"torchwatch: {run}: Permission denied\n")


def test_hostile_argument_is_shown_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = call(monkeypatch, "tail", "\x1b[31mred\nfile")
    assert shown.code == 2
    assert shown.err.startswith("torchwatch: there is no file \\x1b[31mred\\nfile")


@pytest.mark.parametrize("level", ["critical", "warning"])
@pytest.mark.parametrize("command", ["diagnose", "status"])
def test_fail_on_gives_code_1_only_when_found(
    command: str, level: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = write_run(tmp_path / "bad.jsonl", faulty_run())
    assert call(monkeypatch, command, bad).code == 0
    assert call(monkeypatch, command, bad, "--fail-on", level).code == 1
    assert call(monkeypatch, command, bad, "--fail-on", level, "--json").code == 1
    assert call(monkeypatch, command, run, "--fail-on", level).code == 0


class ClosedPipe(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


@pytest.mark.parametrize(
    "arguments",
    [
        ["checks"],
        ["checks", "--json"],
        ["explain", "overfitting"],
        ["tail", "RUN"],
        ["tail", "RUN", "--json"],
        ["status", "RUN"],
        ["diagnose", "RUN"],
        ["--help"],
    ],
    ids=" ".join,
)
def test_reader_that_went_away_is_no_error(
    arguments: list[str], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    err = io.StringIO()
    monkeypatch.setattr(sys, "stdout", ClosedPipe())
    monkeypatch.setattr(sys, "stderr", err)
    assert main([str(run) if a == "RUN" else a for a in arguments]) == 141
    assert err.getvalue() == ""


def test_closed_pipe_is_quiet_until_the_process_is_gone() -> None:
    program = (
        "import os, sys; from torchwatch.__main__ import main; r, w = os.pipe();"
        "os.dup2(w, 1); os.close(w); os.close(r);"
        "sys.exit(main(['checks', '--json']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")
