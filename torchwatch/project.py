"""Limits and ignored checks from the working directory's ``pyproject.toml``.

::

    [tool.torchwatch]
    ignore = ["noisy-loss"]

    [tool.torchwatch.limits.overfitting]
    patience = 5

It counts for every run that is recorded or diagnosed there. What is said closer to the run beats it: the
keywords of a Watcher and its configuration, or the options of a command. Only the working directory is looked
at, never those above it, and a file that does not speak of torchwatch is not even parsed.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torchwatch.check import select
from torchwatch.errors import ConfigError

FILE = "pyproject.toml"
_KEYS = ("limits", "ignore")

Limits = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Project:
    """Limits per check and ignored checks, as :func:`torchwatch.check.select` takes them; both known."""

    limits: Limits = field(default_factory=dict)
    ignore: tuple[str, ...] = ()

    def under(
        self, limits: Limits, ignore: Iterable[str]
    ) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
        """With what was said elsewhere on top: limits one by one, ignored checks in addition."""
        merged = {slug: dict(values) for slug, values in self.limits.items()}
        for slug, values in limits.items():
            merged[slug] = merged.get(slug, {}) | dict(values)
        return merged, tuple(dict.fromkeys((*self.ignore, *ignore)))

    def beside(self, limits: Limits, ignore: Iterable[str]) -> Project:
        """What of it differs from the limits and ignores with which a run was recorded."""
        gone = frozenset(ignore)
        others = {
            slug: {n: v for n, v in values.items() if limits.get(slug, {}).get(n) != v}
            for slug, values in self.limits.items()
            if slug not in gone
        }
        return Project(
            {slug: values for slug, values in others.items() if values},
            tuple(slug for slug in self.ignore if slug not in gone),
        )


def read_project(directory: str | Path = "") -> Project:
    """The settings of a directory; empty ones where it has none.

    Args:
        directory: where to look (default: the working directory).

    Raises:
        ConfigError: the file cannot be parsed, or it names a key, check or limit that does not exist, with
            the nearest match.
    """
    path = Path(directory) / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return Project()  # no such file, or one that no other tool could read either
    if "torchwatch" not in text:
        return Project()
    try:
        section = tomllib.loads(text).get("tool", {}).get("torchwatch", {})
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{FILE} cannot be read: {error}") from None
    return _checked(section)


def _checked(section: Any) -> Project:
    if not isinstance(section, dict):
        raise ConfigError(f"{FILE}: [tool.torchwatch] must be a table, not {section!r}")
    for key in section:
        if key not in _KEYS:
            close = difflib.get_close_matches(key, _KEYS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(_KEYS)}"
            raise ConfigError(f"{FILE}: [tool.torchwatch] has no key {key!r}; {hint}")
    limits, ignore = section.get("limits", {}), section.get("ignore", [])
    if not isinstance(ignore, list) or not all(isinstance(slug, str) for slug in ignore):
        raise ConfigError(f"{FILE}: [tool.torchwatch] ignore must be a list of checks, not {ignore!r}")
    try:
        chosen = select(limits, ignore)
    except ConfigError as error:
        raise ConfigError(f"{FILE}: [tool.torchwatch]: {error}") from None
    return Project(chosen.overrides, chosen.ignored)
