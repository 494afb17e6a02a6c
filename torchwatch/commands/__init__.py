"""The subcommands of the command line: one per file, loaded by name when it is called.

:data:`TABLE` holds all that ``torchwatch --help`` needs: no command is imported before it is run. Each
module exposes ``command``, a ``click.Command``; what it returns, if a whole number, is the exit code.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

TABLE: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "demo": (
            "torchwatch.commands.demo",
            "Train a small network and catch a planted fault.",
        ),
        "tail": ("torchwatch.commands.tail", "Follow a run while it is being recorded."),
        "status": ("torchwatch.commands.status", "Show the health of a run in one screen."),
        "diagnose": ("torchwatch.commands.diagnose", "List everything that is or was wrong in a run."),
        "postmortem": ("torchwatch.commands.postmortem", "Write the report of a run, with plots."),
        "data": ("torchwatch.commands.data", "Say what is wrong with the data of a model."),
        "compare": ("torchwatch.commands.compare", "Say what differs between runs."),
        "trend": ("torchwatch.commands.trend", "List the runs of a folder and where they are going."),
        "checks": ("torchwatch.commands.checks", "List all checks."),
        "explain": ("torchwatch.commands.explain", "Explain one check: what it means and what to do."),
    }
)
"""Command name to (module, one line of help), in the order of ``torchwatch --help``."""
