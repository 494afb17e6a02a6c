"""A run file read back into numpy columns, in memory that stays far below the file's size."""

from torchwatch.run.contents import ColumnSeries, Series
from torchwatch.run.run import Run, read_run

__all__ = ["ColumnSeries", "Run", "Series", "read_run"]
