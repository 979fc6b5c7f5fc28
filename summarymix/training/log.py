"""Training logs: messages and a progress bar on the terminal, JSON lines and tensorboard events on disk."""

import json
import logging
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from summarymix.files import atomic_write


class _AboveTheBar(logging.Handler):
    """Prints log records on stderr, above the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


class TrainingLog:
    """``log.jsonl`` (one object per line, with ``kind`` and ``step``), tensorboard events and the terminal.

    Only the main process records; messages come from every process, so that none fails silently.

    Args:
        exp_dir: folder to write to.
        rank: rank of this process; only rank 0 records.
        tensorboard: write events to ``exp_dir/tensorboard``.
        step: step at which a resumed run continues; tensorboard hides events of later steps.
        keep_lines: lines of ``log.jsonl`` at the time of the checkpoint. Later lines, from steps that a killed run took
            after its last checkpoint, are dropped, because the resumed run repeats these steps.
    """

    def __init__(self, exp_dir: Path, rank: int, tensorboard: bool, step: int = 0, keep_lines: int = 0) -> None:
        self.rank = rank
        self.lines = keep_lines
        self._path = exp_dir / "log.jsonl"
        self._writer: Any = None
        # All processes raise the same warnings of this library; only the main process prints them.
        logging.getLogger("summarymix").handlers = [_AboveTheBar() if rank == 0 else logging.NullHandler()]
        if rank != 0:
            return
        exp_dir.mkdir(parents=True, exist_ok=True)
        if self._path.exists():
            kept = self._path.read_text(encoding="utf-8").splitlines(keepends=True)[:keep_lines]
            with atomic_write(self._path) as file:
                file.writelines(kept)
            self.lines = len(kept)
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # seconds to import

            self._writer = SummaryWriter(str(exp_dir / "tensorboard"), purge_step=step + 1)

    def say(self, text: str) -> None:
        """Print a line on stderr, above the progress bar if there is one."""
        tqdm.write(text if self.rank == 0 else f"[rank {self.rank}] {text}", file=sys.stderr)

    def say_once(self, text: str) -> None:
        """Print a line from the main process only, because all processes have the same."""
        if self.rank == 0:
            self.say(text)

    def record(self, kind: str, step: int, **values: Any) -> None:
        """Append a line to ``log.jsonl``; numbers also go to tensorboard as ``kind/name`` or ``kind/setting/name``."""
        if self.rank != 0:
            return
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        self.lines += 1
        if self._writer is not None:
            tag = f"{kind}/{values['setting']}" if "setting" in values else kind
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._writer.add_scalar(f"{tag}/{name}", value, step)

    def bar(self, title: str, total_seconds: float, done_seconds: float) -> "tqdm[Any]":
        """A progress bar in seconds of audio; its rate is seconds of audio per second."""
        terminal = sys.stderr.isatty()
        return tqdm(
            desc=title,
            total=round(total_seconds),
            initial=round(done_seconds),
            disable=self.rank != 0,
            unit=" s of audio",
            bar_format="{desc} {percentage:3.0f}%|{bar:20}| {elapsed}<{remaining}, {rate_noinv_fmt}{postfix}",
            # In a file or pipe, a line now and then is enough.
            mininterval=0.5 if terminal else 15,
            leave=terminal,
            dynamic_ncols=terminal,
        )

    def close(self) -> None:
        """Write tensorboard's pending events and close it."""
        if self._writer is not None:
            self._writer.close()
