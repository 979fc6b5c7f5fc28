"""Features, tokens, and the way from manifests to batches (lhotse)."""
