#!/usr/bin/env python3
"""Transcribe audio with a model of VoxPopuli: ./transcribe.py exp-en talk.mp3"""

from summarymix.decoding.transcribe import main

if __name__ == "__main__":
    main()
