"""What a check is.

A check decides one thing from records and nothing else. It lives in
``torchwatch/checks/<category>/<slug>.py`` (dashes of the slug as underscores) and ends in ``CHECK =
Check(...)``; :func:`all_checks` finds it by walking the package, so there is no list to edit. Its module
docstring is its documentation page: a first line that says what it reports, then the headings *What it
detects*, *Why it matters*, *What to do*, *When it is fine*.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import math
import numbers
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from torchwatch.errors import ConfigError

if TYPE_CHECKING:
    from torchwatch.history import History
    from torchwatch.run import Run


class Severity(IntEnum):
    """How bad an issue is; comparable."""

    INFO = 0
    WARNING = 1
    CRITICAL = 2

    @property
    def word(self) -> str:
        """The word used in records: ``info``, ``warning`` or ``critical``."""
        return self.name.lower()


class Category(Enum):
    """What part of training a check speaks about; also its folder."""

    LOSS = "loss"
    GRADIENTS = "gradients"
    ACTIVATIONS = "activations"
    WIRING = "wiring"
    THROUGHPUT = "throughput"
    MEMORY = "memory"
    SYSTEM = "system"
    LOGS = "logs"
    PROFILER = "profiler"
    SUSTAINABILITY = "sustainability"
    ARCHITECTURE = "architecture"


class Cause(IntEnum):
    """Causal order inside an incident: the earliest is the likelier root."""

    WIRING = 0
    INPUT = 1
    PARAMETER = 2
    ACTIVATION = 3
    GRADIENT = 4
    LOSS = 5
    OTHER = 6


class On(Enum):
    """The records after which a check looks; ``STEP``: one pass per ``step`` or ``steps`` line."""

    LAYOUT = "layout"
    STEP = "step"
    INTERVAL = "interval"
    EVAL = "eval"
    EPOCH = "epoch"
    SYSTEM = "system"
    PROFILE = "profile"
    LOG = "log"
    END = "end"


class Scope(Enum):
    """Whose records a check looks at.

    ``RANK``: those of one process, as they come; the same live and in replay. ``RUN``: the files of all ranks
    of a distributed run, side by side, when they are read and never live (a watcher sees its own file only);
    such a check looks once, ``On.END``.
    """

    RANK = "rank"
    RUN = "run"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong now.

    One per layer where it is per layer. ``since_step`` is the onset as far as the records show, not the step
    at which it was noticed. ``severity`` None means the check's own. ``title`` is one short sentence with the
    key number in it, ``detail`` the evidence, ``value``/``threshold`` the measured ``metric`` against its
    limit. ``fix``/``snippet`` None mean the check's own.
    """

    title: str
    since_step: int
    detail: str = ""
    severity: Severity | None = None
    layer: str | None = None
    metric: str | None = None
    value: float | None = None
    threshold: float | None = None
    fix: str | None = None
    snippet: str | None = None


@dataclass(frozen=True, slots=True)
class NotReady:
    """The check cannot tell yet, and why ("needs 64 steps, 12 seen")."""

    reason: str


Find = Callable[["History", Any], "list[Finding] | NotReady"]
FindInRun = Callable[["Run", Any], "list[Finding] | NotReady"]


@dataclass(frozen=True, slots=True)
class Check:
    """One check. ``slug``, ``doc`` and ``title`` are filled in from its file by :func:`all_checks`.

    ``reads`` are required fields by their name in the records ("loss", "val_loss", "grad_norms",
    "activations.dead_fraction", "wait_time_s", "rss_bytes" …): when a run has none of one of them, the
    check is listed as "not run: no `<field>`". ``uses`` are optional ones. ``resolve_after`` is how many
    consecutive clean looks resolve an issue (looks of this check; a ``steps`` line counts as its number of
    steps). ``find`` gets the :class:`~torchwatch.history.History`, or where ``scope`` is the run the joined
    :class:`~torchwatch.run.Run`; ``reads`` are then looked for in rank 0's records.
    """

    severity: Severity
    category: Category
    cause: Cause
    when: frozenset[On]
    reads: tuple[str, ...]
    find: Find | FindInRun
    limits: Any
    fix: str
    uses: tuple[str, ...] = ()
    snippet: str | None = None
    resolve_after: int = 2
    scope: Scope = Scope.RANK
    slug: str = ""
    doc: str = ""

    @property
    def title(self) -> str:
        """First line of the documentation."""
        return self.doc.partition("\n")[0]


