"""The plots of a report: one plot, one file."""
