"""Adapters for training frameworks: one module each, imported only by those who use that framework.

``torchwatch_integrations.accelerate``, ``torchwatch_integrations.transformers``. This package itself imports
none of them, and none of them imports another.
"""
