"""Checks of the category ``throughput``."""
