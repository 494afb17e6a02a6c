"""An attention's width does not divide into its heads.

What it detects
    The width of an attention's queries is not a multiple of its number of heads. On CUDA also, as an info,
    a head whose width is not a multiple of 8 (``multiple``). Heads are read from the attributes of the
    attention module; one that does not say how many it has is not judged.

Why it matters
    Rows that do not fill a head are cut off, or heads come out unequal: part of the projection is trained
    for nothing. On a GPU, heads of odd widths miss the tensor cores and the fused attention kernels.

What to do
    Choose a width that is the number of heads times 32, 64 or 128.

When it is fine
    An inner width of its own, as in T5, is fine: what counts is the width of the queries, not the model's.
    ``nn.MultiheadAttention`` and most libraries refuse such a split at once; this is for hand-written code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.architecture._fit import unfit
from torchwatch.history.attentions import Attention
from torchwatch.history.kinds import attentions_of

if TYPE_CHECKING:
    from torchwatch.history import History


@dataclass(frozen=True)
class Limits:
    """When a split is bad. A guard at 0 is off.

    Attributes:
        multiple: what a head's width should be a multiple of on CUDA; 0: any will do (numbers).
        own_size: guard: 1 leaves out an attention that says itself how wide a head is, and whose heads
            fill the queries exactly (switch).
    """

    multiple: int = 8
    own_size: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """One warning per attention, and one info about all whose heads are oddly wide."""
    reason = unfit(history, "transformer")
    layout = history.layout
    if reason is not None or layout is None:
        return reason or []
    known = [a for a in attentions_of(history) if a.heads is not None or a.head_size is not None]
    if not known:
        return NotReady("no attention says how many heads it has")
    split = [a for a in known if _is_uneven(a, limits)]
    found = [_uneven(a, layout.step) for a in split]
    odd = [a for a in known if a not in split and limits.multiple and _size(a) % limits.multiple]
    return found + (_odd(odd, limits, layout.step) if odd and _on_cuda(history) else [])


def _is_uneven(attention: Attention, limits: Limits) -> bool:
    heads, width = attention.heads, attention.width
    if heads is None or width is None or width % heads == 0:
        return False
    return not (limits.own_size and attention.head_size and width % attention.head_size == 0)


def _size(attention: Attention) -> int:
    """Width of a head, 0 where it is not known."""
    if attention.head_size is not None:
        return attention.head_size
    return (attention.width or 0) // (attention.heads or 1)


def _on_cuda(history: History) -> bool:
    used = history.header.device.get("parameters_on")
    return isinstance(used, list) and any(str(device).startswith("cuda") for device in used)


def _uneven(attention: Attention, step: int) -> Finding:
    width, heads = attention.width or 0, attention.heads or 1
    return Finding(
        title=f"{width} features do not divide into {heads} heads",
        since_step=step,
        detail=f"{width // heads} features per head leave {width % heads} over.",
        layer=attention.layer,
        metric="features_left_over",
        value=float(width % heads),
        threshold=0.0,
    )


def _odd(odd: list[Attention], limits: Limits, step: int) -> list[Finding]:
    first = odd[0]
    more = f", and {len(odd) - 1} more like it" if len(odd) > 1 else ""
    return [
        Finding(
            title=f"Heads are {_size(first)} wide, which is no multiple of {limits.multiple}{more}",
            since_step=step,
            detail="Fused attention kernels and tensor cores want multiples.",
            severity=Severity.INFO,
            layer=first.layer,
            metric="head_size",
            value=float(_size(first)),
            threshold=float(limits.multiple),
        )
    ]


CHECK = Check(
    severity=Severity.WARNING,
    category=Category.ARCHITECTURE,
    cause=Cause.WIRING,
    when=frozenset({On.LAYOUT}),
    reads=("layout",),
    limits=Limits(),
    find=find,
    fix="Choose a width that is the number of heads times 32, 64 or 128.",
    resolve_after=1,
)
