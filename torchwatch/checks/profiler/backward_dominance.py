"""The backward pass takes much more than its usual two thirds.

What it detects
    The backward pass has more than 75 % of forward and backward pass together, in the last profiler window
    and by the clock of sampled steps where there is one. Each layer's backward pass computes two products
    where its forward pass computes one, so that about 67 % are usual.

Why it matters
    Something is computed again in the backward pass, or waits there: activation checkpointing does the
    forward pass twice, a custom backward may be slow, gradients of all ranks are reduced there.

What to do
    Look for checkpointing that is not needed any more (it saves memory and costs time), for
    ``retain_graph=True`` and second derivatives, for slow custom ``autograd.Function``. In distributed runs
    compare with one rank.

When it is fine
    With activation checkpointing, which trades this time for memory, 75 to 80 % are as planned. Ranks that
    wait for each other wait in the backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.profiler._window import latest, passes
from torchwatch.text import percent

if TYPE_CHECKING:
    from torchwatch.history import History


@dataclass(frozen=True)
class Limits:
    """When the backward pass dominates.

    Attributes:
        share: share of forward and backward pass together above which it does (share).
    """

    share: float = 0.75


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding, about the whole model."""
    known = passes(history)
    if not known:
        return NotReady("the window has no forward and backward times")
    share = min(p.backward / (p.forward + p.backward) for p in known)
    if share <= limits.share:
        return []
    return [
        Finding(
            title=f"The backward pass takes {percent(share)} of both passes",
            since_step=latest(history).step,
            detail="About 67 % are usual"
            + (", and the clock of sampled steps says so, too." if len(known) > 1 else ".")
            + " Is something computed again (checkpointing), or does it wait for other ranks?",
            metric="profile.backward_share",
            value=share,
            threshold=limits.share,
        )
    ]


CHECK = Check(
    severity=Severity.INFO,
    category=Category.PROFILER,
    cause=Cause.OTHER,
    when=frozenset({On.PROFILE}),
    reads=("profile",),
    uses=("forward_share", "backward_share"),
    limits=Limits(),
    find=find,
    fix="Look for activation checkpointing that is not needed, second derivatives and slow custom backwards.",
)
