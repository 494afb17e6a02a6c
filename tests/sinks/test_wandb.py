"""Weights & Biases, offline: what it wrote is read back from its transaction log."""

from __future__ import annotations

import itertools
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb

from tests.helpers_runs import alert, header, hostile_run, steps, whole_run
from tests.helpers_wandb import history, offline_runs, records
from torchwatch.errors import MissingExtra, UsageError
from torchwatch.records import End
from torchwatch.sinks.wandb import COLUMNS, WandbSink, log_report


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("WANDB_PROJECT", "WANDB_NAME", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    yield
    wandb.teardown()


def run_through(sink: WandbSink, told: list[Any]) -> dict[str, int]:
    for record in told[:-1]:
        sink.write(record)
    sink.drain(30)
    counts = sink.counts()
    sink.write(told[-1])
    sink.drain(30)
    sink.close()
    return counts


def theirs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that hold something of the loop's, without ours and without times."""
    found = [{k: v for k, v in r.items() if k in ("_step", "mine", "other")} for r in rows]
    return [r for r in found if len(r) > 1]


def ours(rows: list[dict[str, Any]], name: str) -> dict[int, Any]:
    """Values of ours by the step that they are about."""
    return {r["torchwatch/step"]: r[f"torchwatch/{name}"] for r in rows if f"torchwatch/{name}" in r}


def summary(path: Path) -> dict[str, Any]:
    last: dict[str, Any] = {}
    for record in records(path):
        if record.WhichOneof("record_type") == "summary":
            items = record.summary.update
            last |= {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}
    return last


def test_a_run_of_its_own(tmp_path: Path) -> None:
    counts = run_through(WandbSink("digits-project"), whole_run())
    assert counts["undelivered"] == 0
    assert counts["delivered"] > 10
    (path,) = offline_runs(tmp_path)
    rows = history(path)
    expected = {s.step: s.loss for s in steps(1, 100) if s.step % 10 == 1 or s.step == 100}
    assert ours(rows, "loss") == pytest.approx(expected)
    assert ours(rows, "health_score") == {1: 100, 61: 93}
    assert ours(rows, "metric/val_accuracy") == {100: 0.9}
    told = summary(path)
    assert (told["torchwatch/health_score"], told["torchwatch/issues/warning"]) == (93, 1)
    assert told["torchwatch/status"] == "finished"
    run = next(r.run for r in records(path) if r.WhichOneof("record_type") == "run")
    assert (run.project, run.display_name) == ("digits-project", "digits")
    assert [r.exit.exit_code for r in records(path) if r.WhichOneof("record_type") == "exit"] == [0]


@pytest.mark.slow
def test_the_x_axis_is_the_step_of_the_run_file(tmp_path: Path) -> None:
    run_through(WandbSink(), whole_run())
    (path,) = offline_runs(tmp_path)
    metrics = [r.metric for r in records(path) if r.WhichOneof("record_type") == "metric"]
    axes = {m.glob_name or m.name: m.step_metric for m in metrics}
    assert axes["torchwatch/*"] == "torchwatch/step"


def test_issues_are_a_table(tmp_path: Path) -> None:
    more = [
        alert(severity="critical", state="updated", title="\x1b[2Jworse"),
        alert(layer=None, check="stall"),
    ]
    run_through(WandbSink(), [*whole_run()[:-1], *more, whole_run()[-1]])
    (table,) = tmp_path.rglob("issues_*.table.json")
    body = json.loads(table.read_text())
    assert body["columns"] == list(COLUMNS)
    assert [row[:4] for row in body["data"]] == [
        ["dead-units", "critical", "updated", "conv2"],
        ["stall", "warning", "opened", ""],
    ]
    assert "\x1b" not in table.read_text()


LOOPS = {
    "counted by W&B": lambda run, i: run.log({"mine": i}),
    "numbered by the loop": lambda run, i: run.log({"mine": i}, step=3 * i),
    "in parts": lambda run, i: (run.log({"mine": i}, step=3 * i), run.log({"other": i}, commit=i % 2 == 0)),
    "rarely": lambda run, i: run.log({"mine": i}) if i % 20 == 0 else None,
}


@pytest.mark.parametrize(
    "how", [how if how == "rarely" else pytest.param(how, marks=pytest.mark.slow) for how in LOOPS]
)
def test_a_guest_never_moves_the_steps_of_an_active_run(tmp_path: Path, how: str) -> None:
    told = whole_run()

    def loop(sink: WandbSink | None) -> None:
        run = wandb.init(project="theirs")
        sent = iter(told[:-1])
        for i in range(60):
            LOOPS[how](run, i)
            if sink is not None:
                for record in itertools.islice(sent, 2):
                    sink.write(record)
                sink.side.drain(10)
        if sink is not None:
            run_through(sink, [*sent, told[-1]])
            assert wandb.run is run, "still theirs, and not finished"
        run.log({"mine": 60})
        run.finish()

    for sink in (None, WandbSink()):
        loop(sink)
    alone, visited = (history(path) for path in offline_runs(tmp_path))
    assert theirs(visited) == theirs(alone)
    assert ours(visited, "loss"), "our numbers ride along"
    assert any(r.get("torchwatch/issues/_type") == "table-file" for r in visited)
    assert summary(offline_runs(tmp_path)[1])["torchwatch/health_score"] == 93


@pytest.mark.slow
def test_a_run_can_be_given_and_ours_never_becomes_the_active_one(tmp_path: Path) -> None:
    run_through(sink := WandbSink(), whole_run())
    assert wandb.run is None
    assert sink.said() == []
    theirs = wandb.init(project="theirs", reinit="create_new")
    run_through(WandbSink(run=theirs), whole_run())
    theirs.finish()
    assert len(offline_runs(tmp_path)) == 2


@pytest.mark.slow
def test_where_nobody_is_logged_in_it_is_offline_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE")
    sink = WandbSink()
    run_through(sink, whole_run())
    assert ["offline" in sentence for sentence in sink.said()] == [True]
    assert len(offline_runs(tmp_path)) == 1


@pytest.mark.slow
def test_a_crash_is_told(tmp_path: Path) -> None:
    run_through(WandbSink(), [header(), *steps(1, 3), End(status="crashed", step=3)])
    (path,) = offline_runs(tmp_path)
    assert summary(path)["torchwatch/status"] == "crashed"
    assert [r.exit.exit_code for r in records(path) if r.WhichOneof("record_type") == "exit"] == [1]


def test_only_the_first_rank_logs(tmp_path: Path) -> None:
    sink = WandbSink()
    counts = run_through(sink, [header(rank=1, world=2), *steps(1, 3), End()])
    assert counts == {"delivered": 0, "undelivered": 0}
    assert "only rank 0 logs" in sink.said()[0]
    assert offline_runs(tmp_path) == []


@pytest.mark.slow
def test_a_run_that_the_loop_finished_is_named_not_passed_over() -> None:
    run = wandb.init(project="theirs")
    sink = WandbSink()
    sink.write(header())
    sink.write(steps(1, 1)[0])
    sink.side.drain(10)
    run.finish()
    for record in steps(2, 30):
        sink.write(record)
    with pytest.raises(wandb.errors.UsageError, match="finished"):
        sink.drain(10)
    counts = sink.counts()
    assert counts["delivered"] == 2
    assert counts["undelivered"] >= 2


@pytest.mark.slow
def test_hostile_text_is_logged(tmp_path: Path) -> None:
    assert run_through(WandbSink(), hostile_run("\x1b[2J \ud800 \x00"))["undelivered"] == 0
    assert len(offline_runs(tmp_path)) == 1


@pytest.mark.slow
def test_pictures_of_a_report(tmp_path: Path) -> None:
    from PIL import Image

    report = tmp_path / "report"
    report.mkdir()
    Image.new("RGB", (4, 3)).save(report / "loss.png")
    with pytest.raises(UsageError, match="no active W&B run"):
        log_report(report)
    run = wandb.init(project="theirs")
    run.log({"mine": 1})
    assert log_report(report) == 1
    run.log({"mine": 2})
    run.finish()
    (path,) = offline_runs(tmp_path)
    assert [r["_step"] for r in history(path)] == [0, 1]
    assert list(tmp_path.rglob("media/images/torchwatch/report/loss_*.png"))


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtra, match=r"pip install 'torchwatch-monitor\[wandb\]'"):
        WandbSink()


@pytest.mark.slow
def test_the_host_s_random_numbers_and_streams_stay_what_they_are() -> None:
    random.seed(5)
    before, out, err = random.getstate(), sys.stdout, sys.stderr
    run_through(WandbSink(), whole_run())
    assert random.getstate() == before
    assert (sys.stdout, sys.stderr) == (out, err)
