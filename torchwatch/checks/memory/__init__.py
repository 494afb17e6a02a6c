"""Checks of the category ``memory``."""
