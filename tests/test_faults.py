"""Each mistake of the demo is named by the right check, where it is and when it began."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from tests.helpers_replay import assert_live_equals_replay
from torchwatch.commands._demo.faults import FAULTS, HEALTHY
from torchwatch.commands._demo.judge import judge
from torchwatch.commands._demo.training import train
from torchwatch.config import WatchConfig
from torchwatch.diagnosis import diagnose
from torchwatch.records import Alert, Eval

_AT_ONCE = ("dead-relu", "missing-zero-grad", "exploding-lr", "forgotten-parameters", "slow-loader")
_STEPS = 200

_ALONE = """
import sys
from pathlib import Path
import torch
from torchwatch.commands._demo.faults import FAULTS
from torchwatch.commands._demo.training import train
torch.set_num_threads(1)
train(FAULTS[sys.argv[1]].recipe, Path(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The demo's runs by name, each recorded once."""
    directory = tmp_path_factory.mktemp("faults")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng():
            yield _Runs(directory)
    finally:
        torch.set_num_threads(threads)


class _Runs:
    def __init__(self, directory):
        self._directory = directory
        self._known = {}

    def __getitem__(self, name):
        if name not in self._known:
            path = self._directory / f"{name}.jsonl"
            if name == "memory-leak":  # elsewhere memory freed by other tests would be used again, unseen
                subprocess.run([sys.executable, "-c", _ALONE, name, path], check=True, timeout=120)
            else:
                recipe = HEALTHY if name == "healthy" else FAULTS[name].recipe
                train(recipe, path, config=WatchConfig(terminal=False, budget=None))
            self._known[name] = path
        return self._known[name]


def test_the_healthy_run_is_quiet(runs):
    found = diagnose(runs["healthy"])
    assert [i.check for i in found.issues if i.severity != "info"] == []
    assert found.health_score >= 90


@pytest.mark.parametrize("name", FAULTS)
def test_the_first_incident_is_the_fault(name, runs):
    fault, found = FAULTS[name], diagnose(runs[name])
    first = min((i.root for i in found.incidents if i.root.severity != "info"), key=lambda r: r.since_step)
    assert first.check in fault.roots
    assert first.layer in fault.layers or not fault.layers
    assert fault.onset[0] <= first.since_step <= fault.onset[1]
    judgement = judge(fault, diagnose(runs["healthy"]), found)
    assert judgement.passed
    assert judgement.root == first


@pytest.mark.parametrize("name", _AT_ONCE)
def test_the_root_is_named_live_within_200_steps_of_the_mistake(name, runs):
    fault = FAULTS[name]
    alerts = [r for r in assert_live_equals_replay(runs[name]) if isinstance(r, Alert)]
    named = [a for a in alerts if a.check in fault.roots and a.root and a.severity != "info"]
    assert min(a.step for a in named) <= fault.onset[0] + _STEPS


@pytest.mark.parametrize("name", ["overfit", "memory-leak"])
def test_slow_mistakes_are_named_live_before_the_run_ends(name, runs):
    records = assert_live_equals_replay(runs[name])
    alerts = [r for r in records if isinstance(r, Alert) and r.check in FAULTS[name].roots]
    assert alerts[0].state == "opened"
    assert alerts[0].root
    assert alerts[0].step < records[-1].step


@pytest.mark.parametrize("name", [n for n in FAULTS if n not in ("memory-leak", "slow-loader")])
def test_the_mistake_does_harm(name, runs):
    """A planted mistake that changes nothing would make finding it worthless."""
    assert not _last_val_loss(runs[name]) < 1.5 * _last_val_loss(runs["healthy"])


def _last_val_loss(path):
    return [r.metrics["val_loss"] for r in assert_live_equals_replay(path) if isinstance(r, Eval)][-1]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 4))
@pytest.mark.parametrize("name", [n for n in FAULTS if n != "memory-leak"])
def test_other_seeds_find_the_same(name, seed, runs, tmp_path):
    config = WatchConfig(terminal=False, budget=None)
    run = train(FAULTS[name].recipe, tmp_path / "run.jsonl", seed=seed, config=config)
    assert judge(FAULTS[name], diagnose(runs["healthy"]), diagnose(run)).fits


def test_a_judgement_knows_a_miss(runs):
    """The right check at the wrong layer, at the wrong time, or beside a false alarm is not a pass."""
    healthy, faulty = diagnose(runs["healthy"]), diagnose(runs["dead-relu"])
    fault = FAULTS["dead-relu"]
    assert not judge(replace(fault, layers=("conv1",)), healthy, faulty).fits
    assert not judge(replace(fault, onset=(1, 100)), healthy, faulty).fits
    assert not judge(replace(fault, roots=("overfitting",)), healthy, faulty).fits
    assert not judge(fault, faulty, faulty).passed
    assert judge(fault, healthy, healthy).root is None
