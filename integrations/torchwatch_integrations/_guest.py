"""What every adapter needs to behave as a guest in somebody else's trainer."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import importlib.util
import logging
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from torchwatch.config import WatchConfig
from torchwatch.errors import MissingExtra, TorchwatchError
from torchwatch.header import rank_and_world
from torchwatch.watcher import Watcher

if TYPE_CHECKING:
    from torchwatch.session import Session

P = ParamSpec("P")
T = TypeVar("T")

_LOGGER = logging.getLogger("torchwatch")


def require(framework: str, least: str, *, extra: str | None = None, distribution: str | None = None) -> None:
    """Refuse to go on without a framework, or with one that is too old; imports nothing of it.

    Args:
        framework: the name that is imported.
        least: the oldest version that the adapter works with.
        extra: the extra of this distribution that installs it (default: the framework's name).
        distribution: what it is called in the package index (default: the framework's name).

    Raises:
        MissingExtra: it is not installed, or older than ``least``.
    """
    command = f"pip install 'torchwatch-monitor[{extra or framework}]'"
    if importlib.util.find_spec(framework) is None:
        raise MissingExtra(f"{framework} is not installed: {command} brings it")
    found = _version(framework, distribution or framework)
    if found is not None and _older(found, least):
        raise MissingExtra(f"{framework} {found} is too old, {least} or newer is needed: {command} brings it")


def _version(framework: str, distribution: str) -> str | None:
    """The installed version; None where a source tree without metadata does not say it."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        version = getattr(importlib.import_module(framework), "__version__", None)
        return version if isinstance(version, str) else None


def _older(found: str, least: str) -> bool:
    from packaging.version import InvalidVersion, Version  # each of the frameworks depends on it

    try:
        return Version(found).release < Version(least).release  # a pre-release of it has what it has
    except InvalidVersion:
        return False


class Guest:
    """Keeps the bugs of one adapter away from the trainer that calls it.

    The first ``Exception`` of ours switches the adapter off, which is logged once under ``torchwatch`` and
    noted in the run file. KeyboardInterrupt, SystemExit and what a function of the host raises pass (see
    :class:`Hosts`).

    Args:
        adapter: its name, for the sentence.

    Attributes:
        off: why the adapter was switched off, None while it works.
        watch: the watcher whose run file is told; set by the adapter while it has one.
    """

    def __init__(self, adapter: str) -> None:
        self._adapter = adapter
        self.off: str | None = None
        self.watch: Watcher | None = None

    def call(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T | None:
        """What ``work`` returns; None when it failed, or the adapter is switched off already."""
        if self.off is not None:
            return None
        try:
            return work(*args, **kwargs)
        except Exception as error:
            if _is_hosts(error):
                raise
            self.failed(error)
            return None

    def start(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T | None:
        """As :meth:`call`, but mistakes of the user (a path that is a directory, …) are raised.

        Raises:
            TorchwatchError: a sentence for the user. Training has not begun yet.
        """
        try:
            return self.call(_errors_kept, work, args, kwargs)
        except _Kept as kept:
            raise kept.error from None

    def failed(self, error: Exception) -> None:
        """Switch the adapter off because of ``error``."""
        where = traceback.extract_tb(error.__traceback__)[-1:]
        place = f" at {where[0].name}:{where[0].lineno}" if where else ""
        self.off = f"{type(error).__name__}: {error}{place}"
        sentence = f"{self._adapter} switched off after {self.off}; training goes on"
        _LOGGER.warning("%s", sentence)
        if self.watch is not None:
            say(self.watch, "adapter", sentence)


class Hosts(Generic[P, T]):
    """A function of the host, such as ``on_alert``: what it raises passes :class:`Guest`."""

    def __init__(self, function: Callable[P, T]) -> None:
        self.function = function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.function(*args, **kwargs)


def _is_hosts(error: Exception) -> bool:
    """Whether an exception came through a function of the host: its traceback shows it."""
    return any(frame.f_code is Hosts.__call__.__code__ for frame, _ in traceback.walk_tb(error.__traceback__))


class _Kept(BaseException):
    """Carries a sentence for the user past the guard."""

    def __init__(self, error: TorchwatchError) -> None:
        self.error = error


def _errors_kept(work: Callable[..., T], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> T:
    try:
        return work(*args, **kwargs)
    except TorchwatchError as error:
        raise _Kept(error) from None


def inside(watch: Watcher) -> Session | None:
    """The session of an open watcher, for what only adapters need."""
    return watch._session


def say(watch: Watcher, topic: str, message: str) -> None:
    """A note in the run file and on the terminal, if the watcher is open."""
    session = inside(watch)
    if session is not None:
        session.say(topic, message)


def go_on_from(watch: Watcher, step: int, epoch: int) -> None:
    """The training was resumed: the next step is ``step + 1``, in ``epoch`` (from 0).

    To be called right after the watcher was entered.
    """
    session = inside(watch)
    if session is not None and step:
        session.attachment.go_on_from(step, epoch)


def config_of(options: Mapping[str, Any], **declared: Any) -> WatchConfig:
    """The configuration among a watcher's options, as an adapter uses it.

    What is in ``declared`` is declared unless the user did; only rank 0 writes to the terminal.
    """
    config = options.get("config") or WatchConfig()
    known = {name: value for name, value in declared.items() if value is not None}
    terminal = config.terminal and rank_and_world()[0] == 0
    return dataclasses.replace(config, terminal=terminal, declare={**known, **config.declare})


def newest(path: Path) -> Path | None:
    """The newest file that was written for ``path``: ``digits.jsonl``, ``digits-2.jsonl`` and so on."""
    found, candidate, number = None, path, 1
    while candidate.exists():
        number += 1
        found, candidate = candidate, path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found
