"""Encoders: feature frames at 100 Hz to encoder frames at 25 Hz, offline and chunk by chunk with the same weights."""
