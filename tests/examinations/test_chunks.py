import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchwatch.examinations.chunks import in_chunks, out_of_memory


@given(count=st.integers(0, 50), size=st.integers(-1, 60), fits=st.integers(1, 60))
def test_everything_is_done_once_whatever_fits(count, size, fits):
    def work(start, end):
        if end - start > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return list(range(start, end))

    done = [n for _, _, part in in_chunks(work, count, size) for n in part]
    assert done == list(range(count))


def test_a_single_one_that_does_not_fit_raises():
    def work(start, end):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    with pytest.raises(RuntimeError, match="allocate"):
        list(in_chunks(work, 8, 8))


def test_other_errors_pass_at_once():
    calls = []

    def work(start, end):
        calls.append((start, end))
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes"):
        list(in_chunks(work, 8, 8))
    assert calls == [(0, 8)]
    assert not out_of_memory(RuntimeError("shapes differ"))
