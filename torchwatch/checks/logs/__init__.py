"""Checks of the category ``logs``."""
