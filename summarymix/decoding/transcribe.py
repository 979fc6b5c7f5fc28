"""The command line of every recipe's ``transcribe.py``: audio files, or a microphone, to text."""

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from threading import Semaphore, Thread
from time import perf_counter
from types import FrameType
from typing import IO, Any

import numpy as np

import summarymix
from summarymix.cli import above_zero, add_epoch_options, clear_ends, clear_errors, dashed
from summarymix.data.names import is_encodable, printable
from summarymix.decoding.backend import Backend, add_backend_option
from summarymix.decoding.live import Endpointing
from summarymix.decoding.methods import SearchOptions
from summarymix.decoding.recognizer import Recognizer
from summarymix.decoding.subtitles import MAX_CHARS, MAX_SECONDS, make_cues, srt, vtt
from summarymix.decoding.words import Transcript, to_json
from summarymix.files import atomic_write

EPILOG = """examples:
  {program} exp talk.mp3                                     text, on the terminal
  {program} exp --mode offline --format srt --out-dir subtitles *.opus
  arecord -q -t raw -f S16_LE -r 16000 | {program} exp --stdin   a microphone"""

# First bytes of WAV, FLAC, Ogg and MP3 files
HEADERS = (b"RIFF", b"fLaC", b"OggS", b"ID3")


def main(argv: Sequence[str] | None = None, program: str = "./transcribe.py") -> None:
    """Run ``transcribe.py``: transcribe audio files, or a live stream.

    Args:
        argv: arguments without the program's name; None for ``sys.argv``.
        program: name of the command.

    Raises:
        SystemExit: 2 on a wrong option, 1 if the model or a file cannot be read.
    """
    parser = _make_parser(program)
    arguments = [dashed(argument) for argument in (sys.argv[1:] if argv is None else argv)]
    args = parser.parse_intermixed_args(arguments)  # options before and after the files
    try:
        search = SearchOptions.from_args(args)
        _check(args)
    except ValueError as error:
        parser.error(str(error))
    with clear_errors(args.program):
        if args.stdin:
            with _read_ahead() as live:
                _transcribe_live(_load(args, search, args.backend), live, args)
            return
        # An export takes longer than it saves for half an hour of audio.
        recognizer = _load(args, search, None if args.backend == "auto" else args.backend)
        # An empty recording, to report wrong options before the first file.
        recognizer.transcribe(np.zeros(0), **_options(args))
    with clear_ends(args.program):
        failed = [path for path in args.files if not _transcribe_file(recognizer, path, args)]
    if failed:
        sys.exit(f"{args.program}: {len(failed)} of {len(args.files)} files could not be transcribed")


def _load(args: argparse.Namespace, search: SearchOptions, backend: Backend | None) -> Recognizer:
    recognizer = summarymix.load(args.model, args.epoch, args.avg, args.device, args.int8, backend)
    recognizer.set_search(search)
    return recognizer


def _make_parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description="Transcribe audio files of any length and format (WAV, FLAC, OGG, Opus, MP3, …), or a live stream.",
        epilog=EPILOG.format(program=program),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(program=program.removeprefix("./"))
    option = parser.add_argument
    option("model", type=Path, help="folder of a training run, a checkpoint, or a folder that export.py wrote")
    option("files", nargs="*", help="audio files")
    add_epoch_options(parser)
    option("--device", help="cpu, cuda, cuda:1, … (a GPU if there is one)")
    add_backend_option(parser, "auto")
    option("--int8", action="store_true", help="exported model: use the files with int8 weights")
    option("--mode", choices=["streaming", "offline"], default="streaming", help="decoding mode (streaming)")
    option("--chunk-ms", type=int, help="streaming: chunk size, a multiple of 40 ms (640, or that of the export)")
    option(
        "--left-chunks",
        type=int,
        help="streaming: left context in chunks, -1 for unlimited (the largest one in training)",
    )
    option(
        "--lookahead-ms",
        type=int,
        help="streaming: look-ahead, a multiple of 40 ms (0, or the export's)",
    )
    option(
        "--reset-after-silence",
        type=float,
        metavar="SECONDS",
        help="streaming: reset encoder and search after SECONDS without a word (never)",
    )
    option("--window-seconds", type=above_zero(float), help="offline: length of the windows of longer audio (30)")
    option("--overlap-seconds", type=above_zero(float), help="offline: overlap of consecutive windows (4)")
    option("--channel", type=int, help="channel to transcribe, counted from 0 (the mean of all)")
    option("--format", choices=["text", "json", "srt", "vtt"], default="text", help="output format (text)")
    option("--out-dir", type=Path, help="folder for one output file per audio file (standard output)")
    option("--cue-chars", type=above_zero(int), help=f"srt, vtt: maximum characters of a subtitle ({MAX_CHARS})")
    option("--cue-seconds", type=above_zero(float), help=f"srt, vtt: maximum seconds of a subtitle ({MAX_SECONDS:g})")
    SearchOptions.add_to(parser)
    live = parser.add_argument_group("live")
    live.add_argument("--stdin", action="store_true", help="transcribe raw 16-bit mono PCM as it arrives")
    live.add_argument("--sample-rate", type=int, help="sampling rate of --stdin, in Hz (the model's)")
    Endpointing.add_to(live)
    return parser


