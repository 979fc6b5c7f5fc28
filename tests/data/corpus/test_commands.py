"""Commands that output audio."""

import subprocess
from pathlib import Path
from time import monotonic, sleep

import pytest

from summarymix.data.corpus.commands import run_command


def test_output_and_failure() -> None:
    assert run_command("printf abc; cat") == b"abc"  # cat reads nothing
    with pytest.raises(ValueError, match="exit status 3: oh no"):
        run_command("echo oh no >&2; exit 3")


@pytest.mark.parametrize("command", ["sleep 1000", "sleep 1000 | cat", "exec >&- 2>&-; sleep 1000", "yes >&2"])
def test_time_is_limited(command: str) -> None:
    begin = monotonic()
    with pytest.raises(ValueError, match=r"no end after 0.3 s"):
        run_command(command, timeout=0.3)
    assert monotonic() - begin < 10


@pytest.mark.parametrize(
    ("command", "message"),
    [("yes NAME | cat", "more than 0.0001 GB of output"), ("tail -f /dev/null NAME & echo hi", "no end after 1 s")],
)
def test_nothing_keeps_running(command: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=message):
        run_command(command.replace("NAME", str(tmp_path / "file")), timeout=1, max_bytes=100_000)
    for _ in range(50):
        running = subprocess.run(["ps", "ax", "-o", "args"], capture_output=True, text=True, check=True).stdout
        if str(tmp_path) not in running:
            return
        sleep(0.1)
    pytest.fail("the command keeps running")
