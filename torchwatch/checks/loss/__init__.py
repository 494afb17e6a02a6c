"""Checks of the category ``loss``."""