def _check(args: argparse.Namespace) -> None:
    """Check that the options go together.

    Raises:
        ValueError: two options exclude each other, or one is missing.
    """
    if args.stdin == bool(args.files):
        raise ValueError("give either audio files or --stdin")
    if args.stdin and (args.format in ("srt", "vtt") or args.mode == "offline" or args.out_dir):
        raise ValueError("--stdin needs --mode streaming and --format text or json, without --out-dir")
    if not args.stdin and (args.sample_rate, Endpointing.from_args(args)) != (None, Endpointing()):
        raise ValueError("--sample-rate, --endpoint-silence and --max-segment-seconds are for --stdin: leave them out")
    if args.stdin and args.channel is not None:
        raise ValueError("--channel is for files, --stdin has one channel: leave it out")
    if args.stdin and (args.window_seconds, args.overlap_seconds) != (None, None):
        raise ValueError("--window-seconds and --overlap-seconds are for --mode offline: leave them out")
    if args.format not in ("srt", "vtt") and (args.cue_chars, args.cue_seconds) != (None, None):
        raise ValueError("--cue-chars and --cue-seconds are for --format srt and vtt: leave them out")
    if args.mode == "offline" and args.backend == "onnx":
        raise ValueError("--backend onnx only applies to --mode streaming: leave it out")
    if args.format in ("srt", "vtt") and len(args.files) > 1 and not args.out_dir:
        raise ValueError(f"subtitles of {len(args.files)} files need a folder: give --out-dir")
    outputs: dict[Path, str] = {}
    for file in args.files if args.out_dir else ():
        other = outputs.setdefault(_output(args, file), file)
        if other != file:
            raise ValueError(
                f"{other} and {file} would both become {_output(args, file)}: use another --out-dir for one"
            )


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of :meth:`Recognizer.transcribe`."""
    names = (
        "mode",
        "chunk_ms",
        "left_chunks",
        "lookahead_ms",
        "window_seconds",
        "overlap_seconds",
        "reset_after_silence",
    )
    return {name: getattr(args, name) for name in names}


def _output(args: argparse.Namespace, file: str) -> Path:
    return args.out_dir / f"{Path(file).stem}.{'txt' if args.format == 'text' else args.format}"


def _transcribe_file(recognizer: Recognizer, file: str, args: argparse.Namespace) -> bool:
    """Transcribe a file and write the result. If the file cannot be read, print an error and return False."""
    if not is_encodable(file):
        print(f"{args.program}: {printable(file)}: the name is not UTF-8: rename the file", file=sys.stderr)
        return False
    start = perf_counter()
    try:
        transcript = recognizer.transcribe(file, channel=args.channel, **_options(args))
    except (ValueError, FileNotFoundError) as error:
        print(f"{args.program}: {error}", file=sys.stderr)
        return False
    seconds = perf_counter() - start
    if args.format == "json":
        rtf = seconds / transcript.end if transcript.end else None
        text = to_json(transcript, file=file, duration=transcript.end, rtf=rtf)
    elif args.format == "text":
        several = len(args.files) > 1 and not args.out_dir
        text = f"{file}: {transcript.text}\n" if several else transcript.text + "\n"
    else:
        cues = make_cues(transcript.words, args.cue_chars or MAX_CHARS, args.cue_seconds or MAX_SECONDS)
        text = srt(cues) if args.format == "srt" else vtt(cues)
    if args.out_dir:
        with clear_errors(args.program), atomic_write(_output(args, file)) as out:
            out.write(text)
    else:
        print(text, end="", flush=True)
    return True


def _transcribe_live(recognizer: Recognizer, live: Iterator[bytes], args: argparse.Namespace) -> None:
    """Write segments to standard output as they end, and the current segment so far to standard error."""
    stream = recognizer.stream(
        args.sample_rate,
        args.chunk_ms,
        args.left_chunks,
        args.lookahead_ms,
        Endpointing.from_args(args),
        args.reset_after_silence,
    )
    partial = _Partial(sys.stderr)

    def write(segments: list[Transcript]) -> None:
        for segment in segments:
            partial.show("")
            print(to_json(segment) if args.format == "json" else segment.text + "\n", end="", flush=True)
        partial.show(stream.partial)

    for samples in _pcm(live):
        write(stream.accept(samples))
    write(stream.finish())


@contextmanager
def _read_ahead() -> Iterator[Iterator[bytes]]:
    """Read standard input in a thread from now on, and yield an iterator over its blocks.

    While a model is loaded or exported, recording programs would lose what does not fit the pipe, two seconds of audio.
    Ctrl-C, the usual end of a microphone stream, ends the input: the iterator still has all that was read. Repeated, it
    ends the program.

    Raises:
        ValueError: standard input is closed.
    """
    if sys.stdin is None:
        raise ValueError("--stdin: standard input is closed: pipe 16-bit PCM into it")
    file = sys.stdin.fileno()
    blocks: SimpleQueue[bytes | OSError] = SimpleQueue()  # unlike Queue, it may be filled by a signal handler
    room = Semaphore(1 << 12)  # blocks: 32 MiB, a quarter of an hour at 16 kHz

    def read() -> None:
        try:
            while block := os.read(file, 1 << 13):
                room.acquire()
                blocks.put(block)
            blocks.put(b"")
        except OSError as error:
            blocks.put(error)

    def take() -> Iterator[bytes]:
        while block := blocks.get():
            if isinstance(block, OSError):
                raise block
            room.release()
            yield block

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(number, former)
        blocks.put(b"")

    former = signal.getsignal(signal.SIGINT)
    if former != signal.SIG_IGN:  # of programs in the background
        signal.signal(signal.SIGINT, end)
    try:
        Thread(target=read, daemon=True).start()
        yield take()
    finally:
        signal.signal(signal.SIGINT, former)


def _pcm(blocks: Iterable[bytes]) -> Iterator[np.ndarray]:
    """Yield the 16-bit samples (n,) of blocks of bytes, which may end within a sample.

    Raises:
        ValueError: there is no sample, or a file with a header.
    """
    rest, begin = b"", b""
    for block in blocks:
        if len(begin) < len(HEADERS[0]):
            begin += block[: len(HEADERS[0])]
            if begin.startswith(HEADERS):
                raise ValueError(
                    f"--stdin got a file with a header ({begin[:4]!r}), not raw samples: give the file itself, or the "
                    "option for raw output (arecord -t raw; ffmpeg -f s16le)"
                )
        block = rest + block
        whole = len(block) // 2 * 2
        rest = block[whole:]
        yield np.frombuffer(block[:whole], "<i2")
    if len(begin) < 2:
        raise ValueError("--stdin got no audio: pipe 16-bit PCM into it")


class _Partial:
    """Display of partial text: one overwritten line on a terminal, a line for each change elsewhere."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._shown = ""

    def show(self, text: str) -> None:
        """Replace the shown text by ``text``."""
        if text == self._shown:
            return
        self._shown = text
        if self._file.isatty():
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\x1b[K{text[-width:]}", end="", file=self._file, flush=True)
        elif text:
            print(text, file=self._file, flush=True)
