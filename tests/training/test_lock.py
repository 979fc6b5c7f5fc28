"""One trainer for each folder: locks that are held, left by a killed process, and of other machines."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from threading import Timer

import pytest

from summarymix.training import lock
from summarymix.training.cli import main
from summarymix.training.lock import lock_folder

HOLD = """
import os, sys, time
from pathlib import Path
from summarymix.training import lock
lock.BEAT_SECONDS = float(os.environ.get("BEAT", 20))
with lock.lock_folder(Path(sys.argv[1])):
    if fork := sys.argv[2:]:
        import multiprocessing
        multiprocessing.get_context("fork").Process(target=time.sleep, args=(5,), daemon=False).start()
    print("held", flush=True)
    time.sleep(60)
"""


def hold(exp_dir: Path, *options: str, beat: str = "20") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, str(exp_dir), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"BEAT": beat})
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


def foreign_lock(folder: Path) -> Path:
    """The lock of a process on another machine."""
    path = folder / ".lock"
    path.write_text(json.dumps({"host": "elsewhere", "pid": "7", "boot": "another"}))
    return path


def test_lock_of_another_machine_is_taken_over_unless_its_holder_touches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lock, "WATCH_SECONDS", 0.5)
    path = foreign_lock(tmp_path)
    with lock_folder(tmp_path):
        assert json.loads(path.read_text())["pid"] == str(os.getpid())
    assert not path.exists()
    assert "so process 7 on elsewhere was killed: taking it over" in capsys.readouterr().err

    foreign_lock(tmp_path)
    touch = Timer(0.2, os.utime, [path])
    touch.start()
    told = rf"{tmp_path} is in use by process 7 on elsewhere: wait for it, stop it, or give another --exp_dir"
    with pytest.raises(ValueError, match=told), lock_folder(tmp_path):
        pass
    touch.join()
    assert "elsewhere" in path.read_text()

    Timer(0.2, path.unlink).start()  # its holder ends
    with lock_folder(tmp_path):
        assert json.loads(path.read_text())["pid"] == str(os.getpid())


def test_holder_touches_the_lock_and_keeps_the_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.05)
    path = tmp_path / ".lock"
    with lock_folder(tmp_path):
        os.utime(path, (1, 1))
        time.sleep(0.3)
        assert path.stat().st_mtime > 1
        other = subprocess.run([sys.executable, "-c", HOLD, str(tmp_path)], capture_output=True, text=True)
        assert "is in use by process" in other.stderr


def test_holder_that_wakes_up_after_another_has_taken_over_ends(tmp_path: Path) -> None:
    holder = hold(tmp_path, beat="0.05")
    path = foreign_lock(tmp_path)
    assert holder.wait(10) == 1
    assert "elsewhere" in path.read_text()


def test_lock_of_another_container_or_before_a_restart(tmp_path: Path) -> None:
    with lock_folder(tmp_path):
        mine = json.loads((tmp_path / ".lock").read_text())
    path = tmp_path / ".lock"
    path.write_text(json.dumps(mine | {"boot": "before the restart"}))
    with lock_folder(tmp_path):
        pass
    if mine["boot"]:
        path.write_text(json.dumps(mine | {"host": "container"}))
        with lock_folder(tmp_path):
            pass
