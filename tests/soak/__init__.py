"""Ten minutes of faults at random moments, and then a comparison row by row: ``make soak``."""
