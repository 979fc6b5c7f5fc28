"""Language models of tokens and words, hotwords, and the scorers by which beam searches use them."""
