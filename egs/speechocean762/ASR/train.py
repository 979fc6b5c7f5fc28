#!/usr/bin/env python3
"""Train a model: ./train.py --help, or under torchrun for several GPUs."""

from summarymix.training.cli import main

if __name__ == "__main__":
    main("speechocean762")
