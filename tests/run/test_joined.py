"""Several ranks as one run: what adds up does, what is the same everywhere counts once, gaps are said."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.run.ranks import SHARDS, column, header, layout, write
from torchwatch.records import MISSING, Alert, End, Interval, Step, batch, encode, is_missing
from torchwatch.run import JoinedRun, Run, read_run

if TYPE_CHECKING:
    from pathlib import Path

    from torchwatch.records import Layout, Record
    from torchwatch.run import Series

WHOLE = layout("w", "b")
SPREAD = layout("w", "b", gradients=SHARDS)


def joined(folder: Path, *ranks: list[Record], world: int | None = None, **fields: object) -> Run:
    """The run of rank 0's file, beside which the others lie."""
    world = world or len(ranks)
    for rank, records in enumerate(ranks):
        name = "run.jsonl" if rank == 0 else f"run.rank{rank}.jsonl"
        write(folder / name, header(rank, world, rank * 0.1, **fields), records)
    return read_run(folder / "run.jsonl")


def pairs(series: Series) -> list[tuple[int, float]]:
    return list(zip(series.steps.tolist(), series.values.tolist(), strict=True))


def test_samples_add_up_and_everything_else_is_rank_0s(tmp_path: Path) -> None:
    def rank(samples: int, loss: float, step_time_s: float) -> list[Record]:
        steps = [
            Step(
                step=i,
                loss=loss,
                samples=samples,
                tokens=10 * samples,
                step_time_s=step_time_s,
                grad_norm=2.0,
            )
            for i in (1, 2)
        ]
        return [WHOLE, *steps, Alert(check=f"of-{samples}"), End(steps=2)]

    run = joined(tmp_path, rank(4, 0.5, 1.0), rank(3, 0.75, 1.5), rank(2, 0.25, 1.25))
    assert pairs(run["samples"]) == [(1, 9), (2, 9)]
    assert pairs(run["tokens"]) == [(1, 90), (2, 90)]
    assert pairs(run["loss"]) == [(1, 0.5), (2, 0.5)]
    assert pairs(run["grad_norm"]) == [(1, 2.0), (2, 2.0)]  # reduced: the same on all ranks, once
    assert pairs(run["step_time_s"]) == [(1, 1.0), (2, 1.0)]
    assert [a.check for a in run.alerts] == ["of-4"]
    assert (run.header.rank, run.complete, run.gaps) == (0, True, ())
    times = run.across_ranks("step_time_s")
    assert times.steps.tolist() == [1, 2]
    assert times.values.tolist() == [[1.0, 1.5, 1.25]] * 2
    assert [r.header.rank for r in run.ranks] == [0, 1, 2]
    assert all(r.ranks == (r,) and not isinstance(r, JoinedRun) for r in run.ranks)
    assert pairs(run.ranks[2]["loss"]) == [(1, 0.25), (2, 0.25)]


def test_columns_of_whole_parameters_are_rank_0s(tmp_path: Path) -> None:
    records = [
        [WHOLE, Step(step=1, grad_norms=column(3, n)), Step(step=2, grad_norms=column(4, n))] for n in (1, 2)
    ]
    run = joined(tmp_path, *records)
    (segment,) = run.column_segments("grad_norms")
    assert segment.values.tolist() == [[3, 1], [4, 1]]
    assert segment.layout == run.layout == WHOLE


def sharded_step(step: int, *norms: float, grad_norm: float | None = None) -> Step:
    return Step(
        step=step,
        grad_norm=grad_norm,
        grad_norms=column(*norms),
        weight_norms=column(*norms),
        update_ratios=column(*norms),
        grad_absmax=column(*norms),
        grad_nonfinite=column(*norms),
        weight_nonfinite=column(*norms),
        activations={"rms": column(norms[0])},
    )


