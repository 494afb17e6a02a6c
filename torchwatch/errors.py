"""Everything torchwatch raises on purpose.

::

    TorchwatchError
    ├── UsageError          (also a ValueError)    what the caller passed cannot be used
    │   ├── ConfigError                            unknown option, check or limit
    │   └── ModelError      (also a TypeError)     not a ``torch.nn.Module``
    ├── WatcherError        (also a RuntimeError)  the watcher cannot do that now
    │   ├── WatcherClosed                          used after its ``with`` block ended
    │   └── RunBusy                                another live watcher writes that file
    ├── RunFileError        (also a ValueError)    the file cannot be read as a run
    │   ├── NotARunFile                            missing, a directory, empty, foreign
    │   └── NewerSchema                            written by a newer torchwatch
    └── MissingExtra        (also an ImportError)  an optional package is not installed

Each message is one sentence that says what is wrong and what to do next.
"""

from __future__ import annotations


class TorchwatchError(Exception):
    """Base of all errors raised by torchwatch."""


class UsageError(TorchwatchError, ValueError):
    """What the caller passed cannot be used."""


class ConfigError(UsageError):
    """An option, a check name or a limit is unknown or out of range."""


class ModelError(UsageError, TypeError):
    """The object to watch is not a ``torch.nn.Module``."""


class WatcherError(TorchwatchError, RuntimeError):
    """The watcher cannot do that in its present state."""


class WatcherClosed(WatcherError):
    """The watcher was used after its ``with`` block ended."""


class RunBusy(WatcherError):
    """Another live watcher is writing the same run file."""


class RunFileError(TorchwatchError, ValueError):
    """A file cannot be read as a run."""


class NotARunFile(RunFileError):
    """The path is missing, a directory, empty, or its first line is not ours."""


class NewerSchema(RunFileError):
    """The file was written with a newer schema than this version reads."""


class MissingExtra(TorchwatchError, ImportError):
    """An optional package that the call needs is not installed."""
