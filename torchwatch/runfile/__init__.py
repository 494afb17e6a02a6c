"""The run file on disk: written so that nothing can stop the training, read whatever happened to it."""

from torchwatch.runfile.following import follow
from torchwatch.runfile.opening import unused_path
from torchwatch.runfile.reader import RecordReader, read_records
from torchwatch.runfile.writer import RunWriter

__all__ = ["RecordReader", "RunWriter", "follow", "read_records", "unused_path"]