def test_norms_of_shards_are_joined_by_their_squares(tmp_path: Path) -> None:
    run = joined(
        tmp_path,
        [SPREAD, sharded_step(1, 3, 5, grad_norm=6.0)],
        [SPREAD, sharded_step(1, 4, 12, grad_norm=8.0)],
    )
    for name in ("grad_norms", "weight_norms"):
        got = run.column(name)
        assert got is not None
        assert got.values.tolist() == [[5, 13]]
        assert got.values.dtype == np.float32
    assert pairs(run["grad_norm"]) == [(1, 10.0)]
    for name, expected in {
        "grad_absmax": [4, 12],
        "grad_nonfinite": [7, 17],
        "weight_nonfinite": [7, 17],
        "update_ratios": [3, 5],
        "activations.rms": [3],
    }.items():
        got = run.column(name)
        assert got is not None
        assert got.values.tolist() == [expected], name
    assert run.layout is not None
    assert run.layout.coverage["gradients"] == "ok"
    assert run.ranks[0].layout == SPREAD


def test_a_rank_whose_shard_is_empty_adds_nothing(tmp_path: Path) -> None:
    run = joined(
        tmp_path,
        [SPREAD, sharded_step(1, 3, MISSING), sharded_step(2, math.nan, 1)],
        [SPREAD, sharded_step(1, MISSING, MISSING), sharded_step(2, 1, math.inf)],
    )
    got = run.column("grad_norms")
    assert got is not None
    assert got.values[0, 0] == 3
    assert is_missing(got.values).tolist() == [[False, True], [False, False]]
    assert math.isnan(got.values[1, 0])
    assert got.values[1, 1] == math.inf


def test_large_norms_do_not_overflow(tmp_path: Path) -> None:
    run = joined(tmp_path, *([[SPREAD, sharded_step(1, 3e38, 1e30)]] * 2))
    got = run.column("grad_norms")
    assert got is not None
    assert got.values[0].tolist() == pytest.approx([np.finfo(np.float32).max, math.sqrt(2) * 1e30])


def test_a_model_that_is_spread_in_part(tmp_path: Path) -> None:
    """The header says which parameters every rank holds whole: those count once."""
    run = joined(
        tmp_path,
        [SPREAD, sharded_step(1, 3, 12, grad_norm=99.0), Step(step=2, grad_norm=9.0)],
        [SPREAD, sharded_step(1, 4, 12, grad_norm=99.0), Step(step=2, grad_norm=9.0)],
        device={"shards": {"most": 2, "others": {"b": 1}}},
    )
    got = run.column("grad_norms")
    assert got is not None
    assert got.values.tolist() == [[5, 12]]
    assert pairs(run["grad_norm"]) == [(1, 13.0)]  # at step 2 nobody can tell


def test_copies_of_shards_count_by_their_share(tmp_path: Path) -> None:
    """Hybrid sharding: two copies of two shards on four ranks."""
    ranks = [[SPREAD, sharded_step(1, n, n, grad_norm=10.0 * n)] for n in (3, 4, 3, 4)]
    run = joined(tmp_path, *ranks, device={"shards": {"most": 2, "others": {}}})
    got = run.column("weight_norms")
    assert got is not None
    assert got.values.tolist() == [[5, 5]]
    assert pairs(run["grad_norm"]) == [(1, 50.0)]
    counts = run.column("grad_nonfinite")
    assert counts is not None
    assert counts.values.tolist() == [[7, 7]]


@pytest.mark.parametrize(
    "told",
    [
        7, [], {}, {"most": 0}, {"most": True}, {"most": 2.0}, {"most": 1e300}, {"most": 2, "others": 5},
        {"most": 2, "others": {"w": "many", "b": [1]}},
    ],
    ids=str,
)  # fmt: skip
def test_a_header_that_tells_nonsense_of_shards(tmp_path: Path, told: object) -> None:
    run = joined(tmp_path, *([[SPREAD, sharded_step(1, 3, 4)]] * 2), device={"shards": told})
    got = run.column("grad_norms")
    assert got is not None
    assert got.values.tolist() == [[pytest.approx(3 * math.sqrt(2)), pytest.approx(4 * math.sqrt(2))]]


