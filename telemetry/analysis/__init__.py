"""Answers from records: pure functions, which read no store and no country table."""
