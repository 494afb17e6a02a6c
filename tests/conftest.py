"""Property tests have no deadline: a loaded machine is no fault of the code."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("without deadlines", deadline=None)
settings.load_profile("without deadlines")
