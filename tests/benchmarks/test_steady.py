"""The long run: its bounds on made-up courses, and a short one through real processes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from benchmarks.steady.steady import FileCounts, Sample, Verdict, count, judge, observe, tables

GOOD = FileCounts(
    size=8000,
    bytes_by_kind={"steps": 7000, "end": 1000},
    scalar_bytes=5000,
    scalar_steps=100,
    steps=200,
    dropped=3,
    dropped_in_intervals=3,
    lost_lines=0,
    complete=True,
)


def course(**late: float) -> list[Sample]:
    """200 looks at a process that grows while it warms up; ``late``: by how much fields grow after that."""
    samples = []
    for step in range(1, 201):
        growth = max(step - 50, 0) / 150
        fields = {"rss_mb": 300.0 + min(step, 50), "threads": 3, "handles": 9, "waiting": 4}
        moved = {k: v + type(v)(late.get(k, 0) * growth) for k, v in fields.items()}
        samples.append(Sample(step=step, seconds=step / 10, **moved))  # type: ignore[arg-type]
    return samples


def broken(samples: list[Sample], counts: FileCounts = GOOD) -> list[str]:
    return [v.what for v in judge(samples, 16, counts, 200) if not v.kept]


def test_a_steady_run_keeps_all_bounds() -> None:
    assert broken(course()) == []
    assert broken(course(rss_mb=9.0)) == []


@pytest.mark.parametrize(
    ("late", "what"),
    [
        ({"rss_mb": 11.0}, "resident memory"),
        ({"threads": 1}, "threads"),
        ({"handles": 2}, "handles"),
        ({"waiting": 13}, "recorder queue"),
    ],
)
def test_growth_after_the_warm_up_breaks_its_bound(late: dict[str, float], what: str) -> None:
    assert broken(course(**late)) == [what]


def test_a_file_that_is_open_for_a_moment_is_no_growth() -> None:
    samples = course()
    samples[120] = dataclasses.replace(samples[120], handles=11)
    assert broken(samples) == []
    samples[120] = dataclasses.replace(samples[120], handles=13)
    assert broken(samples) == ["handles"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"steps": 199}, "steps in the file"),
        ({"dropped": 4}, "dropped step details"),
        ({"complete": False, "dropped": 0, "dropped_in_intervals": 0}, "lost lines"),
        ({"scalar_bytes": 6001}, "bytes a step, `steps` lines without columns"),
    ],
)
def test_the_run_file_must_say_everything(change: dict[str, int], what: str) -> None:
    assert broken(course(), dataclasses.replace(GOOD, **change)) == [what]


def test_the_tables_show_first_and_last_look() -> None:
    text = tables(course(), GOOD, [Verdict("a", "1", "0", kept=False)])
    assert "| 1 | 0 s | 301.0 MB | 3 | 9 | 4 |" in text
    assert "| 200 | 20 s | 350.0 MB | 3 | 9 | 4 |" in text
    assert "| a | 1 | 0 | **broken** |" in text
    assert "Run file: 8,000 bytes, 40.0 a step in all; bytes by kind: steps 7,000, end 1,000." in text


@pytest.mark.slow
def test_a_short_run_is_observed_and_counted(tmp_path: Path) -> None:
    samples = observe(tmp_path / "run.jsonl", 400)
    assert [s.step for s in samples] == list(range(2, 401, 2))
    assert all(s.rss_mb > 50 for s in samples)
    counts = count(tmp_path / "run.jsonl")
    assert counts.steps == 400
    assert counts.complete
    assert counts.size == sum(counts.bytes_by_kind.values())
    assert 0 < counts.scalar_bytes <= counts.bytes_by_kind["steps"]
    assert observe(tmp_path / "none.jsonl", 20, bare=True)[-1].waiting == 0
    assert not (tmp_path / "none.jsonl").exists()
