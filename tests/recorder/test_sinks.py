"""All sinks are told; one that fails is switched off, named, closed, and takes nothing else with it."""

from __future__ import annotations

import pytest

from tests.helpers_runs import header, steps
from torchwatch.recorder.sinks import Sinks


class Whole:
    """A sink with everything there is; one of its methods can be broken."""

    name = "whole"

    def __init__(self, broken: str = "") -> None:
        self.broken, self.log = broken, []

    def write(self, record) -> None:
        self._did("write")

    def close(self) -> None:
        self._did("close")

    def drain(self, seconds: float) -> None:
        self.seconds = seconds
        self._did("drain")

    def counts(self) -> dict[str, int]:
        self._did("counts")
        return {"delivered": 2, "undelivered": 1}

    def said(self) -> list[str]:
        self._did("said")
        return ["hello"] if "write" in self.log and "drain" not in self.log else []

    def _did(self, what: str) -> None:
        self.log.append(what)
        if what == self.broken:
            raise RuntimeError(f"{what} is broken")


class Plain:
    def __init__(self) -> None:
        self.seen, self.closed = 0, 0

    def write(self, record) -> None:
        self.seen += 1

    def close(self) -> None:
        self.closed += 1


def whole_life(*sinks) -> tuple[dict | None, list[tuple[str, str]]]:
    said: list[tuple[str, str]] = []
    all_of_them = Sinks(sinks)
    all_of_them.write([header(), *steps(1, 2)], lambda name, sentence: said.append((name, sentence)))
    counts = all_of_them.drain(1.0, lambda name, sentence: said.append((name, sentence)))
    all_of_them.close(1.0, lambda name, sentence: said.append((name, sentence)))
    return counts, said


def test_a_sink_that_only_writes_has_no_counts() -> None:
    sink = Plain()
    assert whole_life(sink) == (None, [])
    assert (sink.seen, sink.closed) == (3, 1)


def test_what_a_sink_says_and_counts_arrives() -> None:
    counts, said = whole_life(Whole(), Whole(), Plain())
    assert counts == {n: {"delivered": 2, "undelivered": 1} for n in ("whole", "whole-2")}
    assert said == [("whole", "hello")] * 2


@pytest.mark.parametrize("broken", ["write", "close", "drain", "counts", "said"])
def test_one_that_fails_is_named_once_and_the_others_go_on(broken: str) -> None:
    bad, good = Whole(broken), Plain()
    _, said = whole_life(bad, good)
    assert [s for s in said if s[0] == "Whole"] == [
        ("Whole", f"Whole switched off: RuntimeError: {broken} is broken")
    ]
    assert (good.seen, good.closed) == (3, 1)
    assert bad.log.count("close") >= 1, "a port or a file does not stay open"
    assert bad.log.count("write") == (1 if broken == "write" else 3)


def test_all_drain_within_the_same_time() -> None:
    first, second = Whole(), Whole()
    Sinks([first, second]).drain(1.0, lambda *_: None)
    assert 0 <= second.seconds <= first.seconds <= 1.0
