"""Encoders map features at 100 Hz to frames at 25 Hz, offline and chunk by chunk with the same weights."""
