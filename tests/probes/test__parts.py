"""Parameters in parts: all of them, each once, the odd ones apart, and anew when something changes."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers_probe import parameters
from torchwatch.patient import Patient
from torchwatch.probes._parts import PACKED, Part, PartCache, Parts, readable, readable_gradient

MIXED = ((PACKED,), (3, 4), (PACKED + 1,), (1,), (40, 40), (7,))
"""Around the size up to which tensors are copied together."""


def parts_of(model: nn.Module, held: list[int] | None = None, cache: PartCache | None = None) -> Parts:
    patient = Patient(model)
    every = list(range(len(patient.parameters)))
    held = every if held is None else held
    return (cache or PartCache()).of(patient, None, held, [i for i in every if i not in held])


def assert_complete(parts: Parts, model: nn.Module, held: list[int] | None = None) -> None:
    """Every parameter is in one part or odd; within a part all have one type and what is said of them."""
    every = list(model.parameters())
    found = [i for part in parts.parts for i in part.indices.tolist()] + parts.odd
    assert sorted(found) == list(range(len(every)))
    for part in parts.parts:
        own = [every[i] for i in part.indices]
        assert len({(p.dtype, p.device) for p in own}) == 1
        assert part.sizes == [p.numel() for p in own]
        assert part.own.tolist() == [held is None or i in held for i in part.indices]
        assert part.host
        if part.starts is not None:
            assert part.starts.tolist() == np.cumsum([0, *part.sizes[:-1]]).tolist()
            assert len(own) > 1
            assert max(part.sizes) <= PACKED


@pytest.mark.parametrize("held", [None, [], [0], [5, 1], [0, 1, 2, 3, 4, 5]])
def test_small_ones_are_put_together_and_large_ones_are_not(held: list[int] | None) -> None:
    model = parameters(*MIXED)
    parts = parts_of(model, held)
    assert_complete(parts, model, held)
    packed = {i for part in parts.parts if part.starts is not None for i in part.indices.tolist()}
    assert packed == {0, 1, 3, 5}
    assert (parts.odd, parts.unfinished) == ([], False)


def test_types_are_kept_apart() -> None:
    model = nn.ParameterList(
        nn.Parameter(torch.ones(4, dtype=dtype))
        for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16) * 2
    )
    parts = parts_of(model)
    assert_complete(parts, model)
    together = [part.starts is not None for part in parts.parts]
    assert len(parts.parts) == 4
    assert sum(together) == 2, "half precision has kernels of its own only"


def test_a_small_one_alone_is_not_copied() -> None:
    (part,) = parts_of(parameters((5,))).parts
    assert part.starts is None


class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.lazy, self.plain = nn.LazyLinear(3), nn.Linear(2, 3)


def test_odd_parameters_are_named_and_lazy_ones_looked_at_again() -> None:
    model = nn.ParameterDict(
        {
            "complex": nn.Parameter(torch.ones(3, dtype=torch.complex64)),
            "empty": nn.Parameter(torch.zeros(0)),
            "meta": nn.Parameter(torch.ones(3, device="meta")),
            "plain": nn.Parameter(torch.ones(3)),
            "whole": nn.Parameter(torch.ones(3, dtype=torch.int64), requires_grad=False),
        }
    )
    names = [name for name, _ in model.named_parameters()]
    parts = parts_of(model)
    assert {names[i] for i in parts.odd} == {"complex", "empty", "meta", "whole"}
    assert not parts.unfinished
    model, cache = Lazy(), PartCache()
    patient = Patient(model)
    held = list(range(4))
    lazy = cache.of(patient, None, held)
    assert lazy.odd == [0, 1]
    with torch.no_grad():
        model.lazy(torch.ones(1, 5))
    assert cache.of(patient, None, held).odd == []


def test_the_same_parts_serve_until_something_changes() -> None:
    model = parameters(*MIXED)
    patient, cache = Patient(model), PartCache()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    held = patient.held_by(optimizer)
    first = cache.of(patient, optimizer, held)
    assert cache.of(patient, optimizer, held) is first
    assert cache.of(patient, optimizer, list(held)) is first, "equal indices are the same request"
    assert cache.of(patient, optimizer, held[:2]) is not first
    assert cache.of(patient, optimizer, held[:2], held[2:]) is not cache.of(patient, optimizer, held[:2])
    model.append(nn.Parameter(torch.ones(2)))
    patient.refresh()
    again = cache.of(patient, optimizer, held, [len(MIXED)])
    assert_complete(again, model, held)


def test_optimizers_have_parts_of_their_own_and_not_without_end() -> None:
    model = parameters((3,), (4,))
    patient, cache = Patient(model), PartCache()
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for _ in range(60)]
    found = [cache.of(patient, optimizer, [i % 2], [1 - i % 2]) for i, optimizer in enumerate(optimizers)]
    for i, parts in enumerate(found):
        (part,) = parts.parts
        assert part.own.tolist() == [True, False]
        assert part.indices.tolist() == [i % 2, 1 - i % 2]
    kept = [cache.of(patient, o, [i % 2], [1 - i % 2]) is found[i] for i, o in enumerate(optimizers)]
    assert sum(kept) < 40
    cache.clear()
    assert cache.of(patient, optimizers[-1], [1], [0]) is not found[-1]


def give(model: nn.ParameterList, which: set[int]) -> None:
    for i, p in enumerate(model):
        p.grad = torch.full_like(p, float(i)) if i in which else None


def assert_gradients(part: Part, model: nn.ParameterList, which: set[int]) -> None:
    found = part.gradients()
    assert found is not None
    there, gradients = found
    wanted = [i for i in part.indices.tolist() if i in which]
    assert there.indices.tolist() == wanted
    assert [id(g) for g in gradients] == [id(model[i].grad) for i in wanted]
    assert there.sizes == [model[i].numel() for i in wanted]
    assert len(there.own) == len(wanted)
    if part.starts is not None:
        assert there.starts is not None
        assert there.starts.tolist() == np.cumsum([0, *there.sizes[:-1]]).tolist()[: len(wanted) or 1]


def test_gradients_that_are_there_make_a_part_of_their_own() -> None:
    """They come and go from step to step, as where a branch is not taken."""
    model = parameters(*MIXED)
    parts = parts_of(model, [0, 1, 2])
    for which in ({0, 1, 2, 3, 4, 5}, {0, 5}, {0, 5}, {1, 2, 3}, set(), {4}, {0, 1, 2, 3, 4, 5}):
        give(model, which)
        for part in parts.parts:
            assert_gradients(part, model, which)


def test_a_gradient_that_is_no_plain_tensor_sends_the_part_back() -> None:
    class Odd(torch.Tensor):
        pass

    model = parameters((3,), (4,))
    (part,) = parts_of(model).parts
    give(model, {0, 1})
    model[0].grad = model[0].grad.as_subclass(Odd)
    assert part.gradients() is None
    assert part.parameters() is not None


def test_parameters_that_are_gone_are_left_out() -> None:
    model = parameters((3,), (4,), (5,))
    patient = Patient(model)
    (part,) = PartCache().of(patient, None, [0, 1, 2]).parts
    kept = [model[0], model[2]]
    del model, patient
    found = part.parameters()
    assert found is not None
    assert found[0].indices.tolist() == [0, 2]
    assert [id(p) for p in found[1]] == [id(p) for p in kept]


def test_what_can_be_read_of_a_tensor() -> None:
    x = torch.arange(6.0).view(2, 3)
    assert readable(nn.Parameter(x)) is not None
    sparse = readable(
        torch.sparse_coo_tensor([[0, 0, 1]], [1.0, 2.0, 5.0], (9,), check_invariants=True)  # or torch warns
    )
    assert sparse is not None
    assert sparse.tolist() == [3, 5], "entries at one place are added up"
    pair = readable(torch.tensor([3 + 4j]).conj())
    assert pair is not None
    assert pair.tolist() == [[3, -4]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        unreadable = [
            torch.zeros(0), torch.ones(2, device="meta"), torch.ones(2, dtype=torch.int64),
            torch.quantize_per_tensor(x, 0.1, 0, torch.qint8), torch.nested.nested_tensor([x[0], x[1, :2]]),
            x.to_sparse_csr(), Lazy().lazy.weight,
        ]  # fmt: skip
    assert [readable(tensor) for tensor in unreadable] == [None] * len(unreadable)


def test_a_gradient_is_read_without_its_graph() -> None:
    weight = nn.Parameter(torch.tensor([2.0, 3.0]))
    assert readable_gradient(weight) is None
    weight.grad = torch.autograd.grad((weight**3).sum(), weight, create_graph=True)[0]
    found = readable_gradient(weight)
    assert found is not None
    assert found.tolist() == [12, 27]
    assert not found.requires_grad
