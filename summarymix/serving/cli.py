"""The command ``summarymix serve``: a server with a page to try a model."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path

import summarymix
from summarymix.chunking import FRAME_MS, ChunkConfig, default_chunk
from summarymix.cli import add_epoch_options, clear_errors, dashed
from summarymix.decoding.backend import add_backend_option
from summarymix.decoding.live import Endpointing
from summarymix.decoding.methods import SearchOptions
from summarymix.decoding.recognizer import Recognizer
from summarymix.export.onnx_transducer import OnnxTransducer
from summarymix.serving.batching import Batcher, Rules, Setting

CHUNKS_MS, LOOKAHEADS_MS = (640, 320, 160, 1280), (0, 160, 320)


def main(argv: Sequence[str] | None = None, program: str = "summarymix serve") -> None:
    """Run ``summarymix serve``.

    Args:
        argv: arguments without the program's name; None for ``sys.argv``.
        program: name of the command.

    Raises:
        SystemExit: 2 on a wrong option, 1 if the model cannot be read or the address is taken.
    """
    parser = _make_parser(program)
    args = parser.parse_args([dashed(argument) for argument in (sys.argv[1:] if argv is None else argv)])
    try:
        search = SearchOptions.from_args(args)
        rules = Rules(args.left_chunks, Endpointing.from_args(args), args.reset_after_silence)
    except ValueError as error:
        parser.error(str(error))
    if not 0 <= args.port <= 65535:
        parser.error(f"--port {args.port} is not between 0 and 65535")
    with clear_errors(program):
        from summarymix.serving.server import Limits, Server  # needs aiohttp

        limits = Limits(args.max_clients, args.max_minutes, args.idle_seconds)
        recognizer = summarymix.load(args.model, args.epoch, args.avg, args.device, args.int8, args.backend)
        recognizer.set_search(search)
        settings = offered_settings(recognizer, args.chunk_ms, args.lookahead_ms, rules)
        batcher = Batcher(recognizer, limits.max_clients, rules)
        rate = recognizer.extractor.options.sample_rate
        server = Server(batcher, settings, rate, limits, args.model.resolve().name, args.public_host)
        asyncio.run(server.run(args.host, args.port, partial(print, "listening on", flush=True)))
    print(f"{program}: stopped", file=sys.stderr)


def offered_settings(
    recognizer: Recognizer, chunks_ms: list[int] | None, lookaheads_ms: list[int] | None, rules: Rules
) -> list[Setting]:
    """Return the settings that clients may choose, the default first.

    Args:
        recognizer: the model. An exported model has the settings of its files.
        chunks_ms: chunk sizes; None for usual ones that the model allows.
        lookaheads_ms: look-aheads, offered with each chunk size; None for usual ones, none longer than its chunk.
        rules: options of all streams.

    Raises:
        ValueError: the model cannot stream with one of the given values.
    """
    model = recognizer.model
    if isinstance(model, OnnxTransducer):
        # An export for whole recordings has no chunks: the recogniser will say so of the usual one.
        chunks = [chunk for chunk in model.encoder.chunks if chunk.chunk_size] or [ChunkConfig.from_ms(CHUNKS_MS[0])]
        default = default_chunk(chunks)
        chunks.sort(key=lambda chunk: (chunk != default, chunk.chunk_size, chunk.lookahead))
        exported = [Setting(chunk.chunk_ms or 0, chunk.lookahead_ms) for chunk in chunks]
        settings = [
            one
            for one in exported
            if one.chunk_ms in (chunks_ms or [one.chunk_ms])
            and one.lookahead_ms in (lookaheads_ms or [one.lookahead_ms])
        ]
        for name, asked, i in (("--chunk-ms", chunks_ms, 0), ("--lookahead-ms", lookaheads_ms, 1)):
            for value in asked or []:
                if value not in [one[i] for one in settings]:
                    known = "; ".join(f"{one.chunk_ms} + {one.lookahead_ms}" for one in exported)
                    raise ValueError(f"{name} {value}: chunks and look-aheads of the exported model are {known}")
        settings.sort(
            key=lambda one: (
                chunks_ms.index(one.chunk_ms) if chunks_ms else 0,
                lookaheads_ms.index(one.lookahead_ms) if lookaheads_ms else 0,
            )
        )
    else:
        frame = FRAME_MS * model.encoder.chunk_multiple
        usual_chunks = [ms for ms in CHUNKS_MS if ms % frame == 0] or [frame]
        usual_lookaheads = [ms for ms in LOOKAHEADS_MS if ms % frame == 0]
        pairs = product(dict.fromkeys(chunks_ms or usual_chunks), dict.fromkeys(lookaheads_ms or usual_lookaheads))
        settings = [Setting(*pair) for pair in pairs if lookaheads_ms or pair[1] <= pair[0]]
    for setting in settings:
        streams = recognizer.streams(1, setting.chunk_ms, rules.left_chunks, setting.lookahead_ms)
        streams.open(None, rules.endpointing, rules.reset_after_silence)
    return settings


def _make_parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description="Serve a model: a page that transcribes a microphone or a file, and a WebSocket for programs.",
        allow_abbrev=False,
    )
    option = parser.add_argument
    option("model", type=Path, help="folder of a training run, a checkpoint, or a folder that export.py wrote")
    option("--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine only)")
    option("--port", type=int, default=6006, help="port, 0 for a free one (6006)")
    option("--public-host", metavar="HOST", help="host, or host:port, under which a proxy serves the page")
    option("--max-clients", type=int, default=64, help="clients at a time (64)")
    option("--max-minutes", type=float, default=60.0, help="length of a stream in minutes (60)")
    option("--idle-seconds", type=float, default=30.0, help="seconds after which a silent connection ends (30)")
    add_epoch_options(parser)
    option("--device", help="cpu, cuda, cuda:1, … (a GPU if there is one)")
    add_backend_option(parser, default=None)  # exports of all settings would delay the first start by minutes
    option("--int8", action="store_true", help="exported model: use the files with int8 weights")
    option(
        "--chunk-ms",
        type=int,
        nargs="+",
        help="chunk sizes to offer, the default first (640 320 160 1280; the export's)",
    )
    option(
        "--lookahead-ms", type=int, nargs="+", help="look-aheads to offer, the default first (0 160 320; the export's)"
    )
    option("--left-chunks", type=int, help="left context in chunks, -1 for unlimited (the largest one in training)")
    option(
        "--reset-after-silence",
        type=float,
        metavar="SECONDS",
        help="reset encoder and search after SECONDS without a word (never)",
    )
    Endpointing.add_to(parser)
    SearchOptions.add_to(parser)
    return parser
