"""How every survival test watches: once with nobody, once with torchwatch, and nothing may differ."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import pytest

from tests.helpers_replay import assert_live_equals_replay, steps_in
from tests.zoo import Case, Loop, Stage, first_difference
from torchwatch import WatchConfig, Watcher
from torchwatch.records import Layout

if TYPE_CHECKING:
    from pathlib import Path

    from torchwatch.records import Record, Step

SPARSE = WatchConfig(terminal=False, energy=False)
"""The defaults: ten dense steps, then every tenth."""

EVERYTHING = WatchConfig(
    terminal=False,
    energy=False,
    gradients_every=1,
    activations_every=1,
    rare_every=1,
    sentinel=True,
    attention=True,
    histograms=True,
)
"""Every probe that can be switched on, on every step."""

CONFIGS = {"default": SPARSE, "everything": EVERYTHING}
BOTH = [pytest.param("default", marks=pytest.mark.slow), "everything"]
"""Names of the two, as parameters."""


class Survival:
    """What a watched run left: its ``records``, its ``steps`` and the ``stage`` it was played on."""

    def __init__(self, stage: Stage, records: list[Record]) -> None:
        self.stage, self.records = stage, records
        self.steps: list[Step] = steps_in(records)

    @property
    def coverage(self) -> dict[str, str]:
        """What the last layout says is seen and what is not."""
        return self.layouts[-1].coverage

    @property
    def layouts(self) -> list[Layout]:
        """All layouts, oldest first."""
        return [record for record in self.records if isinstance(record, Layout)]


def survive(
    loop: Loop, path: Path, config: WatchConfig = EVERYTHING, *, warns: tuple[str, ...] = ()
) -> Survival:
    """Play the loop bare and watched.

    Asserts that both diaries are bitwise the same, that the file has as many steps as the loop counted,
    that nothing of ours failed, and that replaying the file gives the live alerts.

    Args:
        loop: a training on a stage, see :mod:`tests.zoo`.
        path: run file.
        config: how to watch.
        warns: warnings of the host's own torch calls that are expected (regexes).
    """
    case = Case(loop.__name__ if hasattr(loop, "__name__") else "case", loop, warns)
    bare = case.run()
    watched = case.run(functools.partial(Watcher, path=path, config=config))
    assert first_difference(bare, watched) is None
    survival = Survival(watched, assert_live_equals_replay(path))
    assert [step.step for step in survival.steps] == list(range(1, bare.steps + 1))
    return survival
