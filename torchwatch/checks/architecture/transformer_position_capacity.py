"""The sequences are longer than the learned position table.

What it detects
    In the first step, more positions were looked up than the table of positions has rows. As an info, more
    than 90 % of them (``near``). A row that the table keeps for padding, and rows that its class skips, do
    not count. Tables are embeddings told by their names (``position``, ``pos``, ``wpe``), as wide as the
    tokens; those of relative distances and of coordinates do not count. A plain parameter that is too short
    stops the training by itself and is not looked at.

Why it matters
    Where that does not stop the training at once, positions are clamped or wrapped around, and the model
    cannot tell the far end of a sequence from another place. Close to the end, the next longer batch stops
    the training.

What to do
    Truncate the sequences to the table, make the table longer, or use rotary or relative positions.

When it is fine
    Several short texts packed into one sequence start counting again: with position numbers among the
    model's inputs nothing is said (``given``). Sequences that are cut to exactly the table's length are the
    usual way of training (``full``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.check import Category, Cause, Check, Finding, NotReady, On, Severity
from torchwatch.checks.architecture._fit import unfit
from torchwatch.checks.architecture._tables import Table, positions
from torchwatch.history.kinds import whole

if TYPE_CHECKING:
    from torchwatch.history import History
    from torchwatch.records import Layout


@dataclass(frozen=True)
class Limits:
    """When a table is too short. A guard at 0 is off.

    Attributes:
        near: share of the table above which the sequences come close to its end (share).
        given: guard: 1 leaves out models that are given position numbers (switch).
        full: guard: 1 leaves out sequences exactly as long as the table (switch).
    """

    near: float = 0.9
    given: int = 1
    full: int = 1


def find(history: History, limits: Limits) -> list[Finding] | NotReady:
    """One finding per table; what the model was given is known from the first interval on at the latest."""
    reason = unfit(history, "transformer")
    layout = history.layout
    if reason is not None or layout is None:
        return reason or []
    found = history.of_layout(("position tables", limits), lambda: _findings(layout, limits))
    if isinstance(found, list) and found and limits.given:
        if not history.steps_seen:
            return NotReady("what the model was given is not known yet")
        return [] if history.of_layout("positions given", lambda: _are_given(history)) else found
    return found


def _findings(layout: Layout, limits: Limits) -> list[Finding] | NotReady:
    found = positions(layout)
    if not found:
        return NotReady("no learned table of positions was read")
    made = (_finding(table, limits, layout.step) for table in found)
    return [finding for finding in made if finding is not None]


def _finding(table: Table, limits: Limits, step: int) -> Finding | None:
    rows = _rows(table)
    share = table.length / max(rows, 1)
    if share <= limits.near or (limits.full and table.length == rows):
        return None
    over = share > 1
    verb = "exceed" if over else "nearly fill"
    return Finding(
        title=f"Sequences of {table.length:,} positions {verb} a table of {rows:,}",
        since_step=step,
        detail="Positions beyond the table share their embedding with others."
        if over
        else f"Only {rows - table.length:,} positions are left for longer sequences.",
        severity=Severity.CRITICAL if over else Severity.INFO,
        layer=table.layer.name,
        metric="positions",
        value=float(table.length),
        threshold=float(rows) if over else limits.near * rows,
    )


def _rows(table: Table) -> int:
    """Rows that positions can use: those up to the padding's, or skipped by the class, are not."""
    padding, offset = whole(table.layer, "padding_idx"), whole(table.layer, "offset")
    return table.rows - max(0 if padding is None else padding + 1, offset or 0)


def _are_given(history: History) -> bool:
    """Whether position numbers are among the model's arguments."""
    return any(
        "position" in str(tensor.get("name", ""))
        for stretch in history.stretches("inputs", 1)
        for tensor in stretch.value.get("tensors", ())
    )


CHECK = Check(
    severity=Severity.CRITICAL,
    category=Category.ARCHITECTURE,
    cause=Cause.WIRING,
    when=frozenset({On.LAYOUT, On.INTERVAL}),
    reads=("layout",),
    uses=("inputs",),
    limits=Limits(),
    find=find,
    fix="Truncate the sequences to the position table, or make the table longer.",
    snippet="tokenizer(texts, truncation=True, max_length=model.config.max_position_embeddings)",
)
