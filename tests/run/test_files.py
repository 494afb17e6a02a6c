"""Which files are ranks of the same run."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest

from tests.run.ranks import header, write
from torchwatch.run import rank_files

if TYPE_CHECKING:
    from pathlib import Path


def found(path: Path, world: int = 2) -> tuple[list[str], list[str]]:
    files = rank_files(path, header(0, world))
    return [p.name for p in files.paths], files.gaps


def put(folder: Path, name: str, rank: int, world: int = 2, after_s: float = 0.0) -> Path:
    return write(folder / name, header(rank, world, after_s))


def test_the_files_of_all_ranks_in_their_order(tmp_path: Path) -> None:
    path = put(tmp_path, "run.jsonl", 0, 12)
    for rank in range(11, 0, -1):
        put(tmp_path, f"run.rank{rank}.jsonl", rank, 12, after_s=rank / 10)
    for name in (
        "run.rank2.json",
        "run.rank.jsonl",
        "other.rank1.jsonl",
        "run.rank12.jsonl",
        "runxrank1.jsonl",
    ):
        put(tmp_path, name, 1, 12)
    assert found(path, 12) == ([f"run.rank{r}.jsonl" for r in range(1, 12)], [])


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ([], "no file of ranks 1 to 5 of 6"),
        ([3], "no file of ranks 1 to 2, 4 to 5 of 6"),
        ([1, 2, 4, 5], "no file of rank 3 of 6"),
        ([2, 3, 4], "no file of ranks 1, 5 of 6"),
    ],
)
def test_ranks_without_a_file_are_said(tmp_path: Path, there: list[int], said: str) -> None:
    path = put(tmp_path, "run.jsonl", 0, 6)
    for rank in there:
        put(tmp_path, f"run.rank{rank}.jsonl", rank, 6)
    assert found(path, 6) == ([f"run.rank{r}.jsonl" for r in there], [said])


def test_a_number_of_ranks_that_makes_no_sense(tmp_path: Path) -> None:
    """It comes from a file: nothing is counted up to it."""
    path = put(tmp_path, "run.jsonl", 0, 10**15)
    assert found(path, 10**15) == ([], [f"no file of ranks 1 to {10**15 - 1} of {10**15}"])
    assert found(path, -3) == ([], [])


def test_only_rank_0_of_several_has_others(tmp_path: Path) -> None:
    put(tmp_path, "run.jsonl", 0, 2)
    put(tmp_path, "run.rank1.jsonl", 1, 2)
    assert rank_files(tmp_path / "run.rank1.jsonl", header(1, 2)).gaps == []
    assert found(tmp_path / "run.jsonl", 1) == ([], [])


def test_files_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    path = put(tmp_path, "run.jsonl", 0, 4)
    (tmp_path / "run.rank1.jsonl").write_bytes(b"")
    (tmp_path / "run.rank2.jsonl").write_bytes(b'{"kind":"run","schema":99}\n')
    (tmp_path / "run.rank3.jsonl").mkdir()
    paths, gaps = found(path, 4)
    assert paths == []
    assert [gap.split(":")[0] for gap in gaps] == ["rank 1", "rank 2", "rank 3"]
    assert ["is empty" in gaps[0], "schema 99" in gaps[1], "is a directory" in gaps[2]] == [True] * 3


@pytest.mark.parametrize(
    ("rank", "world", "after_s"), [(1, 4, 0.0), (0, 2, 0.0), (1, 2, 700.0), (1, 2, -3600.0)]
)
def test_a_file_of_another_run_is_left_alone(tmp_path: Path, rank: int, world: int, after_s: float) -> None:
    path = put(tmp_path, "run.jsonl", 0)
    put(tmp_path, "run.rank1.jsonl", rank, world, after_s)
    assert found(path) == ([], ["rank 1: run.rank1.jsonl is of another run"])


def test_the_numbers_of_repeated_runs_need_not_agree(tmp_path: Path) -> None:
    """The first time rank 0 alone was watched; its path was taken the second time, rank 1's was not."""
    first, second = put(tmp_path, "run.jsonl", 0), put(tmp_path, "run-2.jsonl", 0, after_s=400)
    put(tmp_path, "run.rank1.jsonl", 1, after_s=401)
    third = put(tmp_path, "run-3.jsonl", 0, after_s=500)
    put(tmp_path, "run.rank1-2.jsonl", 1, after_s=499)

    def of(path: Path, after_s: float) -> list[str]:
        return [p.name for p in rank_files(path, header(0, 2, after_s)).paths]

    assert of(first, 0) == []
    assert of(second, 400) == ["run.rank1.jsonl"]
    assert of(third, 500) == ["run.rank1-2.jsonl"]


def test_of_two_files_of_a_rank_the_nearest_counts(tmp_path: Path) -> None:
    path = put(tmp_path, "run.jsonl", 0)
    put(tmp_path, "run.rank1.jsonl", 1, after_s=-500)
    put(tmp_path, "run.rank1-2.jsonl", 1, after_s=2)
    assert found(path) == (["run.rank1-2.jsonl"], [])


def test_runs_of_a_sweep_are_no_repeats_of_each_other(tmp_path: Path) -> None:
    """lr-3 and lr-4 are names that a user gave to runs which began together."""
    for number in (3, 4):
        put(tmp_path, f"lr-{number}.jsonl", 0)
        put(tmp_path, f"lr-{number}.rank1.jsonl", 1)
    assert found(tmp_path / "lr-3.jsonl") == (["lr-3.rank1.jsonl"], [])
    assert found(tmp_path / "lr-4.jsonl") == (["lr-4.rank1.jsonl"], [])


def test_compressed_files_and_times_that_say_nothing(tmp_path: Path) -> None:
    path = put(tmp_path, "run.jsonl", 0)
    path = path.rename(tmp_path / "run.jsonl.gz")
    path.write_bytes(gzip.compress(path.read_bytes()))
    other = write(tmp_path / "run.rank1.jsonl", header(1, time="yesterday"))
    assert found(path) == (["run.rank1.jsonl"], [])
    other.rename(tmp_path / "run.rank1.jsonl.gz")
    assert found(path) == (["run.rank1.jsonl.gz"], [])


def test_names_from_the_disk_are_shown_escaped(tmp_path: Path) -> None:
    path = put(tmp_path, "a\x1b[2J.jsonl", 0)
    put(tmp_path, "a\x1b[2J.rank1.jsonl", 1, after_s=9999)
    (gap,) = found(path)[1]
    assert gap == "rank 1: a\\x1b[2J.rank1.jsonl is of another run"