def test_ranks_of_different_length_are_joined_as_far_as_they_go(tmp_path: Path) -> None:
    def rank(last: int) -> list[Record]:
        return [
            SPREAD,
            *(Step(step=i, samples=2, grad_norms=column(1, 1), grad_norm=1.0) for i in range(1, last)),
        ]

    run = joined(tmp_path, rank(6), rank(4), rank(8))
    assert run["loss"].steps.tolist() == []
    assert run.steps.tolist() == [1, 2, 3, 4, 5]
    for steps in (run["samples"].steps, run["grad_norm"].steps, run.column_segments("grad_norms")[0].steps):
        assert steps.tolist() == [1, 2, 3]
    assert run.gaps == (
        "rank 1 ends at step 3, rank 0 at step 5: sums end there",
        "rank 2 goes on to step 7, rank 0 ends at step 5",
    )
    assert not run.complete


def test_steps_that_one_rank_lost_are_left_out(tmp_path: Path) -> None:
    def rank(*steps: int) -> list[Record]:
        return [batch([Step(step=i, samples=2 if i != 3 else None, loss=1.0) for i in steps]), End()]

    joined(tmp_path, rank(1, 2, 3, 4, 5), rank(1, 2, 3, 4, 5))
    lines = (tmp_path / "run.rank1.jsonl").read_bytes()
    (tmp_path / "run.rank1.jsonl").write_bytes(lines.replace(b'{"kind":"end"', b'{"torn\n{"kind":"end"'))
    run = read_run(tmp_path / "run.jsonl")
    assert pairs(run["samples"]) == [(1, 4), (2, 4), (4, 4), (5, 4)]
    assert (run.torn, run.complete) == (1, False)
    assert run.gaps == ("rank 1: 1 line could not be read",)


def test_missing_ranks_are_said_and_add_nothing(tmp_path: Path) -> None:
    run = joined(tmp_path, [SPREAD, sharded_step(1, 3, 4, grad_norm=5.0)], world=3)
    got = run.column("grad_norms")
    assert got is not None
    assert got.values.tolist() == [[3, 4]]
    assert pairs(run["grad_norm"]) == [(1, 5.0)]
    assert run.gaps == ("no file of ranks 1 to 2 of 3",)
    assert run.layout is not None
    assert run.layout.coverage["gradients"] == "shards of 1 of 3 ranks only"
    assert len(run.ranks) == 1


def test_columns_are_joined_under_layouts_of_the_same_names_only(tmp_path: Path) -> None:
    new = layout("w", "b", "c", gradients=SHARDS, step=3)
    later = layout("w", "b", "c", gradients=SHARDS, step=4)

    def rank(changed: Layout, *norms: float) -> list[Record]:
        steps = [Step(step=i, grad_norms=column(*norms), grad_norm=1.0) for i in (1, 2)]
        more = [Step(step=i, grad_norms=column(*norms, 1), grad_norm=1.0) for i in (changed.step, 5)]
        return [SPREAD, *steps, changed, *more]

    first, second = joined(tmp_path, rank(new, 3, 4), rank(later, 4, 3)).column_segments("grad_norms")
    assert (first.steps.tolist(), first.values.tolist()) == ([1, 2], [[5, 5]] * 2)
    assert second.steps.tolist() == [5]
    assert second.values.tolist() == [[5, 5, pytest.approx(math.sqrt(2))]]


