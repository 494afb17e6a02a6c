"""Other people's logs as torchwatch records, so that the same engine judges them.

A log knows less than a run file: a loss, a learning rate, evaluations. Checks that need more are listed as
not run. Which format it is, its content says, not its name.
"""

from torchwatch.importers.columns import parse_columns
from torchwatch.importers.opening import FORMATS, ImportedReader, open_run

__all__ = ["FORMATS", "ImportedReader", "open_run", "parse_columns"]
