"""What every adapter shares; no framework is imported here."""

from __future__ import annotations

import importlib
import logging
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torchwatch_integrations import _guest
from torchwatch_integrations._guest import Guest, Hosts, config_of, go_on_from, newest, require

from torchwatch import WatchConfig, Watcher
from torchwatch.errors import MissingExtra, TorchwatchError, UsageError
from torchwatch.records import Note
from torchwatch.runfile import read_records


def broken() -> None:
    raise KeyError("broken on purpose")


def refused() -> None:
    raise UsageError("give another path")


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING, logger="torchwatch")
    return caplog


def test_a_framework_that_is_missing_is_named_with_its_extra() -> None:
    with pytest.raises(
        MissingExtra, match=re.escape("pip install 'torchwatch-monitor[transformers]'")
    ) as raised:
        require("no_such_framework", "1.0", extra="transformers")
    assert str(raised.value).startswith("no_such_framework is not installed")


@pytest.mark.parametrize("framework", ["accelerate", "transformers"])
def test_an_adapter_without_its_framework_says_so_when_it_is_imported(
    framework: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, framework, None)
    monkeypatch.delitem(sys.modules, f"torchwatch_integrations.{framework}", raising=False)
    sentence = f"{framework} is not installed: pip install 'torchwatch-monitor[{framework}]' brings it"
    with pytest.raises(MissingExtra, match=f"^{re.escape(sentence)}$"):
        importlib.import_module(f"torchwatch_integrations.{framework}")


@pytest.mark.parametrize("found", ["1.9", "1.9.9.dev3", "0.99"])
def test_a_framework_that_is_too_old_is_named_with_both_versions(
    found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_guest.importlib.metadata, "version", lambda name: found)
    with pytest.raises(
        MissingExtra, match=rf"^click {re.escape(found)} is too old, 1\.10 or newer is needed"
    ):
        require("click", "1.10")


@pytest.mark.parametrize("found", ["1.10", "1.10.0rc1", "2.0+local", "not a version"])
def test_a_framework_that_is_new_enough_is_fine(found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_guest.importlib.metadata, "version", lambda name: found)
    require("click", "1.10")


def test_a_framework_without_metadata_says_its_version_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> str:
        raise _guest.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(_guest.importlib.metadata, "version", unknown)
    monkeypatch.setattr(_guest.importlib, "import_module", lambda name: SimpleNamespace(__version__="1.2"))
    with pytest.raises(MissingExtra, match=r"1\.2 is too old"):
        require("click", "1.10")
    monkeypatch.setattr(_guest.importlib, "import_module", lambda name: SimpleNamespace())
    require("click", "1.10")


def test_the_package_imports_no_framework_and_no_torch() -> None:
    script = (
        "import sys, torchwatch_integrations as t; "
        "print([n for n in ('torch', 'accelerate', 'transformers', 'lightning') if n in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["accelerate", "transformers"])
def test_an_adapter_imports_no_other_framework(framework: str) -> None:
    """Beyond what its own one imports."""
    script = (
        "import sys, importlib; importlib.import_module(sys.argv[1])\n"
        "if len(sys.argv) > 2: importlib.import_module(sys.argv[1]).Trainer\n"
        "print(*[n for n in ('accelerate', 'transformers', 'lightning', 'wandb') if n in sys.modules])"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", script, *names], capture_output=True, text=True, check=True
        ).stdout
        for names in (
            [f"torchwatch_integrations.{framework}"],
            [framework, *(["its Trainer"] if framework == "transformers" else [])],
        )
    ]
    assert found[0] == found[1]


def test_the_first_bug_switches_the_adapter_off_and_is_said_once(said: pytest.LogCaptureFixture) -> None:
    guest = Guest("Adapter")
    assert guest.call(lambda: 3) == 3
    for _ in range(3):
        assert guest.call(broken) is None
    assert guest.call(lambda: 3) is None
    where = f"broken:{broken.__code__.co_firstlineno + 1}"
    sentence = f"Adapter switched off after KeyError: 'broken on purpose' at {where}; training goes on"
    assert [record.getMessage() for record in said.records] == [sentence]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_no_exception_of_ours_passes(error: type[BaseException]) -> None:
    def interrupted() -> None:
        raise error

    guest = Guest("Adapter")
    with pytest.raises(error):
        guest.call(interrupted)
    assert guest.off is None


def test_what_the_hosts_function_raises_passes_and_only_that(said: pytest.LogCaptureFixture) -> None:
    guest = Guest("Adapter")
    with pytest.raises(KeyError):
        guest.call(Hosts(broken))
    assert guest.off is None
    guest.call(broken)
    assert guest.off is not None
    assert Hosts(max)(1, 2) == 2


def test_a_mistake_of_the_user_is_raised_at_the_start_alone(said: pytest.LogCaptureFixture) -> None:
    guest = Guest("Adapter")
    with pytest.raises(TorchwatchError, match="give another path") as raised:
        guest.start(refused)
    assert raised.value.__cause__ is None
    assert guest.off is None
    assert guest.start(broken) is None
    guest = Guest("Adapter")
    assert guest.call(refused) is None
    assert guest.off is not None


def test_only_rank_0_prints_and_the_users_declarations_win(monkeypatch: pytest.MonkeyPatch) -> None:
    given = WatchConfig(declare={"planned_steps": 7})
    config = config_of({"config": given}, planned_steps=100, causal=None)
    assert (config.terminal, config.declare) == (True, {"planned_steps": 7})
    assert config_of({}, planned_steps=100).declare == {"planned_steps": 100}
    assert config_of({"config": WatchConfig(terminal=False)}).terminal is False
    monkeypatch.setattr(_guest, "rank_and_world", lambda: (1, 2))
    assert config_of({}).terminal is False


def test_the_newest_file_of_a_path(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    assert newest(path) is None
    for name in ("run.jsonl", "run-2.jsonl", "run-3.jsonl", "run-5.jsonl"):
        (tmp_path / name).touch()
    assert newest(path) == tmp_path / "run-3.jsonl"


def test_going_on_from_a_step_and_an_epoch(tmp_path: Path) -> None:
    """The next step has the next number, and the columns fit."""
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    config = WatchConfig(terminal=False, energy=False, budget=None)
    with Watcher(model, tmp_path / "run.jsonl", config=config, sinks=[]) as watch:
        go_on_from(watch, 50, 2)
        for _ in range(12):
            loss = model(torch.ones(4, 3)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.log(loss=loss)
        watch.epoch()
    from tests.helpers_replay import assert_live_equals_replay, steps_in

    steps = steps_in(assert_live_equals_replay(watch.path))
    assert [(step.step, step.epoch) for step in steps] == [(n, 2) for n in range(51, 63)]
    sampled = [step.step for step in steps if step.activations is not None]
    assert sampled == [60]  # every tenth one; those of the first steps of all were before


def test_a_bug_is_noted_in_the_run(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    guest = Guest("Adapter")
    model = torch.nn.Linear(1, 1)
    config = WatchConfig(terminal=False, energy=False)
    with Watcher(model, tmp_path / "run.jsonl", config=config, sinks=[]) as guest.watch:
        guest.call(broken)
    notes = [r.message for r in read_records(tmp_path / "run.jsonl") if isinstance(r, Note)]
    assert any(note.startswith("Adapter switched off after KeyError") for note in notes)
