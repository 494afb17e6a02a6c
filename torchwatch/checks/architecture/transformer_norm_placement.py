"""A deep post-norm transformer is trained without warm-up.

What it detects
    More than six blocks in one stack (``blocks``) normalise after their residual sum (post-norm), and the
    learning rate did not rise at the start. Post-norm is told from call order: the first normalisation of a
    block comes after its attention, and in no stack one follows the last block at once. Blocks that say
    themselves (``norm_first``) are believed.

Why it matters
    In post-norm blocks the gradient of the last layers is large at the start, so that a full learning rate
    throws the model off before it has learned anything (Xiong et al., 2020, "On Layer Normalization in the
    Transformer Architecture").

What to do
    Warm up over some hundred or thousand steps, or normalise first (``norm_first=True``) with one more
    normalisation behind the last block.

When it is fine
    Fine-tuning a model that was warmed up when it was pretrained: declare ``fine_tuning`` (``pretrained``).
    Models that normalise a block's output before they add it (OLMo 2, Swin V2) have the same call order but
    a normalisation behind the last block: they are left alone. It is never more than an info.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.architecture._blocks import stacks
from torchwatch.checks.architecture._fit import unfit
from torchwatch.history.kinds import attentions_of

if TYPE_CHECKING:
    from torchwatch.history import History

_LEAST_WARM_UP = 20
"""What :meth:`History.warm_up_end` says where the rate never rose (steps)."""


@dataclass(frozen=True)
class Limits:
    """When warm-up is missed. A guard at 0 is off.

    Attributes:
        blocks: most post-norm blocks in one stack that need none (blocks).
        steps: steps after which it is judged (steps).
        warm_up: guard: 1 leaves out runs whose learning rate rose at the start (switch).
        pretrained: guard: 1 leaves out runs declared as fine-tuning (switch).
    """

    blocks: int = 6
    steps: int = 20
    warm_up: int = 1
    pretrained: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """One finding per stack."""
    reason = unfit(history, "transformer")
    layout = history.layout
    if reason is not None or layout is None:
        return reason or []
    known = history.of_layout("stacks", lambda: stacks(layout, attentions_of(history)))
    deep = [s for s in known if s.post_norm and s.blocks > limits.blocks]
    if not deep or (limits.pretrained and history.declared.get("fine_tuning")):
        return []
    if history.steps_seen < limits.steps:
        return NotReady(f"needs {limits.steps} steps, {history.steps_seen} seen")
    if limits.warm_up and _warmed_up(history):
        return []
    return [
        Finding(
            title=f"{stack.blocks} post-norm blocks are trained without warm-up",
            since_step=layout.step,
            detail=f"In {stack.name or 'the model'} normalisation follows the residual sum, "
            "and the learning rate did not rise at the start.",
            layer=stack.first_norm,
            metric="post_norm_blocks",
            value=float(stack.blocks),
            threshold=float(limits.blocks),
        )
        for stack in deep
    ]


def _warmed_up(history: History) -> bool:
    """Whether the learning rate rose within the first hundred steps, or later before it first fell."""
    rates = history.first("lr").values
    return bool(rates.size and (rates > rates[0]).any()) or history.warm_up_end() > _LEAST_WARM_UP


CHECK = Check(
    severity=Severity.INFO,
    category=Category.ARCHITECTURE,
    cause=Cause.OTHER,
    when=frozenset({On.INTERVAL}),
    reads=("layout", "lr"),
    limits=Limits(),
    find=find,
    fix="Warm the learning rate up, or normalise first with one more normalisation behind the last block.",
    snippet="nn.TransformerEncoderLayer(d_model, nhead, norm_first=True)",
)
