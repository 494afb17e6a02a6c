"""Checks on the model's structure: layers, call order and shapes of the first step."""
