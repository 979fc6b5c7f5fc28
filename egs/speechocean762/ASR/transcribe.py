#!/usr/bin/env python3
"""Transcribe audio with a model of speechocean762: ./transcribe.py exp talk.mp3"""

from summarymix.decoding.transcribe import main

if __name__ == "__main__":
    main()
