"""Our failures stay with us; the host's pass."""

from __future__ import annotations

import pytest

from torchwatch.guard import Guard


def test_a_failing_collector_is_switched_off_and_named_once() -> None:
    said: list[tuple[str, str]] = []
    guard = Guard(lambda *what: said.append(what))
    for number in range(4):
        with guard("weights"):
            raise ValueError(f"bad {number}")
    assert guard.is_off("weights")
    assert not guard.is_off("gradients")
    assert len(said) == 1
    assert said[0][0] == "weights"
    assert "switched off after 2 failures: ValueError: bad 1" in said[0][1]


def test_one_failure_is_forgiven() -> None:
    said: list[object] = []
    guard = Guard(lambda *what: said.append(what))
    with guard("weights"):
        raise MemoryError
    with guard("weights"):
        pass
    assert not guard.is_off("weights")
    assert said == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_belongs_to_the_host_passes(error) -> None:
    guard = Guard(lambda *_: None, allowed=1)
    with pytest.raises(error), guard("weights"):
        raise error
    assert not guard.is_off("weights")
