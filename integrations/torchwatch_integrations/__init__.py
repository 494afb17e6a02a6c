"""Adapters for training frameworks; each is one module, imported only by those who use that framework."""
