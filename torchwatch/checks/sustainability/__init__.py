"""Checks of the category ``sustainability``."""
