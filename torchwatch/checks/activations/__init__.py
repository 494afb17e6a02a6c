"""Checks of the category ``activations``."""
