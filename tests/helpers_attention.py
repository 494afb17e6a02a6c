"""Models with planted attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Look(nn.Module):
    """Two heads over places: one looks at the place that the input's first channel marks, one everywhere.

    The marked place's second channel is the output; ``sharpness`` says how sure the first head is.
    """

    def __init__(self, sharpness: float = 12.0) -> None:
        super().__init__()
        self.sharpness = sharpness
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        marked = (x[..., 0] * self.sharpness * self.scale)[:, None, None, :].expand(-1, 1, x.shape[1], -1)
        weights = torch.cat([marked, torch.zeros_like(marked)], 1).softmax(-1)
        return (weights @ x[:, None, :, 1:2])[:, 0].mean(1)


class Looking(nn.Module):
    """:class:`Look`, and classes by the sign of what it finds."""

    def __init__(self, sharpness: float = 12.0, *, classes: bool = False) -> None:
        super().__init__()
        self.look, self.classes = Look(sharpness), classes

    def forward(self, x: Tensor) -> Tensor:
        found = self.look(x)
        return torch.cat([-found, found], 1) * 4 if self.classes else found


def marked(samples: int = 40, places: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Inputs with one marked place each, and its value (N, 1)."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.randint(places, (samples,), generator=generator)
    x = torch.zeros(samples, places, 2)
    x[..., 1] = torch.randn(samples, places, generator=generator)
    x[torch.arange(samples), place, 0] = 1
    return x, x[torch.arange(samples), place, 1:]


class Crossed(nn.Module):
    """Two streams that look at one another; ``same``: both by the same scores, so that they agree."""

    def __init__(self, *, same: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.same = same
        self.a_to_b, self.b_to_a = Cross(), Cross()
        self.head = nn.Linear(4, 2)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        there = self.a_to_b(a, b, 1.0)
        back = self.b_to_a(b, a, 1.0 if self.same else -1.0)
        return self.head(torch.cat([there.mean(1), back.mean(1)], 1))


class Cross(nn.Module):
    """One head; queries and keys are what they are."""

    def forward(self, a: Tensor, b: Tensor, sign: float) -> Tensor:
        weights = (sign * (a @ b.transpose(-2, -1))).softmax(-1)
        return weights @ b


def streams(samples: int = 30, seed: int = 0) -> list[tuple[tuple[Tensor, Tensor], Tensor]]:
    """One batch of two streams of 5 and 7 places, and classes."""
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(samples, n, 2, generator=generator) for n in (5, 7))
    return [((a, b), torch.randint(2, (samples,), generator=generator))]
