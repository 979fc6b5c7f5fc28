"""Requests to stop a run: SIGTERM, which batch systems send, and SIGINT, which Ctrl-C sends."""

import os
import signal
from contextlib import AbstractContextManager
from time import monotonic
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)
SECONDS_TO_REPENT = 2.0


class StopRequest(AbstractContextManager["StopRequest"]):
    """Within this context, SIGTERM and SIGINT are noted instead of ending the process, so that it can save first.

    The first signal counts. Further ones are ignored, because a batch system signals torchrun and its processes, and
    torchrun signals them again. Only Ctrl-C repeated after two seconds ends the process at once.

    Attributes:
        signal: the signal received first; None without one.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._time = 0.0
        self._former: dict[signal.Signals, Any] = {}

    def __bool__(self) -> bool:
        """True if this process was told to stop."""
        return self.signal is not None

    def __enter__(self) -> "StopRequest":
        self._former = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    @property
    def exit_status(self) -> int:
        """The shell's exit status for the signal; SIGTERM's if another process received it."""
        return 128 + (self.signal or signal.SIGTERM)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal, self._time = signal.Signals(number), monotonic()
        elif number == signal.SIGINT and monotonic() - self._time > SECONDS_TO_REPENT:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
