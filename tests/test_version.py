"""The commit that results are marked with."""

import os
import subprocess
from pathlib import Path

import pytest

from summarymix import version


def test_commit_of_the_checkout_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And none of a copy that is installed within the checkout of something else."""

    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init")
    git("commit", "--allow-empty", "-m", "first")
    for folder, expected in ((tmp_path, git("describe", "--always")), (tmp_path / ".venv" / "lib", None)):
        (folder / "summarymix").mkdir(parents=True)
        monkeypatch.setattr(version, "__file__", str(folder / "summarymix" / "version.py"))
        assert version.commit() == expected


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_commit_of_a_checkout_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    subprocess.run([*command, "init"], check=True, capture_output=True)
    subprocess.run([*command, "commit", "--allow-empty", "-m", "first"], check=True, capture_output=True)
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, 1000, 1000)
    monkeypatch.setattr(version, "__file__", str(tmp_path / "summarymix" / "version.py"))
    assert version.commit()
