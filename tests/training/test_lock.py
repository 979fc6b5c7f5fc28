"""One trainer for each folder: locks that are held, left by a killed process, and of other machines."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from summarymix.training.cli import main
from summarymix.training.lock import lock_folder

HOLD = """
import sys, time
from pathlib import Path
from summarymix.training.lock import lock_folder
with lock_folder(Path(sys.argv[1])):
    if fork := sys.argv[2:]:
        import multiprocessing
        multiprocessing.get_context("fork").Process(target=time.sleep, args=(5,), daemon=False).start()
    print("held", flush=True)
    time.sleep(60)
"""


def hold(exp_dir: Path, *options: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(exp_dir), *options], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_second_trainer_is_refused_and_told_who_trains(recipe: Path) -> None:
    exp_dir = recipe / "exp"
    holder = hold(exp_dir)
    before = sorted(exp_dir.iterdir())
    told = rf"train\.py: exp is in use by process {holder.pid} on {socket.gethostname()}: .*another --exp_dir"
    for _ in range(2):  # refusing does not release it
        with pytest.raises(SystemExit, match=told):
            main("toy", ["--exp-dir", "exp"])
    assert sorted(exp_dir.iterdir()) == before
    holder.kill()
    holder.wait()
    assert (exp_dir / ".lock").exists()
    main("toy", ["--exp-dir", "exp", "--num-epochs", "1", "--max-steps", "1"])
    assert not (exp_dir / ".lock").exists()


def test_lock_is_released_on_errors(recipe: Path) -> None:
    with pytest.raises(SystemExit, match="nowhere"):
        main("toy", ["--exp-dir", "exp", "--data.train", "[nowhere]"])
    assert not Path("exp/.lock").exists()


def test_worker_that_outlives_its_killed_trainer_does_not_hold_it(tmp_path: Path) -> None:
    holder = hold(tmp_path, "fork")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with lock_folder(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == str(os.getpid())


@pytest.mark.parametrize("content", ["", '{"host": "elsewh'])
def test_lock_of_a_full_disk_is_taken_over(tmp_path: Path, content: str) -> None:
    (tmp_path / ".lock").write_text(content)
    with lock_folder(tmp_path):
        pass
    assert not (tmp_path / ".lock").exists()


def test_lock_of_another_machine_is_refused_but_not_of_another_container(tmp_path: Path) -> None:
    with lock_folder(tmp_path):
        mine = json.loads((tmp_path / ".lock").read_text())
    path = tmp_path / ".lock"
    path.write_text(json.dumps(mine | {"host": "elsewhere", "pid": "7", "boot": "another"}))
    told = rf"{tmp_path} is in use by process 7 on elsewhere\. If that has ended, remove {path}"
    with pytest.raises(ValueError, match=told), lock_folder(tmp_path):
        pass
    path.write_text(json.dumps(mine | {"boot": "before the restart"}))
    with lock_folder(tmp_path):
        pass
    if mine["boot"]:
        path.write_text(json.dumps(mine | {"host": "container"}))
        with lock_folder(tmp_path):
            pass
