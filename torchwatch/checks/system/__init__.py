"""Checks of the category ``system``."""
