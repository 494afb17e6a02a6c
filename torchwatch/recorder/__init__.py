"""The background thread: reads frames, writes records, runs the checks, tells the sinks."""

from torchwatch.recorder.items import Item, Mark, Outcome, is_evaluation
from torchwatch.recorder.recorder import Recorder
from torchwatch.sinks.sink import Sink

__all__ = ["Item", "Mark", "Outcome", "Recorder", "Sink", "is_evaluation"]
