"""Two runs beside each other, from real files and hand-made ones."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from tests.helpers_checks import records
from torchwatch.comparison import compare
from torchwatch.comparison.plot import draw_comparison
from torchwatch.errors import NotARunFile
from torchwatch.records import End, Record, RunHeader, encode


def write(path: Path, lines: list[Record], **header: Any) -> Path:
    first = lines[0]
    assert isinstance(first, RunHeader)
    body = [dataclasses.replace(first, run_id=path.stem, **header), *lines[1:], End(step=300, steps=300)]
    path.write_bytes(b"".join(map(encode, body)))
    return path


def falling(n: int) -> float:
    return 0.2 + 2 / (1 + n / 30)


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    one = records(loss=[falling(n) for n in range(1, 301)], samples=32, evals={300: {"val_loss": 0.5}})
    other = records(
        loss=[falling(n) if n <= 150 else math.nan for n in range(1, 301)],
        samples=64,
        evals={300: {"val_loss": 0.9}},
    )
    return (
        write(tmp_path / "good.jsonl", one, hyperparameters={"lr": 0.1, "model": {"width": 4}}),
        write(tmp_path / "bad.jsonl", other, hyperparameters={"lr": 0.5, "model": {"width": 4}}),
    )


def test_settings_curves_and_checks(two: tuple[Path, Path]) -> None:
    found = compare(two)
    assert [run.name for run in found.runs] == ["good", "bad"]
    settings = {d.name: d.values for d in found.settings}
    assert settings["hyperparameters.lr"] == (0.1, 0.5)
    assert settings["samples per step"] == (32, 64)
    assert "hyperparameters.model.width" not in settings
    assert "run_id" not in settings
    assert found.checks["loss-nonfinite"] == (None, "critical")
    assert found.partings[0].identical_until == 150
    assert found.runs[0].best == ("val_loss", 300, 0.5)
    assert found.runs[0].last_loss == pytest.approx(falling(293), rel=0.05)


def test_json_is_plain_and_the_picture_is_one(two: tuple[Path, Path]) -> None:
    import orjson

    found = compare(two)
    body = orjson.loads(orjson.dumps(found.as_json()))
    assert body["settings"]["hyperparameters.lr"] == [0.1, 0.5]
    assert [r["diagnosis"]["status"] for r in body["runs"]] == ["finished", "finished"]
    assert draw_comparison(found).startswith(b"\x89PNG")


def test_a_run_and_itself(two: tuple[Path, Path]) -> None:
    found = compare([two[0], two[0]])
    assert (found.settings, dict(found.checks)) == ((), {})
    assert found.runs[0].name != "", "two files of one name are told apart by their paths"


def test_what_is_no_run_is_refused(two: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(NotARunFile):
        compare([two[0], tmp_path / "nothing.jsonl"])
    with pytest.raises(ValueError, match="two"):
        compare([two[0]])
