"""Building blocks of encoders. Blocks that look beyond their frame share ``forward(x, grid, state)``."""
