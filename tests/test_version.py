"""The commit that results are marked with."""

import os
import subprocess
from pathlib import Path

import pytest

from summarymix import version


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", "first")
    return tmp_path


def test_commit_of_the_checkout_itself(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And none of a copy that is installed within the checkout of something else."""
    first = git(checkout, "describe", "--always")
    for folder, expected in ((checkout, first), (checkout / ".venv" / "lib", None)):
        (folder / "summarymix").mkdir(parents=True)
        monkeypatch.setattr(version, "__file__", str(folder / "summarymix" / "version.py"))
        assert version.commit() == expected


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_commit_of_a_checkout_of_another_user(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (checkout, *checkout.rglob("*")):
        os.chown(path, 1000, 1000)
    monkeypatch.setattr(version, "__file__", str(checkout / "summarymix" / "version.py"))
    assert version.commit()
