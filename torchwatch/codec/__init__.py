r"""Dataclasses to strict JSON and back, derived from their fields; `records` says what the lines mean.

**Writing never fails.** What JSON cannot say is put as near as it can: an integer beyond 64 bits becomes a
float, a key that is no text becomes its ``str()``, a lone surrogate becomes ``\udc80`` spelled out, and any
other object (a set, a path, a device) becomes its ``str()``, cut at :data:`LONGEST_TEXT` characters; so does
whatever lies deeper than :data:`DEEPEST` levels or contains itself. A one-dimensional float array becomes a
float32 column; any other array its nested lists.

**Non-finite numbers** are ``null``, and the map of :class:`Nonfinite` tells which they were: a path of keys
and indices joined by dots (in a key, ``~`` is written ``~0`` and a dot ``~1``) leads to "nan", "inf" or
"-inf". A path that leads to a list speaks of all of its nulls.

**Columns** that say the same in every entry are written once: ``{"n": 150, "all": 0}``.

**Reading** takes a field's value only if it has the annotated type (any number will do for a float, a whole
one for an int); null is as good as absent (but not in a list), unknown fields are ignored; everything else is
a ValueError.
"""

from torchwatch.codec.columns import MISSING, Column, is_bad, is_missing, missing_column
from torchwatch.codec.fields import field_types
from torchwatch.codec.nonfinite import Nonfinite, escaped, restore
from torchwatch.codec.reading import build
from torchwatch.codec.rounding import Values, decimals, rounded, rounded_together, significant
from torchwatch.codec.steps import rounded_steps, steps_from_json, steps_to_json
from torchwatch.codec.writing import (
    DEEPEST,
    LONGEST_TEXT,
    described,
    fields_to_json,
    map_to_json,
    mended,
    to_json,
)

__all__ = [
    "DEEPEST",
    "LONGEST_TEXT",
    "MISSING",
    "Column",
    "Nonfinite",
    "Values",
    "build",
    "decimals",
    "described",
    "escaped",
    "field_types",
    "fields_to_json",
    "is_bad",
    "is_missing",
    "map_to_json",
    "mended",
    "missing_column",
    "restore",
    "rounded",
    "rounded_steps",
    "rounded_together",
    "significant",
    "steps_from_json",
    "steps_to_json",
    "to_json",
]
