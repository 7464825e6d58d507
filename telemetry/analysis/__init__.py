"""Questions that are asked of stored figures: pure functions on records, which change none of them.

`recost`: what would it have been elsewhere? `value`: what did a point of accuracy cost? `compare`:
which of these runs was worth it? `sci`: grams per functional unit, as ISO/IEC 21031 words it.
"""
