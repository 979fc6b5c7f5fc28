#!/usr/bin/env python3
"""Export a model of VoxPopuli: ./export.py --format onnx-streaming --chunk-ms 640 --left-chunks 4 --out exported"""

from summarymix.export.cli import main

if __name__ == "__main__":
    main("voxpopuli")
