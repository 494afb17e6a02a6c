"""What measures: one probe, one file."""
