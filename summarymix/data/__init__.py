"""Features, tokens, and batches made from lhotse manifests."""
