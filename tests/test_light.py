"""The command line starts in a blink, and reading a run never loads torch."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers_runs import faulty_run, whole_run, write_run
from torchwatch.commands import TABLE

ROOT = Path(__file__).resolve().parent.parent


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=ROOT, timeout=60
    )


def loaded_after(program: str) -> set[str]:
    """Top-level modules and our own ones that a program loads."""
    done = python("-c", f"{program}\nimport sys, json; sys.stderr.write(json.dumps(list(sys.modules)))")
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr[done.stderr.rindex("[") :]))


def test_import_is_under_50_ms_and_without_torch_or_numpy() -> None:
    best_us = 10**9
    for _ in range(3):
        done = python("-X", "importtime", "-c", "import torchwatch, sys; print(*sys.modules)")
        assert done.returncode == 0
        assert not {"torch", "numpy", "rich", "click"} & set(done.stdout.split())
        row = next(line for line in done.stderr.splitlines() if line.endswith("| torchwatch"))
        best_us = min(best_us, int(row.split("|")[1]))
    assert best_us < 50_000


@pytest.mark.parametrize(
    "arguments",
    [
        ["tail", "RUN"],
        ["tail", "RUN", "--json"],
        ["tail", "RUN", "--no-follow", "--log-file", "LOG"],
        ["status", "RUN"],
        ["diagnose", "RUN"],
        ["diagnose", "RUN", "--json"],
        ["postmortem", "RUN", "--out", "OUT"],
        ["checks"],
        ["explain", "overfitting"],
    ],
    ids=" ".join,
)
def test_reading_never_loads_torch(arguments: list[str], tmp_path: Path) -> None:
    run = write_run(tmp_path / "run.jsonl", whole_run())
    names = {"RUN": str(run), "LOG": str(tmp_path / "log.txt"), "OUT": str(tmp_path / "out")}
    call = [names.get(a, a) for a in arguments]
    loaded = loaded_after(f"from torchwatch.__main__ import main\nassert main({call!r}) == 0")
    assert not {"torch", "sklearn", "captum"} & loaded


def test_reading_from_python_never_loads_torch(tmp_path: Path) -> None:
    run = str(write_run(tmp_path / "run.jsonl", faulty_run()))
    loaded = loaded_after(f"import torchwatch; torchwatch.diagnose({run!r}); torchwatch.read_run({run!r})")
    assert "torch" not in loaded


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["tail", "--help"]])
def test_help_loads_no_other_command_and_nothing_heavy(arguments: list[str]) -> None:
    loaded = loaded_after(f"from torchwatch.__main__ import main\nassert main({arguments!r}) == 0")
    commands = {module for module, _ in TABLE.values()} & loaded
    assert commands == ({"torchwatch.commands.tail"} if arguments[0] == "tail" else set())
    assert not {"torch", "numpy", "rich", "matplotlib", "jinja2", "orjson"} & loaded


def test_help_of_tail_takes_under_four_tenths_of_a_second() -> None:
    best_s = 10.0
    for _ in range(3):
        began_s = time.perf_counter()
        done = python("-m", "torchwatch", "tail", "--help")
        best_s = min(best_s, time.perf_counter() - began_s)
        assert done.returncode == 0
        assert re.search(r"Usage: \S+ tail", done.stdout)
    assert best_s < 0.4
