"""From encoder frames to words: searches, streams, the recogniser, and the decode and transcribe commands."""
