"""The overhead benchmark: its statistics on made-up timings, the order of turns, all monitors for 3 steps."""

from __future__ import annotations

import dataclasses
import multiprocessing
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.overhead import tables
from benchmarks.overhead.goals import added_factor, judge
from benchmarks.overhead.interleaved import Effort, Outcome, measure, next_in_turn
from benchmarks.overhead.monitors import BARE, KINDS
from benchmarks.overhead.paired import Block, Pair, Ratios, pairs_of, ratios, tolerance
from benchmarks.overhead.results import Measured, Row, self_share, summarise
from benchmarks.overhead.worker import Cores, train
from benchmarks.overhead.workloads import build

NEEDED = {"wandb-gradients": "wandb", "wandb-all": "wandb", "lightning-norms": "lightning"}
ALONE = [kind for kind in KINDS if kind not in NEEDED]


def drifting(ratio: float, *, blocks: int, noise: float = 0.0, seed: int = 0) -> list[tuple[str, Block]]:
    """Blocks on a machine that becomes twice as slow from the first to the last; ``ratio`` is planted."""
    generator = np.random.default_rng(seed)
    found = []
    for at, speed in enumerate(np.linspace(1e-3, 2e-3, 2 * blocks + 1)):
        monitored = at % 2 == 1
        step_s = speed * (ratio if monitored else 1.0) * (1 + noise * generator.standard_normal())
        steps = 300 + at % 5
        found.append(("x" if monitored else BARE, Block(steps, steps * step_s, steps * step_s / 2)))
    return found


def test_a_planted_ratio_is_found_on_a_machine_that_slows_down() -> None:
    found = ratios(pairs_of(drifting(1.25, blocks=40), BARE)["x"])
    assert found.median == pytest.approx(1.25, abs=1e-6)
    assert found.total == pytest.approx(1.25, abs=1e-6)
    assert found.cpu == pytest.approx(1.25, abs=1e-6)
    assert found.quartiles == pytest.approx((1.25, 1.25), abs=1e-6)
    assert found.pairs == 40


def test_the_bootstrap_interval_covers_the_planted_ratio_as_often_as_it_says() -> None:
    covered = bounded = 0
    for seed in range(100):
        pairs = pairs_of(drifting(1.02, blocks=40, noise=0.03, seed=seed), BARE)["x"]
        found = ratios(pairs, seed=seed)
        covered += found.interval[0] <= 1.02 <= found.interval[1]
        bounded += found.upper >= 1.02
    assert 86 <= covered <= 100
    assert 86 <= bounded <= 99


def test_work_on_few_steps_is_in_the_total_though_not_in_the_median() -> None:
    bare = Block(100, 1.0)
    pairs = [Pair(bare, Block(100, 1.5 if at % 10 == 0 else 1.0), bare) for at in range(100)]
    found = ratios(pairs)
    assert found.median == 1.0
    assert found.total == pytest.approx(1.05)
    assert found.interval[0] < 1.05 < found.upper < found.interval[1]


def test_pairs_in_a_disturbed_moment_are_left_out_whatever_the_monitor_did() -> None:
    calm, slow = Block(100, 1.0), Block(100, 3.0)
    pairs = [Pair(calm, Block(100, 1.1), calm)] * 9 + [Pair(calm, Block(100, 0.5), slow)]
    found = ratios(pairs, tolerance(pairs))
    assert (found.pairs, found.left_out) == (9, 1)
    assert found.total == pytest.approx(1.1)
    with pytest.raises(ValueError, match="no pair"):
        ratios(pairs[-1:], 0.1)


def test_only_blocks_between_two_bare_ones_make_pairs() -> None:
    bare, x, y = Block(1, 1.0), Block(1, 2.0), Block(1, 3.0)
    found = pairs_of([(BARE, bare), ("x", x), (BARE, bare), ("y", y), ("x", x), (BARE, bare)], BARE)
    assert list(found) == ["x"]
    assert [p.block for p in found["x"]] == [x]


def test_turns_are_shared_by_time() -> None:
    shares = {"a": 6.0, "b": 1.0, "c": 1.0}
    used, turns, order = dict.fromkeys(shares, 0.0), dict.fromkeys(shares, 0), []
    for _ in range(60):
        kind = next_in_turn({k: used[k] / shares[k] for k in used}, turns, fewest=2)
        order.append(kind)
        used[kind] += 3.0 if kind == "b" else 1.0  # b's blocks are three times as long
        turns[kind] += 1
    assert order[:6] == ["a", "b", "c", "a", "b", "c"]
    assert used["a"] / used["c"] == pytest.approx(6.0, rel=0.3)
    assert used["b"] / used["c"] == pytest.approx(1.0, rel=0.5)


def test_the_self_reported_share_leaves_out_what_the_recorder_did_in_others_turns() -> None:
    assert self_share({}) is None
    assert self_share({"busy_s": 10.0, "watch_s": 0.1, "waiting_cpu_s": 0.2}) == pytest.approx(0.01)


