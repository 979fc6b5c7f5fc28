"""Corpus preparation: from tables, Kaldi folders or lhotse manifests to checked manifests with splits."""
