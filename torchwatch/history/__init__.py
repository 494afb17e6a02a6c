"""What checks see: the records so far, bounded and in columns, the same live and in replay."""

from torchwatch.history.columns import Columns
from torchwatch.history.heads import Heads
from torchwatch.history.history import History
from torchwatch.history.maps import Stretch
from torchwatch.history.scalars import Series

__all__ = ["Columns", "Heads", "History", "Series", "Stretch"]
