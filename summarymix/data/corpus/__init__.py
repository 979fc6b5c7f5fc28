"""The way in for a corpus: tables, Kaldi folders and lhotse manifests to checked manifests with splits."""
