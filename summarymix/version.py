"""Version of this library."""

import subprocess
from pathlib import Path


def commit() -> str | None:
    """The commit of this library, with the suffix -dirty if files have changed; None without git."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
