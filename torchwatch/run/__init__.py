"""A run read back into numpy columns, in memory that stays far below the files' size; ranks are joined."""

from torchwatch.run.contents import ColumnSeries, Series
from torchwatch.run.files import RankFiles, rank_files
from torchwatch.run.joined import JoinedRun
from torchwatch.run.reading import read_run
from torchwatch.run.run import Run
from torchwatch.run.shards import RankSeries
from torchwatch.run.together import RankSummary, other_ranks, with_ranks

__all__ = [
    "ColumnSeries",
    "JoinedRun",
    "RankFiles",
    "RankSeries",
    "RankSummary",
    "Run",
    "Series",
    "other_ranks",
    "rank_files",
    "read_run",
    "with_ranks",
]
