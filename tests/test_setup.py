"""The script that installs the requirements, with a python that only notes what it is asked to do."""

import os
import shutil
import subprocess
from pathlib import Path

SETUP = Path(__file__).parents[1] / "tools" / "setup.sh"


def test_an_environment_has_the_copy_of_the_repository_that_uses_it(tmp_path: Path) -> None:
    """Two copies share an environment: each installs itself again after the other."""
    notes, programs = tmp_path / "notes", tmp_path / "env" / "bin"
    programs.mkdir(parents=True)
    python = programs / "python"
    python.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exit 1\necho "$PWD $*" >>{notes}\n')  # torch is missing
    python.chmod(0o755)
    for name in ("first", "second"):
        (tmp_path / name / "tools").mkdir(parents=True)
        shutil.copy(SETUP, tmp_path / name / "tools")
        for file in ("requirements.txt", "pyproject.toml"):
            (tmp_path / name / file).write_text("torch==2.11.0\n")
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "VIRTUAL_ENV": str(tmp_path / "env")}
    del environment["SKIP_SETUP"]

    def installs(name: str) -> list[str]:
        notes.write_text("")
        script = f"CDPATH=.:{tmp_path}; . {name}/tools/setup.sh"
        subprocess.run(["bash", "-euo", "pipefail", "-c", script], env=environment, check=True, cwd=tmp_path)
        return [line.split()[0] for line in notes.read_text().splitlines() if "pip install" in line]

    assert installs("first") == [str(tmp_path / "first")]
    assert installs("first") == []
    assert installs("second") == [str(tmp_path / "second")]
    assert installs("first") == [str(tmp_path / "first")]
    (tmp_path / "first" / "requirements.txt").write_text("torch==2.12.0\n")
    assert installs("first") == [str(tmp_path / "first")]
