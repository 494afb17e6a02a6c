"""Checks of the category ``wiring``."""
