"""Embedding tables, and which of them hold words and which positions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torchwatch.history.kinds import called, whole

if TYPE_CHECKING:
    from torchwatch.records import LayerInfo, Layout

_POSITION = re.compile(r"(^|[._])(pos|posn|wpe|position\w*|positional\w*|pos_?emb\w*)($|[._])")
_NOT_ALONG_THE_SEQUENCE = re.compile(
    r"relative|(^|[._])rel_|bias|bucket|(^|[._])[xyhwt]_|(^|[._])(row|col|column)"
)
_NO_WORDS = re.compile(r"type|segment|turn|lang|time|speaker|relative|bias|bucket|dist|class|label|query")


@dataclass(frozen=True, slots=True)
class Table:
    """An embedding table that was read in the first step: ``rows`` of ``width`` numbers.

    ``shape`` is that of its output, (…, length, width).
    """

    layer: LayerInfo
    rows: int
    width: int
    shape: list[int]

    @property
    def length(self) -> int:
        """Length of the sequence that was looked up."""
        return self.shape[-2]


def tables(layout: Layout) -> list[Table]:
    """Every table that ran, in call order."""
    found = []
    for layer in called(layout):
        rows, width = whole(layer, "num_embeddings"), whole(layer, "embedding_dim")
        shape = layer.outputs[0] if layer.outputs else [*(layer.inputs[0] if layer.inputs else []), width]
        if rows is not None and width is not None and len(shape) > 1:
            found.append(Table(layer, rows, width, [n or 0 for n in shape]))
    return found


def positions(layout: Layout) -> list[Table]:
    """Tables of absolute positions along the sequence, by their name; as wide as some other table, if any."""
    all_tables = tables(layout)
    found = [t for t in all_tables if _is_position(t)]
    others = {t.width for t in all_tables if not _is_position(t)}
    return [t for t in found if not others or t.width in others]


def words(layout: Layout) -> Table | None:
    """The table of tokens: the largest one that is of nothing else."""
    found = [t for t in tables(layout) if not _is_position(t) and not _NO_WORDS.search(_last_names(t))]
    return max(found, key=lambda t: t.rows, default=None)


def _is_position(table: Table) -> bool:
    name = _last_names(table)
    return bool(_POSITION.search(name)) and not _NOT_ALONG_THE_SEQUENCE.search(name)


def _last_names(table: Table) -> str:
    return ".".join(table.layer.name.lower().split(".")[-2:])
