from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from torchwatch.errors import NewerSchema, NotARunFile
from torchwatch.records import (
    MISSING,
    Alert,
    End,
    Epoch,
    Eval,
    Interval,
    LayerInfo,
    Layout,
    Log,
    Note,
    ParameterInfo,
    Record,
    RunHeader,
    Step,
    System,
    batch,
    encode,
    is_missing,
)
from torchwatch.run import contents, read_run

if TYPE_CHECKING:
    from torchwatch.run import Run, Series

HEADER = RunHeader(run_id="r1", name="digits")


def layout(step: int, parameters: int, layers: int = 1) -> Layout:
    return Layout(
        step=step,
        layers=[LayerInfo(str(i), "Linear") for i in range(layers)],
        parameters=[ParameterInfo(f"w{i}", 0, [2], "float32") for i in range(parameters)],
    )


def run_of(folder: Path, *records: Record, name: str = "run.jsonl", more: bytes = b"") -> Run:
    path = folder / name
    path.write_bytes(b"".join(map(encode, [HEADER, *records])) + more)
    return read_run(path)


def pairs(series: Series) -> list[tuple[int, float]]:
    return list(zip(series.steps.tolist(), series.values.tolist(), strict=True))


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


STEPS = [
    Step(step=1, epoch=0, time_s=0.5, loss=2.0, lr=[0.1, 0.3], clipped=True, metrics={"acc": 0.25}),
    Step(step=2, epoch=0, time_s=1.0, lr=[0.1, 0.2], samples=32),
    Step(step=3, epoch=1, time_s=1.5, loss=1.0, clipped=False, metrics={"acc": 0.5, "f1": 0.75}),
]


@pytest.mark.parametrize("together", [False, True], ids=["step", "steps"])
def test_scalars_are_columns_without_what_was_not_measured(tmp_path: Path, together: bool) -> None:
    run = run_of(tmp_path, *([batch(STEPS)] if together else STEPS))
    assert run.header == HEADER
    assert run.steps.tolist() == [1, 2, 3]
    assert pairs(run["loss"]) == [(1, 2.0), (3, 1.0)]
    assert pairs(run["time_s"]) == [(1, 0.5), (2, 1.0), (3, 1.5)]
    assert pairs(run["lr"]) == [(1, 0.3), (2, 0.2)]
    assert pairs(run["clipped"]) == [(1, 1.0), (3, 0.0)]
    assert pairs(run["samples"]) == [(2, 32.0)]
    assert pairs(run.scalar("metrics.acc")) == [(1, 0.25), (3, 0.5)]
    assert pairs(run["metrics.f1"]) == [(3, 0.75)]
    assert run["loss"].steps.dtype == np.int64
    assert run["loss"].values.dtype == np.float64
    assert run.names == ("clipped", "epoch", "loss", "lr", "metrics.acc", "metrics.f1", "samples", "time_s")


def test_measured_as_nan_stays(tmp_path: Path) -> None:
    run = run_of(tmp_path, Step(step=1, loss=math.nan), batch([Step(step=2), Step(step=3, loss=-math.inf)]))
    assert run["loss"].steps.tolist() == [1, 3]
    assert np.array_equal(run["loss"].values, [math.nan, -math.inf], equal_nan=True)


def test_names_that_are_not_there(tmp_path: Path) -> None:
    run = run_of(tmp_path, Step(step=1, loss=1.0))
    assert pairs(run["grad_norm"]) == []
    assert "loss" in run
    assert "grad_norm" not in run
    with pytest.raises(KeyError, match="'los' is not in this run; did you mean 'loss'"):
        run["los"]
    with pytest.raises(KeyError, match="is not in this run"):
        run.scalar("loss_source")


def test_metrics_of_evaluations_and_epochs(tmp_path: Path) -> None:
    run = run_of(
        tmp_path,
        Epoch(epoch=0, step=10, metrics={"val_loss": 9.0, "top5": 0.9}),
        Eval(step=4, metrics={"val_loss": 1.5, "val_f1": None}),
        Eval(step=9, metrics={"val_loss": 1.25}),
    )
    assert pairs(run["val_loss"]) == [(4, 1.5), (9, 1.25)]
    assert pairs(run["val_f1"]) == []
    assert pairs(run["top5"]) == [(10, 0.9)]
    assert "val_loss" in run
    assert "val_loss" in run.names


def test_columns_belong_to_their_layout(tmp_path: Path) -> None:
    one, two = layout(1, 2), layout(5, 3, 2)
    run = run_of(
        tmp_path,
        Step(step=0, grad_norms=column(9, 9)),  # before any layout: nobody knows what it speaks of
        one,
        Step(step=1, grad_norms=column(1, 2), activations={"rms": column(0.5)}),
        batch([Step(step=2), Step(step=3, grad_norms=column(3, MISSING))]),
        two,
        Step(step=5, grad_norms=column(1, 2, 3)),
        Step(step=6, grad_norms=column(1, 2)),  # of another width than the layout
    )
    first, second = run.column_segments("grad_norms")
    assert first.steps.tolist() == [1, 3]
    assert first.layout == one
    assert np.array_equal(is_missing(first.values), [[False, False], [False, True]])
    assert first.values.dtype == np.float32
    assert second.values.tolist() == [[1, 2, 3]]
    latest = run.column("grad_norms")
    assert latest is not None
    assert (latest.layout, latest.every, latest.steps.tolist()) == (two, 1, [5])
    assert run.layout == two
    assert run.column_names == ("activations.rms", "grad_norms")
    assert run.column("weight_norms") is None
    assert run.column_segments("weight_norms") == []


