"""From encoder frames to words: greedy search, streaming recognition, scoring, and the decode command."""
