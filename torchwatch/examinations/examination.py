"""What an examination is, and the table of all."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from torchwatch.errors import ConfigError

if TYPE_CHECKING:
    from torchwatch.examinations.case import Case


class NotApplicable(Exception):  # noqa: N818 - says what is the case, it is no failure
    """The examination cannot say anything here: one sentence with the reason and what would let it."""


@dataclass(frozen=True)
class Examination:
    """One post-mortem procedure.

    Attributes:
        title: heading of its section.
        examine: from a :class:`~torchwatch.examinations.case.Case` to its result. It raises
            :class:`NotApplicable` where it has nothing to look at; anything else that it raises is its
            failure and stops no other.
        tells: half a sentence: what it would tell, for the list of what was not examined.
        after: examinations whose results it uses when they are there; they run before it.
        needs_targets: whether it can do nothing without targets.
        name: its module's name.
    """

    title: str
    examine: Callable[[Case], Any]
    tells: str
    after: tuple[str, ...] = ()
    needs_targets: bool = False
    name: str = ""
    doc: str = ""


@cache
def all_examinations() -> Mapping[str, Examination]:
    """Every examination by name, each after those whose results it uses."""
    package = importlib.import_module("torchwatch.examinations")
    found = {}
    for info in pkgutil.iter_modules(package.__path__, "torchwatch.examinations."):
        module = importlib.import_module(info.name)
        examination = getattr(module, "EXAMINATION", None)
        if examination is not None:
            name = info.name.rpartition(".")[2]
            doc = inspect.cleandoc(module.__doc__ or "")
            found[name] = replace(examination, name=name, doc=doc)
    return MappingProxyType(_in_order(found))


def _in_order(found: Mapping[str, Examination]) -> dict[str, Examination]:
    """Alphabetical, but each after what it uses."""
    ordered: dict[str, Examination] = {}

    def add(name: str) -> None:
        if name in ordered or name not in found:
            return
        for before in found[name].after:
            add(before)
        ordered[name] = found[name]

    for name in sorted(found):
        add(name)
    return ordered


def chosen(names: Iterable[str] | None) -> tuple[Examination, ...]:
    """The examinations asked for in their order; all for None.

    Args:
        names: names with underscores or dashes.

    Raises:
        ConfigError: there is none of that name, with the nearest match.
    """
    known = all_examinations()
    if names is None:
        return tuple(known.values())
    wanted = {n.strip().replace("-", "_").replace(" ", "_") for n in names if n.strip()}
    for name in sorted(wanted):
        if name not in known:
            close = difflib.get_close_matches(name, list(known), n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(known)}"
            raise ConfigError(f"there is no examination {name!r}{hint}")
    return tuple(e for e in known.values() if e.name in wanted)
