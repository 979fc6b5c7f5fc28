"""Modules that encoders are built from. Those that look beyond their frame have one ``forward(x, grid, state)``."""
