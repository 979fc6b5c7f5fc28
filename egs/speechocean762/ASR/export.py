#!/usr/bin/env python3
"""Export a model: ./export.py --format onnx-streaming --out exported --chunk-ms 640 --left-chunks 4"""

from summarymix.export.cli import main

if __name__ == "__main__":
    main("speechocean762")
