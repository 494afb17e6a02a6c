"""Checks of the category ``profiler``."""
