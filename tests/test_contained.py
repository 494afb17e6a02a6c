"""Failures of our own never reach the host and are said; those of the host always pass."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import traceback
from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.helpers_host import CONFIG, Loop
from tests.helpers_replay import assert_live_equals_replay, steps_in, troubles
from tests.zoo import CASES, first_difference
from tests.zoo_models import mlp
from torchwatch import Watcher
from torchwatch.attachment import Attachment
from torchwatch.records import End, Record
from torchwatch.runfile import read_records

if TYPE_CHECKING:
    from pathlib import Path


MOMENTS = (
    "next_step",
    "arm",
    "model_starts",
    "layer_ran",
    "model_ran",
    "trained",
    "layer_gradient",
    "closing",
    "complete",
    "gradients",
    "before_step",
    "after_step",
    "merge",
    "decode",
    "observe",
    "gradient_arrives",
    "detach",
    "saw",
)
NEEDS_MORE = {("ScalingProbe", "gradients"), ("ScalingProbe", "decode"), ("FlopsProbe", "decode")}
"""What these loops never call: no GradScaler is here (tests/survival/test_amp.py), FLOPs are no payload."""

ERRORS = [
    ValueError("broken"),
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory."),
    RecursionError("too deep"),
    AssertionError(),
]


def breakable() -> list[tuple[type[Any], str]]:
    """Every method of every probe that is called during training."""
    with contextlib.ExitStack() as stack:
        probes = Attachment(stack.enter_context(contextlib.nullcontext(mlp())), CONFIG, print, None).probes  # type: ignore[arg-type]
    return [(type(p), m) for p in probes for m in MOMENTS if m in vars(type(p))]


@pytest.mark.parametrize(("probe", "moment"), breakable(), ids=lambda part: getattr(part, "__name__", part))
def test_a_probe_that_fails_is_contained_and_said(
    probe: type[Any], moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training is bitwise the same, every step is there, and a note names the probe."""
    path = tmp_path / "run.jsonl"
    name = "transformer-encoder" if probe.name == "attention" else "clip-grad-norm"
    bare = CASES[name].bare
    failures: list[int] = []

    def fail(*args: Any, **kwargs: Any) -> None:
        failures.append(1)
        raise ValueError("broken on purpose")

    monkeypatch.setattr(probe, moment, staticmethod(fail) if moment in ("decode", "complete") else fail)
    config = dataclasses.replace(CONFIG, histograms=True, attention=True)
    watched = CASES[name].run(functools.partial(Watcher, path=path, config=config))
    assert first_difference(bare, watched) is None
    records = assert_live_equals_replay(path, troubled=True)
    assert len(steps_in(records)) == bare.steps
    assert isinstance(records[-1], End)
    assert failures or (probe.__name__, moment) in NEEDS_MORE
    if len(failures) > 1 and moment != "detach":  # one failure is not yet a habit
        assert any(probe.name in said and "broken on purpose" in said for said in troubles(records))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_every_kind_of_failure_is_contained(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchwatch.probes.activations import ActivationProbe
    from torchwatch.probes.gradients import GradientProbe

    path = tmp_path / "run.jsonl"

    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(GradientProbe, "gradients", fail)
    monkeypatch.setattr(ActivationProbe, "observe", fail)
    watched = CASES["inplace-relu"].run(functools.partial(Watcher, path=path, config=CONFIG))
    assert first_difference(CASES["inplace-relu"].bare, watched) is None
    said = " ".join(troubles(assert_live_equals_replay(path, troubled=True)))
    assert type(error).__name__ in said
    assert "gradients" in said
    assert "activations" in said


def test_a_probe_that_failed_once_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchwatch.probes.gradients import GradientProbe

    path, original, failures = tmp_path / "run.jsonl", GradientProbe.gradients, []

    def fail_once(self: GradientProbe, *args: Any, **kwargs: Any) -> None:
        if not failures:
            failures.append(1)
            raise MemoryError
        original(self, *args, **kwargs)

    monkeypatch.setattr(GradientProbe, "gradients", fail_once)
    loop = Loop()
    with Watcher(loop.model, path, config=CONFIG):
        for _ in range(4):
            loop.step()
    assert [step.grad_norm is None for step in steps_in(list(read_records(path)))] == [
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize("where", ["sink", "check"])
def test_a_failing_sink_or_check_is_contained_and_said(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchwatch.check

    class Broken:
        def write(self, record: Record) -> None:
            raise OSError("sink is broken on purpose")

        def close(self) -> None:
            raise OSError("sink is broken on purpose")

    def find(history: Any, limits: Any) -> Any:
        raise ZeroDivisionError("check is broken on purpose")

    path, loop = tmp_path / "run.jsonl", Loop()
    if where == "check":
        import dataclasses

        checks = torchwatch.check.all_checks()
        broken = {k: dataclasses.replace(c, find=find) if k == "loss-spike" else c for k, c in checks.items()}
        monkeypatch.setattr(torchwatch.check, "all_checks", lambda: broken)
    with Watcher(loop.model, path, config=CONFIG, sinks=[Broken()] if where == "sink" else []) as watch:
        for _ in range(5):
            watch.log(loss=loop.step())
    records = list(read_records(path))
    assert len(steps_in(records)) == 5
    assert isinstance(records[-1], End)
    assert any("broken on purpose" in said for said in troubles(records))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("moment", ["gradients", "after_step"])
def test_an_interrupt_that_lands_in_our_code_passes(
    error: type[BaseException], moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C can strike anywhere, in a probe as well: it is the host's, and it arrives."""
    from torchwatch.probes.gradients import GradientProbe
    from torchwatch.probes.updates import UpdateProbe

    path, loop = tmp_path / "run.jsonl", Loop()

    def interrupted(*args: Any, **kwargs: Any) -> None:
        if loop.taken == 1:
            raise error

    monkeypatch.setattr(GradientProbe if moment == "gradients" else UpdateProbe, moment, interrupted)

    def train() -> None:
        with Watcher(loop.model, path, config=CONFIG):
            for _ in range(3):
                loop.step()

    with pytest.raises(error):
        train()
    end = assert_live_equals_replay(path)[-1]
    assert isinstance(end, End)
    assert end.status == "interrupted"


class Unspeakable(Exception):
    """An exception that cannot be put into words."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_an_exception_of_the_host_passes_even_if_it_cannot_be_printed(tmp_path: Path) -> None:
    path, loop = tmp_path / "run.jsonl", Loop()

    def train() -> None:
        with Watcher(loop.model, path, config=CONFIG):
            loop.step()
            raise Unspeakable

    with pytest.raises(Unspeakable):
        train()
    end = assert_live_equals_replay(path)[-1]
    assert isinstance(end, End)
    assert end.status == "crashed"
    assert "Unspeakable" in (end.error or "")


def test_the_traceback_of_a_crash_is_in_the_file_and_the_exception_is_unchanged(tmp_path: Path) -> None:
    path, loop = tmp_path / "run.jsonl", Loop()
    thrown = ValueError("shapes do not fit")

    def train() -> None:
        with Watcher(loop.model, path, config=CONFIG):
            loop.step()
            raise thrown

    with pytest.raises(ValueError, match="shapes do not fit") as caught:
        train()
    assert caught.value is thrown
    assert thrown.__context__ is None
    assert not hasattr(thrown, "__notes__")
    assert not any("torchwatch" in frame.filename for frame in traceback.extract_tb(thrown.__traceback__)[1:])
    end = assert_live_equals_replay(path)[-1]
    assert isinstance(end, End)
    assert end.error == "ValueError: shapes do not fit"
    assert "in train" in (end.traceback or "")
