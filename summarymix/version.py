"""Version of this library."""

import subprocess
from pathlib import Path


def commit() -> str | None:
    """The commit of this library, with the suffix -dirty if files have changed; None without git or a checkout."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():  # an installed copy may lie in the checkout of something else
        return None
    # The checkout may belong to another user, whose configuration git would otherwise refuse.
    command = ["git", "-c", "safe.directory=*", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
