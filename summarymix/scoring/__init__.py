"""From hypotheses to error rates, tables and pages: nothing here needs a model or audio."""