def row(median: float, total: float | None = None, said: float | None = None) -> Row:
    total = median if total is None else total
    return Row(
        Ratios(median, (median, median), total, (total, total), total, total, 9, 0),
        said,
        {"gradients_every": 1, "activations_every": 50, "bytes_per_step": 90.0, "alerts": [], "dropped": 0}
        if said is not None
        else {},
    )


def test_goals_are_met_and_missed() -> None:
    rows = {
        "mlp": {
            "default": row(1.01, 1.011, said=0.005),
            "everything": row(1.05),
            "wandb-all": row(1.55),
            "naive-hooks": row(1.04),
        }
    }
    judged = {(j.claim, j.goal): j for j in judge(rows)}
    assert [j.met for j in judged.values()] == [True, True, True, False, True, False]
    last = list(judged.values())
    assert last[3].measured == "0.50% said, 1.09% outside"
    assert (last[4].goal, last[4].measured) == ("≥ 10", "11.0")
    assert last[5].goal == "< 1.040 (naive-hooks)"
    assert judge({"mlp": {"idle": row(1.0)}}) == []


def test_an_added_time_of_nothing_gives_a_bound_not_an_infinity() -> None:
    assert added_factor(row(2.0), row(0.99)) == pytest.approx(1000.0)
    judged = judge({"gpt": {"everything": row(0.99), "wandb-all": row(2.0)}})
    assert judged[-1].measured == "> 1000.0"


def test_a_summary_becomes_tables() -> None:
    blocks = [("default" if name == "x" else name, block) for name, block in drifting(1.01, blocks=5)]
    measured = {
        "tiny": summarise(Outcome(blocks, {}, {"wandb-all": "Traceback\nModuleNotFoundError: wandb"}))
    }
    assert measured["tiny"].bare_s == pytest.approx(1.5e-3)
    text = "\n".join(
        [*tables.matrix(measured), *tables.goals(measured), *tables.details("tiny", measured["tiny"])]
    )
    assert "| **torchwatch**, default (`budget=0.01`) | 1.010 |" in text
    assert "wandb-all failed: ModuleNotFoundError: wandb" in text
    assert '| `wandb.watch("all", log_freq=1)` | – |' in text
    assert isinstance(measured["tiny"], Measured)
    assert measured["tiny"].as_json()["rows"]["default"]["ratios"]["median"] == pytest.approx(1.01)
    with pytest.raises(ValueError, match="nothing was measured"):
        summarise(Outcome(blocks[:1], {}, {}))


@pytest.mark.parametrize("kind", ALONE)
def test_every_monitor_runs_and_leaves_the_training_as_it_was(kind: str, tmp_path: Path) -> None:
    expected = build("tiny")
    for _ in range(3):
        expected.run(lambda: None, lambda _: None)
    workload = build("tiny")
    monitor = KINDS[kind].make(workload, tmp_path)
    block = train(workload, monitor, 0.0, 2)
    monitor.warmed_up()
    after = train(workload, monitor, 0.0, 1)
    told = monitor.close()
    assert (block.steps, after.steps) == (2, 1)
    assert block.seconds > 0
    for one, other in zip(workload.model.parameters(), expected.model.parameters(), strict=True):
        assert torch.equal(one, other)
    if KINDS[kind].where.startswith("watching"):
        assert told["busy_s"] >= after.seconds * 0.5
        assert told["activations_every"] is not None
    if hasattr(monitor, "seen"):
        assert monitor.seen


def test_a_training_block_lasts_as_long_as_it_was_told() -> None:
    workload = build("tiny")
    ticks = iter(np.arange(0.0, 100.0, 0.1))
    block = train(workload, KINDS[BARE].make(workload, Path()), 0.95, 3, clock=lambda: float(next(ticks)))
    assert block.steps == 10
    assert block.seconds == pytest.approx(1.0)
    assert dataclasses.astuple(block)[0] == 10


@pytest.mark.slow
def test_all_monitors_take_turns_in_processes_of_their_own(tmp_path: Path) -> None:
    effort = Effort(block_s=0.02, warm_s=0.01, calibrate_s=0.05, measure_s=3.0, fewest=1)
    outcome = measure("tiny", list(KINDS), effort, tmp_path, Cores())
    missing = {kind for kind, package in NEEDED.items() if find_spec(package) is None}
    assert set(outcome.failed) == missing
    assert {name for name, _ in outcome.blocks} >= set(KINDS) - missing - {"control"}
    assert outcome.told["default"]["waiting_cpu_s"] >= 0
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_a_monitor_that_fails_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    effort = Effort(block_s=0.02, warm_s=0.01, calibrate_s=0.05, measure_s=0.1, fewest=1)
    outcome = measure("tiny", ["nobody", "item-norms"], effort, tmp_path, Cores())
    assert "KeyError: 'nobody'" in outcome.failed["nobody"]
    assert {name for name, _ in outcome.blocks} == {BARE, "item-norms"}
