"""The page of ``tools/report.py --html``: results, learning curves, and errors to see and hear."""
