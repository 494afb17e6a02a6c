"""Stacks of transformer blocks, and where they normalise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.history.attentions import around
from torchwatch.history.kinds import called, does_nothing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torchwatch.history.attentions import Attention
    from torchwatch.records import LayerInfo, Layout

_SAID_FIRST = ("norm_first", "pre_norm", "normalize_before")


@dataclass(frozen=True, slots=True)
class Stack:
    """Blocks under one path.

    Attributes:
        name: the path, without the blocks' numbers.
        blocks: how many have an attention.
        post_norm: whether they normalise behind the residual sum.
        first_norm: the normalisation of the first block.
    """

    name: str
    blocks: int
    post_norm: bool
    first_norm: str


def stacks(layout: Layout, attentions: Iterable[Attention]) -> list[Stack]:
    """Every stack of numbered blocks that normalise somewhere, in the order of the layout."""
    order = called(layout)
    grouped: dict[str, dict[str, Attention]] = {}
    for attention in attentions:
        block = _block(attention.name)
        if block is not None and attention.order is not None:
            grouped.setdefault(block.rpartition(".")[0], {}).setdefault(block, attention)
    behind = any(_is_normalised_behind(name, blocks, order) for name, blocks in grouped.items())
    made = (_stack(name, blocks, order, behind=behind) for name, blocks in grouped.items())
    return [stack for stack in made if stack is not None]


def _block(name: str) -> str | None:
    """The path up to its last number: ``encoder.layer.3`` of ``encoder.layer.3.attention.self``."""
    names = name.split(".")
    numbers = [i for i, part in enumerate(names) if part.isdigit()]
    return ".".join(names[: numbers[-1] + 1]) if numbers else None


def _stack(name: str, blocks: dict[str, Attention], order: list[LayerInfo], *, behind: bool) -> Stack | None:
    """A stack, None where it never normalises; ``behind``: whether some stack of the model is normalised."""
    block, attention = next(iter(blocks.items()))
    inside = [x for x in order if _is_in(x.name, block)]
    norms = [x for x in inside if _is_norm(x)]
    if not norms:
        return None
    said = [p for x in inside if (p := _said_first(x)) is not None]
    before = any((x.order or 0) < (attention.order or 0) for x in norms)
    post_norm = not said[0] if said else not before and not behind
    return Stack(name, len(blocks), post_norm, norms[0].name)


def _said_first(layer: LayerInfo) -> bool | None:
    """What the module around a layer says about it."""
    parent = around(layer)
    return next((bool(parent[n]) for n in _SAID_FIRST if isinstance(parent.get(n), bool)), None)


def _is_normalised_behind(name: str, blocks: dict[str, Attention], order: list[LayerInfo]) -> bool:
    """Whether the first layer behind the stack normalises, as behind blocks that add unnormalised sums."""
    inside = tuple(f"{block}." for block in blocks)
    last = max((i for i, x in enumerate(order) if x.name.startswith(inside)), default=-1)
    behind = next((x for x in order[last + 1 :] if not does_nothing(x) and x.name != name), None)
    return behind is not None and _is_norm(behind)


def _is_in(name: str, path: str) -> bool:
    return name == path or name.startswith(f"{path}.")


def _is_norm(layer: LayerInfo) -> bool:
    return "norm" in layer.type.lower() and "batchnorm" not in layer.type.lower()
