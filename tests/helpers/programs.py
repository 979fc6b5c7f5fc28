"""Python programs in processes of their own, which start at once: a server that has imported the library forks them.

An interpreter that starts imports the same for four seconds. :func:`run_program` and :func:`run_in_parallel` start a
program directly; for the programs that shell scripts start, :class:`Interpreter` takes the place of python.
"""

import json
import multiprocessing
import os
import runpy
import select
import signal
import socket
import sys
import tempfile
import traceback
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

SERVER = multiprocessing.get_context("forkserver")
# Optimisers import the compiler.
LIBRARIES = ["torch._dynamo", "lhotse", "matplotlib.figure"]
SERVER.set_forkserver_preload([*LIBRARIES, "summarymix.training.cli", "summarymix.decoding.cli"])

# A "python" that lets the server run scripts. It ends as they end; if it is killed, they are, too.
CLIENT = """#!{executable} -ISE
import json, os, signal, socket, sys
if sys.argv[1:2] == ["-u"]:  # from torchrun
    del sys.argv[1]
if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
    os.execv({executable!r}, [{executable!r}, *sys.argv[1:]])
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
request = json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]).encode()
socket.send_fds(server, [len(request).to_bytes(4, "big")], [0, 1, 2])
server.sendall(request)
status = int(server.recv(8) or -9)
if status < 0:
    if -status != signal.SIGKILL:  # for which it is an error
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
sys.exit(status)
"""


class Done(NamedTuple):
    """Exit status of a program, minus the number of a signal that killed it, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


class Program:
    """A running program, such as ``["train.py", "--exp-dir", "exp"]``, with additions to the environment."""

    def __init__(self, command: Sequence[object], environment: Mapping[str, str] = {}) -> None:
        self.outputs = [Path(tempfile.mkstemp(suffix=suffix)[1]) for suffix in (".stdout", ".stderr")]
        values = {**os.environ, **environment}
        arguments = ([str(part) for part in command], values, os.getcwd(), list(map(str, self.outputs)))
        self.process = SERVER.Process(target=_start, args=arguments)
        self.process.start()

    def is_running(self) -> bool:
        """True until the program ends."""
        return self.process.is_alive()

    def kill(self) -> None:
        """Kill it."""
        self.process.kill()

    def wait(self, seconds: float = 300) -> Done:
        """Wait for its end.

        Raises:
            TimeoutError: it is killed, because it did not end in time.
        """
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.kill()
            raise TimeoutError(f"the program ran for over {seconds} s; it said {self.outputs[1].read_text()}")
        out, err = (path.read_text() for path in self.outputs)
        for path in self.outputs:
            path.unlink()
        return Done(self.process.exitcode, out, err)


def run_program(*command: object) -> Done:
    """Run a program to its end."""
    return Program(command).wait()


def run_in_parallel(*commands: Sequence[object]) -> tuple[bool, str]:
    """Run programs as the processes of one distributed training, or evaluation.

    Returns:
        Whether all went well, and what they printed.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": str(len(commands)), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    no_gpu = {"CUDA_VISIBLE_DEVICES": ""}
    running = [
        Program(command, world | no_gpu | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank, command in enumerate(commands)
    ]
    done = [program.wait() for program in running]
    return all(one.returncode == 0 for one in done), "".join(one.stdout + one.stderr for one in done)


class Interpreter:
    """A folder with ``python`` and ``python3`` for the PATH of shell scripts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listener = socket.socket(socket.AF_UNIX)
        address = f"\0{uuid.uuid4().hex}"  # of Linux, without a file, whose path may be too long
        listener.bind(address)
        listener.listen(16)
        for name in ("python", "python3"):
            (folder / name).write_text(CLIENT.format(executable=sys.executable, address=address))
            (folder / name).chmod(0o755)
        self.process = SERVER.Process(target=_serve, args=(listener,))
        self.process.start()
        listener.close()

    def environment(self) -> dict[str, str]:
        """The environment in which shell scripts find it."""
        return os.environ | {"PATH": f"{self.folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def close(self) -> None:
        """End the server."""
        self.process.kill()
        self.process.join()


def _serve(listener: socket.socket) -> None:
    """Fork a process for each client, which forks the program and waits for it. Only the programs return."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    client, _ = listener.accept()
    while os.fork() > 0:
        client.close()
        client, _ = listener.accept()
    listener.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, descriptors, _, _ = socket.recv_fds(client, 4, 3)
    request = b""
    while len(request) < int.from_bytes(size, "big"):
        request += client.recv(65536)
    program = os.fork()
    if program == 0:
        client.close()
        return _run(*json.loads(request), descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    ended = os.pidfd_open(program)
    if client in select.select([client, ended], [], [])[0]:  # the client was killed
        os.kill(program, signal.SIGKILL)
        os._exit(0)
    _, status = os.waitpid(program, 0)
    client.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _start(command: list[str], environment: dict[str, str], folder: str, outputs: list[str]) -> None:
    descriptors = [os.open(path, os.O_WRONLY | os.O_APPEND) for path in outputs]
    _run(command, environment, folder, [os.open(os.devnull, os.O_RDONLY), *descriptors])


def _run(command: list[str], environment: dict[str, str], folder: str, descriptors: list[int]) -> None:
    """Run a program in this process, with the given standard input, output and errors, as a new interpreter would."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = os.fdopen(0)  # which multiprocessing has closed
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which the server ignores
    # The default of a new interpreter; processes of this kind inherit their own kind.
    multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = command
    sys.path[0:0] = [str(Path(command[0]).parent), *filter(None, environment.get("PYTHONPATH", "").split(":"))]
    try:
        runpy.run_path(command[0], run_name="__main__")
    except Exception:
        traceback.print_exc()
        sys.exit(1)
