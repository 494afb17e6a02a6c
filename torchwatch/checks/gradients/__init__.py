"""Checks of the category ``gradients``."""
