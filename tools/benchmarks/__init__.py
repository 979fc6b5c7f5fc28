"""What ``tools/benchmark.py`` measures, a module for each subcommand."""