def test_a_layout_with_the_same_names_goes_on(tmp_path: Path) -> None:
    run = run_of(
        tmp_path,
        layout(1, 2),
        Step(step=1, grad_norms=column(1, 2)),
        dataclasses.replace(layout(3, 2), coverage={"loss": "ok"}, flops_per_step=10.0),
        Step(step=3, grad_norms=column(5, 6)),
    )
    seen = run.column("grad_norms")
    assert seen is not None
    assert (seen.steps.tolist(), seen.values.tolist()) == ([1, 3], [[1, 2], [5, 6]])


def test_columns_beyond_the_bound_are_thinned_and_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "COLUMN_BYTES", 20 * (300 + 8))
    many = [Step(step=i, grad_norms=column(i, -i)) for i in range(1, 101)]
    run = run_of(tmp_path, layout(1, 2), *many, Step(step=101, update_ratios=column(0, 0)))
    got = run.column("grad_norms")
    assert got is not None
    assert got.every == 8
    assert got.steps.tolist() == list(range(1, 101, 8))
    assert got.values[:, 0].tolist() == got.steps.tolist()
    assert run.thinned == {"grad_norms": 8}


def test_records_beyond_the_bound_are_thinned_and_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "MOST_RECORDS", 10)
    run = run_of(tmp_path, *(System(step=i) for i in range(25)), *(Alert(step=i) for i in range(25)))
    assert [s.step for s in run.systems] == [0, 4, 8, 12, 16, 20, 24]
    assert len(run.alerts) == 25
    assert run.thinned == {"system": 4}


def test_other_records_and_the_end(tmp_path: Path) -> None:
    others = [
        Interval(index=0, last_step=200, loss_mean=0.5, rss_bytes=7),
        Interval(index=1, last_step=400, loss_mean=math.nan),
        Log(message="m"),
        Note(message="n"),
        Alert(check="dead-units"),
    ]
    run = run_of(tmp_path, *others, End(steps=400))
    assert [i.index for i in run.intervals] == [0, 1]
    assert (run.logs, run.notes, run.alerts) == ([others[2]], [others[3]], [others[4]])
    assert run.end == End(steps=400)
    assert (run.torn, run.complete, run.thinned) == (0, True, {})
    assert run.interval_series("loss_mean").steps.tolist() == [200, 400]
    assert math.isnan(run.interval_series("loss_mean").values[1])
    assert pairs(run.interval_series("rss_bytes")) == [(200, 7.0)]
    for name in ("nothing", "closed_by"):
        with pytest.raises(KeyError, match="no number called"):
            run.interval_series(name)


def test_a_run_is_complete_only_if_it_says_so_itself(tmp_path: Path) -> None:
    assert not run_of(tmp_path, Step(step=1)).complete
    assert not run_of(tmp_path, End(complete=False)).complete
    torn = run_of(tmp_path, End(), more=b'{"kind":')
    assert (torn.torn, torn.complete) == (1, False)


def test_an_empty_run(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    assert run.steps.tolist() == []
    assert pairs(run["loss"]) == []
    assert (run.names, run.column_names, run.layout, run.end) == ((), (), None, None)
    assert repr(run) == f"Run({str(tmp_path / 'run.jsonl')!r})"


def test_the_file_is_read_when_first_asked_for(tmp_path: Path) -> None:
    run = run_of(tmp_path, Step(step=1, loss=1.0))
    with run.path.open("ab") as file:
        file.write(encode(Step(step=2, loss=2.0)))
    assert pairs(run["loss"]) == [(1, 1.0), (2, 2.0)]


def test_a_single_file_is_its_own_only_rank(tmp_path: Path) -> None:
    run = run_of(tmp_path, Step(step=1, loss=1.0), Step(step=2), Step(step=3, loss=0.5))
    assert (run.ranks, run.gaps) == ((run,), ())
    side_by_side = run.across_ranks("loss")
    assert (side_by_side.steps.tolist(), side_by_side.values.tolist()) == ([1, 3], [[1.0], [0.5]])


def test_bad_files_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(NotARunFile):
        read_run(tmp_path / "missing")
    (tmp_path / "newer").write_bytes(encode(HEADER).replace(b'"schema":1', b'"schema":2'))
    with pytest.raises(NewerSchema):
        read_run(str(tmp_path / "newer"))


def test_reading_a_run_does_not_import_torch() -> None:
    code = (
        "import sys, json, torchwatch.run; "
        "print(json.dumps(sorted(set(sys.modules) & {'torch', 'rich', 'matplotlib', 'jinja2', 'psutil'})))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(out.stdout) == []


@pytest.mark.slow
def test_a_million_steps_take_a_fraction_of_a_gibibyte(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    with path.open("wb") as file:
        file.write(encode(HEADER) + encode(layout(1, 40)))
        norms = np.ones(40, np.float32)
        for first in range(1, 1_000_001, 10):
            some = [
                Step(step=i, time_s=i / 100, loss=0.5, lr=[0.1], samples=32, grad_norm=1.5, step_time_s=0.01)
                for i in range(first, first + 10)
            ]
            file.write(encode(batch([*some[:9], Step(step=first + 9, loss=0.5, grad_norms=norms)])))
    code = (
        "import sys; from torchwatch.run import read_run; run = read_run(sys.argv[1]); "
        "assert len(run['loss'].steps) == 1_000_000; "
        "assert run.column('grad_norms').values.nbytes < 1 << 24; "
        # not ru_maxrss: a child inherits its parent's, and this one's parent holds torch
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    out = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert int(out.stdout) * 1024 < 1 << 29
