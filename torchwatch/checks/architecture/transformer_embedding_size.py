"""The embedding of a token is wider than the vocabulary is large.

What it detects
    In a transformer, the token table's width is at least its number of rows (``ratio`` 1). The token table
    is the largest one that is not of positions, token types, times or distances.

Why it matters
    A table of so few rows cannot fill the space it spans: one number per token (a one-hot code) would hold
    as much. Most of the width does nothing for the tokens themselves.

What to do
    A smaller embedding, projected up to the model's width where that has to be large; or a tokenizer with
    a larger vocabulary.

When it is fine
    Models of bytes, characters, amino acids or moves in a game: their vocabulary is small by nature and the
    width is needed for the context. It is never more than an info.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.architecture._fit import unfit
from torchwatch.checks.architecture._tables import words

if TYPE_CHECKING:
    from torchwatch.history import History


@dataclass(frozen=True)
class Limits:
    """When an embedding is too wide. A guard at 0 is off.

    Attributes:
        ratio: smallest ratio of width to vocabulary (ratio).
        vocabulary: guard: a vocabulary smaller than this is left alone (tokens).
    """

    ratio: float = 1.0
    vocabulary: int = 0


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """At most one finding."""
    reason = unfit(history, "transformer")
    layout = history.layout
    if reason is not None or layout is None:
        return reason or []
    table = words(layout)
    if table is None:
        return NotReady("no table of tokens was read")
    if table.width < limits.ratio * table.rows or table.rows < limits.vocabulary:
        return []
    return [
        Finding(
            title=f"Embeddings of {table.width} numbers for a vocabulary of {table.rows}",
            since_step=layout.step,
            layer=table.layer.name,
            metric="width_to_vocabulary",
            value=table.width / max(table.rows, 1),
            threshold=limits.ratio,
        )
    ]


CHECK = Check(
    severity=Severity.INFO,
    category=Category.ARCHITECTURE,
    cause=Cause.OTHER,
    when=frozenset({On.LAYOUT}),
    reads=("layout",),
    limits=Limits(),
    find=find,
    fix="Use a smaller embedding, or a tokenizer with a larger vocabulary.",
    resolve_after=1,
)