@cache
def all_checks() -> Mapping[str, Check]:
    """Every check of the package by slug, sorted; the slug is the file's name with dashes."""
    package = importlib.import_module("torchwatch.checks")
    found = {}
    for info in pkgutil.walk_packages(package.__path__, "torchwatch.checks."):
        name = info.name.rpartition(".")[2]
        if info.ispkg or name.startswith("_"):  # what several checks of a folder share is in a private module
            continue
        module = importlib.import_module(info.name)
        slug = name.replace("_", "-")
        found[slug] = dataclasses.replace(module.CHECK, slug=slug, doc=inspect.cleandoc(module.__doc__ or ""))
    return MappingProxyType(dict(sorted(found.items())))


@dataclass(frozen=True)
class Selection:
    """The checks in force: all but the ignored ones, with overridden limits."""

    checks: tuple[Check, ...]
    ignored: tuple[str, ...] = ()
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def limits(self) -> dict[str, dict[str, Any]]:
        """Every limit in force, as plain JSON for the run header."""
        return {c.slug: dataclasses.asdict(c.limits) for c in self.checks}


def select(limits: Mapping[str, Mapping[str, Any]] | None = None, ignore: Iterable[str] = ()) -> Selection:
    """The checks in force.

    Args:
        limits: check → limit → number; a whole number where the default is one.
        ignore: checks that are left out.

    Raises:
        ConfigError: an unknown check or limit, with the nearest match, or a value of the wrong type.
    """
    known = all_checks()
    ignored = tuple(dict.fromkeys([ignore] if isinstance(ignore, str) else ignore))
    overrides = _mapping("limits", limits or {})
    for slug in (*ignored, *overrides):
        if slug not in known:
            raise ConfigError(f"there is no check {slug!r}{_nearest(slug, known)}")
    overrides = {slug: _mapping(f"limits of check {slug!r}", values) for slug, values in overrides.items()}
    checks = tuple(_override(c, overrides.get(c.slug, {})) for c in known.values() if c.slug not in ignored)
    return Selection(checks=checks, ignored=ignored, overrides=overrides)


def select_known(
    limits: Mapping[str, Mapping[str, Any]], ignore: Iterable[str]
) -> tuple[Selection, tuple[str, ...]]:
    """As :func:`select`, for a run that another version may have written.

    Returns:
        The checks in force, and what this version does not know: ``check`` or ``check.limit`` names.
    """
    known = all_checks()
    overrides: dict[str, dict[str, Any]] = {}
    skipped = [slug for slug in ignore if slug not in known]
    for slug, values in limits.items():
        if slug not in known:
            skipped.append(slug)
            continue
        for name, value in values.items():
            try:
                _override(known[slug], {name: value})
            except ConfigError:
                skipped.append(f"{slug}.{name}")
            else:
                overrides.setdefault(slug, {})[name] = value
    return select(overrides, [slug for slug in ignore if slug in known]), tuple(skipped)


def _mapping(what: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{what} must be a mapping, not {value!r}")
    return dict(value)


def _override(check: Check, values: Mapping[str, Any]) -> Check:
    if not values:
        return check
    current = {f.name: getattr(check.limits, f.name) for f in dataclasses.fields(check.limits)}
    for name in values:
        if name not in current:
            raise ConfigError(f"check {check.slug!r} has no limit {name!r}{_nearest(name, current)}")
    fitted = {n: _fitted(f"limit {n!r} of check {check.slug!r}", current[n], v) for n, v in values.items()}
    return dataclasses.replace(check, limits=dataclasses.replace(check.limits, **fitted))


def _fitted(what: str, default: float, value: Any) -> float:
    """The value as a number of the default's kind."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or math.isnan(value):
        raise ConfigError(f"{what} must be a number, not {value!r}")
    number = float(value)
    if not isinstance(default, int):
        return number
    if not number.is_integer():
        raise ConfigError(f"{what} must be a whole number, not {value!r}")
    return int(number)


def _nearest(word: object, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
