"""Shell commands that output an audio file, such as the pipes in Kaldi's wav.scp."""

import contextlib
import os
import selectors
import signal
import subprocess
from time import monotonic

TIMEOUT = 60.0  # seconds
MAX_BYTES = 2 << 30


def run_command(command: str, timeout: float = TIMEOUT, max_bytes: int = MAX_BYTES) -> bytes:
    """Run a shell command and return its output. At an error it is killed, with the programs that it started.

    Args:
        command: the command. Its standard input is empty.
        timeout: seconds that it may take.
        max_bytes: bytes that it may output.

    Raises:
        ValueError: the command fails, takes longer, or outputs more.
    """
    output, errors = bytearray(), b""
    end = monotonic() + timeout
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(
            command, shell=True, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, start_new_session=True
        ) as process,
        selectors.DefaultSelector() as selector,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        for stream in (process.stdout, process.stderr):
            selector.register(stream, selectors.EVENT_READ)
        try:
            while selector.get_map():
                for key, _ in selector.select(max(end - monotonic(), 0)):
                    block = os.read(key.fd, 1 << 16)
                    if not block:
                        selector.unregister(key.fileobj)
                    elif key.fileobj is process.stdout:
                        output += block
                    else:
                        errors = (errors + block)[-500:]
                if len(output) > max_bytes:
                    raise ValueError(f"more than {max_bytes / 1e9:.2g} GB of output")
                if monotonic() > end:
                    raise ValueError(f"no end after {timeout:g} s")
            process.wait(max(end - monotonic(), 0))
        except BaseException as error:
            # The shell may have ended before the programs that it started.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise ValueError(f"no end after {timeout:g} s") from None
            raise
    if process.returncode != 0:
        raise ValueError(f"exit status {process.returncode}: {errors.decode(errors='replace')}")
    return bytes(output)
