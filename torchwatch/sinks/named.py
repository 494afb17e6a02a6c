"""Sinks by name: ``Watcher(sinks=["terminal", "tensorboard:runs/tb"])`` and ``TORCHWATCH_SINKS``."""

from __future__ import annotations

import difflib
import os
import random
from typing import TYPE_CHECKING, Any

from torchwatch.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torchwatch.config import WatchConfig
    from torchwatch.sinks.sink import Sink

VARIABLE = "TORCHWATCH_SINKS"
_WITHOUT_TERMINAL = "-terminal"


def chosen(wanted: str | Iterable[str | Sink] | None, config: WatchConfig) -> list[Sink] | None:
    """The sinks that a watcher was given.

    Args:
        wanted: names (``name`` or ``name:option``; in one text with commas between), or objects; exactly
            those. None: what ``TORCHWATCH_SINKS`` names, besides the default ones (``-terminal`` in it takes
            the terminal away).
        config: says which the default ones are.

    Returns:
        The sinks, or None for the default ones.

    Raises:
        ConfigError: an unknown name, an option that cannot be used, something that is no sink.
        MissingExtra: a sink's package is not installed.
    """
    if wanted is not None:
        return [_sink(one) for one in _split(wanted)]
    names = [n for n in _split(os.environ.get(VARIABLE, "")) if isinstance(n, str)]
    if not names:
        return None
    try:
        added = [_sink(n) for n in names if n not in (_WITHOUT_TERMINAL, "terminal")]
    except ConfigError as error:
        raise ConfigError(f"{VARIABLE}: {error}") from error
    asked = True if "terminal" in names else None
    return [*default_sinks(config, terminal=False if _WITHOUT_TERMINAL in names else asked), *added]


def default_sinks(config: WatchConfig, *, terminal: bool | None = None) -> list[Sink]:
    """Terminal and log file, as the config has them; ``terminal`` beats what it says."""
    terminal = config.terminal if terminal is None else terminal
    if terminal:
        return [_terminal(log_file=config.log_file)]
    return [_logfile(config.log_file)] if config.log_file is not None else []


def _split(wanted: str | Iterable[str | Sink]) -> list[str | Sink]:
    if isinstance(wanted, str):
        return [part for part in (p.strip() for p in wanted.split(",")) if part]
    return list(wanted)


def _sink(wanted: str | Sink) -> Sink:
    if not isinstance(wanted, str):
        if callable(getattr(wanted, "write", None)) and callable(getattr(wanted, "close", None)):
            return wanted
        raise ConfigError(f"a sink is a name or an object with write and close, not {type(wanted).__name__}")
    name, _, option = (part.strip() for part in wanted.partition(":"))
    make = _MAKERS.get(name)
    if make is None:
        close = difflib.get_close_matches(name, sorted(_MAKERS), n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(_MAKERS))}"
        raise ConfigError(f"there is no sink called {name!r:.80}; {hint}")
    return make(option)


def _terminal(option: str = "", **options: Any) -> Sink:
    _refuse("terminal", option)
    state = random.getstate()  # rich draws from the host's generator when it is imported
    try:
        from torchwatch.sinks.terminal import TerminalSink
    finally:
        random.setstate(state)
    return TerminalSink(**options)


def _logfile(path: str) -> Sink:
    if not path:
        raise ConfigError("the sink logfile needs its file: 'logfile:run.log'")
    state = random.getstate()
    try:
        from torchwatch.sinks.logfile import LogFileSink
    finally:
        random.setstate(state)
    return LogFileSink(path)


def _webhook(variable: str) -> Sink:
    from torchwatch.sinks.webhook import WebhookSink

    return WebhookSink(variable) if variable else WebhookSink()


def _tensorboard(folder: str) -> Sink:
    from torchwatch.sinks.tensorboard import TensorBoardSink

    return TensorBoardSink(folder) if folder else TensorBoardSink()


def _wandb(project: str) -> Sink:
    from torchwatch.sinks.wandb import WandbSink

    return WandbSink(project or None)


def _prometheus(address: str) -> Sink:
    from torchwatch.sinks.prometheus import HOST, PORT, PrometheusSink

    host, _, port = address.rpartition(":")
    if port and not (port.isascii() and port.isdecimal()):
        raise ConfigError(f"the sink prometheus takes a port, 'prometheus:9101', not {address!r:.80}")
    return PrometheusSink(int(port) if port else PORT, host.strip("[]") or HOST)


def _refuse(name: str, option: str) -> None:
    if option:
        raise ConfigError(f"the sink {name} takes no option, not {option!r:.80}")


_MAKERS: dict[str, Callable[[str], Sink]] = {
    "terminal": _terminal,
    "logfile": _logfile,
    "webhook": _webhook,
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "prometheus": _prometheus,
}
