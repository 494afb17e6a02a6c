"""Where live records also go: one sink, one file.

A sink has ``write(record)`` and ``close()``. ``lines`` and ``progress`` are what the terminal, the log file
and the command line share: how an alert looks, and where a run is now.
"""
