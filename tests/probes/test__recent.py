"""Units of a tensor are known again as long as it is the same tensor with the same values."""

from __future__ import annotations

import weakref

import torch
from torch import nn

from torchwatch.probes._recent import RecentUnits


def units(value: float) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([value]), torch.tensor([value])


def test_the_same_tensor_is_known_on_the_same_axis() -> None:
    recent, x, own = RecentUnits(), torch.ones(2, 3, 4), units(1)
    assert recent.get(x, 1) is None
    recent.add(x, 1, own)
    assert recent.get(x, 1) is own
    assert recent.get(x, 2) is None


def test_equal_tensors_and_views_are_other_tensors() -> None:
    recent, x = RecentUnits(), torch.ones(2, 3)
    recent.add(x, 1, units(1))
    assert all(recent.get(other, 1) is None for other in (x.clone(), x.detach(), x[:], x.view(2, 3)))


def test_what_was_written_in_place_is_another_one() -> None:
    """As ``ReLU(inplace=True)`` does, by itself or through a view."""
    recent, x, y = RecentUnits(), torch.ones(2, 3), torch.ones(2, 3)
    recent.add(x, 1, units(1))
    recent.add(y, 1, units(2))
    nn.functional.relu_(x)
    y[0].zero_()
    assert (recent.get(x, 1), recent.get(y, 1)) == (None, None)
    now = units(3)
    recent.add(x, 1, now)
    assert recent.get(x, 1) is now


def test_tensors_of_inference_mode_are_never_known() -> None:
    """Torch counts no changes of them."""
    recent = RecentUnits()
    with torch.inference_mode():
        x = torch.ones(2, 3)
    recent.add(x, 1, units(1))
    assert recent.get(x, 1) is None


def test_tensors_are_not_kept_alive_and_an_address_alone_is_no_identity() -> None:
    recent = RecentUnits()
    for i in range(500):
        x = torch.full((2, 3), float(i))
        assert recent.get(x, 1) is None, "the place of a dead one, maybe"
        recent.add(x, 1, units(i))
        dead = weakref.ref(x)
        del x
        assert dead() is None


def test_units_are_not_kept_without_end() -> None:
    recent, kept = RecentUnits(), []
    tensors = [torch.ones(1, 1) for _ in range(100)]
    for i, x in enumerate(tensors):
        own = units(i)
        kept.append(weakref.ref(own[0]))
        recent.add(x, 1, own)
        del own
    assert sum(reference() is not None for reference in kept) < 20
    recent.clear()
    assert all(reference() is None for reference in kept)


def test_the_last_few_are_known_and_the_oldest_forgotten() -> None:
    recent, tensors = RecentUnits(), [torch.ones(1, 1) for _ in range(40)]
    sizes = []
    for i, x in enumerate(tensors):
        recent.add(x, 1, units(i))
        known = [j for j, y in enumerate(tensors) if recent.get(y, 1) is not None]
        assert known == list(range(i + 1 - len(known), i + 1))
        sizes.append(len(known))
    assert sizes == sorted(sizes), "one at a time"
    assert 2 <= sizes[-1] < 20
    recent.clear()
    assert all(recent.get(x, 1) is None for x in tensors)
