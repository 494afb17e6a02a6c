"""History and checks become alerts, incidents and a health score: the same live and in replay."""

from torchwatch.engine.engine import Engine
from torchwatch.engine.incidents import Incident
from torchwatch.engine.score import COST, health_score

__all__ = ["COST", "Engine", "Incident", "health_score"]
