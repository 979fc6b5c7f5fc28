"""Decoding: searches, streams, the recogniser, and the decode and transcribe commands."""
