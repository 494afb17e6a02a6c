"""Where live records also go: one sink, one file."""
