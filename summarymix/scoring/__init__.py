"""Scoring: from hypotheses to error rates, tables and reports, without a model or audio."""
