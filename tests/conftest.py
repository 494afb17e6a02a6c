"""Property tests have no deadline: a loaded machine is no fault. What was compiled ends with its test."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("without deadlines", deadline=None)
settings.load_profile("without deadlines")


@pytest.fixture(autouse=True)
def dynamo_is_reset() -> Iterator[None]:
    """Where a process has compiled anything, watchers know that module hooks may see nothing, and say so."""
    yield
    frames = sys.modules.get("torch._dynamo.eval_frame")
    if frames is not None and getattr(frames, "cached_backends", None):
        sys.modules["torch._dynamo"].reset()
