"""The examples of ``docs/integrations`` run as they stand, also in two processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers_replay import assert_live_equals_replay, steps_in
from tests.helpers_torchrun import distributed, environment, run, torchrun
from torchwatch import read_run
from torchwatch.records import Alert, RunHeader

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
RUNS = {
    "accelerate": "runs/digits.jsonl",
    "lightning": "out/torchwatch.jsonl",
    "transformers": "out/torchwatch.jsonl",
}
IN_TWO = ("accelerate", "transformers")
"""Whose examples torchrun starts as they stand; a Lightning Trainer is told how many processes there are."""

slow = pytest.mark.slow


def example(page: str) -> str:
    """The page's first block of Python."""
    return (DOCS / "integrations" / f"{page}.md").read_text().split("```python\n", 1)[1].split("```", 1)[0]


def torchwatch(folder: Path, *arguments: str) -> str:
    return run(folder, "-m", "torchwatch", *arguments).stdout


def warned(path: Path) -> list[str]:
    """Warnings about the training; how fast it runs is up to whoever shares the machine."""
    found = [r for r in assert_live_equals_replay(path) if isinstance(r, Alert)]
    ours = [a for a in found if a.severity != "info" and a.category not in ("throughput", "system")]
    return [f"{alert.check}: {alert.title}" for alert in ours]


def test_the_page_of_torchrun_shows_the_example() -> None:
    assert example("torchrun") == (DOCS / "examples" / "torchrun_ddp.py").read_text()


@slow
@pytest.mark.parametrize("page", RUNS)
def test_an_example_runs_and_is_healthy(page: str, tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(example(page))
    run(tmp_path, "example.py", ACCELERATE_USE_CPU="true")
    path = tmp_path / RUNS[page]
    assert warned(path) == []
    found = read_run(path)
    losses = found["loss"].values
    assert losses[-20:].mean() < losses[:20].mean() / 2
    assert " · finished: " in torchwatch(tmp_path, "diagnose", RUNS[page]).splitlines()[0]
    assert (tmp_path / "out" / "autopsy" / "report.html").is_file() == (page == "lightning")


@slow
@distributed
@pytest.mark.parametrize("page", IN_TWO)
def test_an_example_in_two_processes(page: str, tmp_path: Path) -> None:
    """Each rank has its file, and the main one alone prints."""
    (tmp_path / "example.py").write_text(example(page))
    ran = torchrun(tmp_path, "example.py", ACCELERATE_USE_CPU="true")
    path = tmp_path / RUNS[page]
    for rank, name in enumerate((path.name, f"{path.stem}.rank1.jsonl")):
        header = assert_live_equals_replay(path.with_name(name))[0]
        assert isinstance(header, RunHeader)
        assert (header.rank, header.world) == (rank, 2)
        assert warned(path.with_name(name)) == []
    assert ran.stderr.count("finished  ") == 1
    steps = [
        steps_in(assert_live_equals_replay(p)) for p in (path, path.with_name(f"{path.stem}.rank1.jsonl"))
    ]
    assert len(steps[0]) == len(steps[1])
    assert "rank 1    finished" in torchwatch(tmp_path, "tail", RUNS[page], "--no-follow")


@slow
@distributed
@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_ranks_of_torchrun_are_shown_together(kind: str, tmp_path: Path) -> None:
    """Followed while it trains, and diagnosed afterwards."""
    tail = subprocess.Popen(
        [sys.executable, "-m", "torchwatch", "tail", "run.jsonl", "--wait"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        torchrun(tmp_path, DOCS / "examples" / f"torchrun_{kind}.py", "run.jsonl", EPOCHS="3")
        followed = tail.communicate(timeout=60)[0].splitlines()
    finally:
        tail.kill()
    assert {p.name for p in tmp_path.glob("*.jsonl")} == {"run.jsonl", "run.rank1.jsonl"}
    assert followed[0].endswith("rank 0 of 2")
    ends = [line.split(" in ")[0] for line in followed if "finished" in line]
    assert sorted(ends) == ["finished  84 steps, 3 epochs", "rank 1    finished  84 steps, 3 epochs"]
    for name in ("run.jsonl", "run.rank1.jsonl"):
        assert warned(tmp_path / name) == []
    shown = torchwatch(tmp_path, "diagnose", "run.jsonl").splitlines()
    assert shown[1].strip() == "rank 0 of 2 was judged; 2 ranks with a file"
    assert any(line.startswith("rank 1    finished: 84 steps, health ") for line in shown)
    joined = read_run(tmp_path / "run.jsonl")
    assert [run.header.rank for run in joined.ranks] == [0, 1]
    assert len(joined["loss"].values) == 84
    assert len(joined["grad_norm"].values) > 0  # the budget decides how many


@slow
@distributed
def test_a_fault_of_all_ranks_is_said_once(tmp_path: Path) -> None:
    torchrun(tmp_path, DOCS / "examples" / "torchrun_ddp.py", "run.jsonl", EPOCHS="3", LEARNING_RATE="0")
    lines = torchwatch(tmp_path, "tail", "run.jsonl", "--no-follow").splitlines()
    assert sum("lr-zero" in line for line in lines) == 1
    told = [
        json.loads(line)
        for line in torchwatch(tmp_path, "tail", "run.jsonl", "--no-follow", "--json").splitlines()
    ]
    assert {line.get("rank", 0) for line in told if line.get("check") == "lr-zero"} == {0, 1}
    assert any(
        line.startswith("rank 1    finished") and "lr-zero" in line
        for line in torchwatch(tmp_path, "diagnose", "run.jsonl").splitlines()
    )
