"""Benchmarks of ``tools/benchmark.py``, one module per subcommand."""