def test_intervals_add_up_where_they_end_together(tmp_path: Path) -> None:
    def rank(last: int) -> list[Record]:
        return [
            Interval(index=i, last_step=step, samples=8, samples_per_s=2.0, tokens_per_s=None, loss_mean=i)
            for i, step in enumerate((10, last))
        ]

    run = joined(tmp_path, rank(20), rank(19))
    assert pairs(run.interval_series("samples")) == [(10, 16)]
    assert pairs(run.interval_series("samples_per_s")) == [(10, 4.0)]
    assert pairs(run.interval_series("tokens_per_s")) == []
    assert pairs(run.interval_series("loss_mean")) == [(10, 0), (20, 1)]
    with pytest.raises(KeyError):
        run.interval_series("nothing")


def test_names_that_are_not_there_are_refused_as_in_a_single_run(tmp_path: Path) -> None:
    run = joined(tmp_path, [Step(step=1, loss=1.0)], [Step(step=1, loss=1.0)])
    assert pairs(run["samples"]) == []
    assert "samples" not in run
    with pytest.raises(KeyError, match="did you mean 'loss'"):
        run["los"]
    with pytest.raises(KeyError, match="did you mean 'loss'"):
        run.across_ranks("los")


def test_no_joining_where_it_is_not_wanted(tmp_path: Path) -> None:
    joined(tmp_path, [Step(step=1, samples=2)], [Step(step=1, samples=2)])
    alone = read_run(tmp_path / "run.jsonl", ranks=False)
    assert (pairs(alone["samples"]), alone.ranks, alone.gaps) == ([(1, 2)], (alone,), ())
    other = read_run(tmp_path / "run.rank1.jsonl")
    assert (pairs(other["samples"]), other.header.rank, other.ranks) == ([(1, 2)], 1, (other,))


def test_the_file_is_read_once_and_late(tmp_path: Path) -> None:
    run = joined(tmp_path, [Step(step=1, samples=2)], [Step(step=1, samples=2)])
    for rank in run.ranks:
        with rank.path.open("ab") as file:
            file.write(encode(Step(step=2, samples=3)))
    assert pairs(run["samples"]) == [(1, 4), (2, 6)]
    assert run.ranks[0]._contents is run._contents


def test_thinning_is_that_of_the_rank_that_thinned_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchwatch.run import contents

    monkeypatch.setattr(contents, "COLUMN_BYTES", 10 * (300 + 8))
    few = [SPREAD, *(Step(step=i, grad_norms=column(3, 3)) for i in range(1, 9))]
    many = [SPREAD, *(Step(step=i, grad_norms=column(4, 4)) for i in range(1, 33))]
    run = joined(tmp_path, few, many)
    assert run.thinned == {"grad_norms": 4}
    got = run.column("grad_norms")
    assert got is not None
    assert got.steps.tolist() == [1, 5]
    assert got.values.tolist() == [[5, 5], [5, 5]]


NORMS = st.floats(0, 2.0**50, width=32)


@given(st.lists(st.tuples(NORMS, NORMS, NORMS), min_size=1, max_size=5))
def test_joined_norms_are_those_of_the_whole(tmp_path_factory: pytest.TempPathFactory, table: list) -> None:
    """Whatever the norms of the shards: the root of the sum of their squares, per parameter and over all."""
    folder = tmp_path_factory.mktemp("ranks")
    ranks = []
    for rank in range(3):
        row = [np.float32(f"{t[rank]:.4g}") for t in table]  # as the file keeps them
        norm = float(np.sqrt(np.sum(np.square(np.array(row, np.float64)))))
        names = [f"p{i}" for i in range(len(table))]
        ranks.append(
            [layout(*names, gradients=SHARDS), Step(step=1, grad_norms=column(*row), grad_norm=norm)]
        )
    run = joined(folder, *ranks)
    whole = np.array([[s[1].grad_norms for s in ranks]], np.float64)[0]
    got = run.column("grad_norms")
    assert got is not None
    assert got.values[0] == pytest.approx(np.sqrt((whole**2).sum(0)), rel=1e-3)
    assert run["grad_norm"].values[0] == pytest.approx(np.sqrt((whole**2).sum()), rel=1e-3)
