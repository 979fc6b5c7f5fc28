"""Language models of tokens and words, hotwords, and their scorers for beam searches."""
