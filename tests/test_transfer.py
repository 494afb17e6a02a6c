"""The ring of pinned buffers, with host memory and an event of our own in place of the device's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchwatch.probe import Block, Frame
from torchwatch.schedule import unmeasured
from torchwatch.transfer import Ring, Transfers


class Event:
    """Passed when told so, or when somebody waits."""

    def __init__(self) -> None:
        self.recorded = 0
        self.passed = self.waited = False

    def record(self) -> None:
        self.recorded += 1
        self.passed = False

    def query(self) -> bool:
        return self.passed

    def synchronize(self) -> None:
        self.passed = self.waited = True


class Setup:
    """Transfers with a small ring; ``events`` are those made so far."""

    def __init__(self, slots: int = 2) -> None:
        self.events: list[Event] = []
        self.allocated: list[int] = []
        self.transfers = Transfers(slots, self.ring)

    def ring(self, device: torch.device, slots: int) -> Ring:
        def event() -> Event:
            self.events.append(Event())
            return self.events[-1]

        def allocate(values: int) -> torch.Tensor:
            self.allocated.append(values)
            return torch.empty(values, dtype=torch.float64)

        return Ring(allocate, event, slots)


CPU = torch.device("cpu")
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool]


@given(
    st.lists(
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 3), max_size=3)), min_size=1, max_size=8
    )
)
def test_what_arrives_is_what_was_sent(shapes: list[tuple[torch.dtype, list[int]]]) -> None:
    setup = Setup()
    tensors = [(torch.arange(np.prod(s, dtype=int)).reshape(s) - 1.5).to(dtype) for dtype, s in shapes]
    copy = setup.transfers.start(CPU, tensors)
    assert copy is not None
    setup.events[0].passed = True
    arrived = copy.values()
    assert [a.shape for a in arrived] == [(t.numel(),) for t in tensors]
    for array, tensor in zip(arrived, tensors, strict=True):
        np.testing.assert_array_equal(array, tensor.reshape(-1).to(torch.float64).numpy())


def test_values_are_not_touched_by_the_next_step_in_the_same_buffer() -> None:
    setup = Setup(slots=1)
    first = setup.transfers.start(CPU, [torch.tensor([1.0, 2.0])])
    assert first is not None
    kept = first.values()
    second = setup.transfers.start(CPU, [torch.tensor([3.0, 4.0])])
    assert second is not None
    assert kept[0].tolist() == [1.0, 2.0]
    assert second.values()[0].tolist() == [3.0, 4.0]
    assert len(setup.allocated) == 1


def test_a_full_ring_drops_and_counts_and_never_waits() -> None:
    setup = Setup(slots=2)
    copies = [setup.transfers.start(CPU, [torch.ones(3)]) for _ in range(3)]
    assert [c is None for c in copies] == [False, False, True]
    assert setup.transfers.dropped == 1
    assert not any(e.waited for e in setup.events)
    assert copies[0] is not None
    copies[0].values()
    assert setup.transfers.start(CPU, [torch.ones(3)]) is not None


def test_it_is_ready_when_the_event_has_passed_and_finish_waits() -> None:
    setup = Setup()
    copy = setup.transfers.start(CPU, [torch.ones(1)])
    assert copy is not None
    assert not copy.ready()
    copy.finish()
    assert copy.ready()
    assert setup.events[0].waited


def test_a_larger_step_gets_a_larger_buffer() -> None:
    setup = Setup(slots=1)
    small = setup.transfers.start(CPU, [torch.ones(1)])
    assert small is not None
    small.values()
    large = setup.transfers.start(CPU, [torch.ones(10_000)])
    assert large is not None
    assert large.values()[0].sum() == 10_000
    assert setup.allocated[-1] >= 10_000


@pytest.mark.parametrize("kind", ["frame", "block"])
def test_on_the_cpu_nothing_is_copied(kind: str) -> None:
    setup = Setup()
    if kind == "frame":
        frame = Frame(unmeasured(1))
        frame.defer(torch.ones(2))
        assert frame.seal(setup.transfers)
        assert frame.ready()
        assert frame.values()[0].tolist() == [1.0, 1.0]
    else:
        block = Block(1, 0, 0.0)
        block.logged = [(0, "loss", torch.tensor(2.0))]
        assert block.seal(setup.transfers)
        assert block.ready()
        assert block.values() == [2.0]
    assert not setup.events
