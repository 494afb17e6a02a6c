"""Two processes, gloo: watched on one rank, on the other, on both. Nothing waits, nothing differs, and the
files join.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers_replay import assert_live_equals_replay, steps_in
from tests.survival.rank_process import STEPS
from torchwatch import read_run
from torchwatch.records import RunHeader, is_missing
from torchwatch.run import JoinedRun

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
        reason="this build of torch has no gloo",
    ),
]

ROOT = Path(__file__).resolve().parent.parent.parent
WORLD = 2
TIMEOUT_S = 150
VARIANTS = {"bare": [], "both": [0, 1], "first": [0], "second": [1]}
JOBS: dict[str, dict[str, Any]] = {
    "ddp-plain": {"kind": "replicated"},
    "ddp-clipped": {"kind": "replicated", "clip": True},
    "fsdp-plain": {"kind": "sharded"},
    "fsdp-clipped": {"kind": "sharded", "clip": True},
    "fsdp-late": {"kind": "sharded", "late": True},
    "fsdp-in-part": {"kind": "sharded_in_part"},
    "fsdp-bfloat16": {"kind": "sharded_in_half"},
    "fsdp1-plain": {"kind": "flat"},
    "fsdp1-without-names": {"kind": "flat_without_names"},
}


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def launch(out: Path, order: dict[str, Any], environment: dict[str, str] | None = None) -> None:
    """Play the order in two processes. ``environment`` is as torchrun makes it, None: there is none."""
    processes = []
    for name in order["jobs"]:
        (out / name).mkdir()
    for rank in range(WORLD):
        given = {**order, "out": str(out)}
        own = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")}
        if environment is None:
            given |= {"rank": rank, "world": WORLD}
        else:
            own |= {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(WORLD)}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "tests.survival.rank_process", json.dumps(given)],
                cwd=ROOT,
                env={**own, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        said = [process.communicate(timeout=TIMEOUT_S)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * WORLD, "\n".join(said)


class Played:
    """A job that was run once for all its tests."""

    def __init__(self, out: Path, job: dict[str, Any]) -> None:
        self.out, self.job = out, job
        self.ranks = [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(WORLD)]

    def file(self, variant: str, rank: int) -> Path:
        return self.out / (f"{variant}.jsonl" if rank == 0 else f"{variant}.rank{rank}.jsonl")


@pytest.fixture(scope="module", params=JOBS)
def played(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Played:
    out, name = tmp_path_factory.mktemp("ranks"), request.param
    launch(out, {"jobs": {name: JOBS[name]}, "variants": VARIANTS})
    return Played(out / name, JOBS[name])


@pytest.mark.parametrize("variant", ["both", "first", "second"])
def test_training_is_the_same_and_no_collective_is_issued(played: Played, variant: str) -> None:
    """The process group counts its collectives: bare and watched alike, on the rank that is watched and on
    the other. One more on one rank alone would have been a deadlock.
    """
    for found in played.ranks:
        bare, watched = found["bare"], found[variant]
        for name in ("collectives", "loss", "digest", "generators"):
            assert watched[name] == bare[name], name
        assert bare["collectives"] >= STEPS


@pytest.mark.parametrize("variant", ["both", "first", "second"])
def test_each_watched_rank_writes_its_own_file(played: Played, variant: str) -> None:
    assert {p.name for p in played.out.glob(f"{variant}*.jsonl")} == {
        played.file(variant, rank).name for rank in VARIANTS[variant]
    }
    for rank in VARIANTS[variant]:
        records = assert_live_equals_replay(played.file(variant, rank))
        header = records[0]
        assert isinstance(header, RunHeader)
        assert (header.rank, header.world) == (rank, WORLD)
        steps = steps_in(records)
        assert [step.step for step in steps] == list(range(1, STEPS + 1))
        assert [step.loss for step in steps] == pytest.approx(played.ranks[rank][variant]["loss"], rel=1e-6)
        assert all(step.grad_norm > 0 and step.update_ratio > 0 for step in steps)


def test_the_files_join(played: Played) -> None:
    """Samples add up; norms of gradients and weights are the true ones, whether sharded or not."""
    run, truth = read_run(played.file("both", 0)), played.ranks[0]["both"]
    assert isinstance(run, JoinedRun)
    assert run.gaps == ()
    assert run.complete
    assert run["samples"].values.tolist() == [4 + 5] * STEPS
    assert run.across_ranks("samples").values.tolist() == [[4, 5]] * STEPS
    assert run.across_ranks("step_time_s").values.shape == (STEPS, WORLD)
    layout = run.layout
    assert layout is not None
    names = [p.name for p in layout.parameters]
    assert sorted(names) == sorted(truth["names"])
    order = [truth["names"].index(name) for name in names]
    for name in ("grad_norms", "weight_norms"):
        segments = run.column_segments(name)  # several where the layout was written anew
        assert all([p.name for p in segment.layout.parameters] == names for segment in segments)
        assert np.concatenate([s.steps for s in segments]).tolist() == list(range(1, STEPS + 1))
        found = np.concatenate([s.values for s in segments])
        assert found == pytest.approx(np.array(truth[name])[:, order], rel=2e-3)
    whole = np.sqrt(np.square(truth["grad_norms"]).sum(axis=1))
    assert run["grad_norm"].values == pytest.approx(whole, rel=2e-3)
    assert layout.coverage["gradients"] == "ok"


def test_a_rank_that_is_watched_alone_says_what_it_has(played: Played) -> None:
    run = read_run(played.file("first", 0))
    assert run.gaps == ("no file of rank 1 of 2",)
    assert run["samples"].values.tolist() == [4] * STEPS
    layout = run.layout
    assert layout is not None
    sharded = played.job["kind"] != "replicated"
    assert layout.coverage["gradients"] == ("shards of 1 of 2 ranks only" if sharded else "ok")
    alone = read_run(played.file("second", 1))
    assert alone.header.rank == 1
    assert alone.layout is not None
    assert alone.layout.coverage["gradients"] == ("this rank's shards only" if sharded else "ok")


def test_what_a_rank_holds_is_in_its_own_file(played: Played) -> None:
    """Norms of a sharded parameter are of the shard, and together they are more than one of them."""
    first, second = (read_run(played.file("both", rank), ranks=False) for rank in range(WORLD))
    columns = [run.column("weight_norms") for run in (first, second)]
    joined = read_run(played.file("both", 0)).column("weight_norms")
    assert columns[0] is not None
    assert columns[1] is not None
    assert joined is not None
    same = columns[0].values == columns[1].values
    if played.job["kind"] == "replicated":
        assert same.all()
    else:
        assert not same.all()
        held = ~is_missing(columns[0].values)
        assert (joined.values[held] >= columns[0].values[held] * 0.999).all()


def test_ranks_under_a_launcher(tmp_path: Path) -> None:
    """Rank and world from torchrun's environment."""
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    order = {"jobs": {"alone": {"kind": "as_it_is"}}, "variants": {"both": VARIANTS["both"]}}
    launch(tmp_path, order, environment)
    for rank, name in enumerate(("both.jsonl", "both.rank1.jsonl")):
        header = assert_live_equals_replay(tmp_path / "alone" / name)[0]
        assert isinstance(header, RunHeader)
        assert (header.rank, header.world) == (rank, WORLD)
    assert read_run(tmp_path / "alone" / "both.jsonl")["samples"].values.tolist() == [9] * STEPS
