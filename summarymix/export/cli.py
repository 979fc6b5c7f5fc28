"""The command line of every recipe's ``export.py``."""

import argparse
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import get_args

from summarymix.chunking import CHUNK_MS, ChunkConfig
from summarymix.cli import add_epoch_options, clear_errors, dashed
from summarymix.export.bundle import Export, Format
from summarymix.export.onnx import Precision
from summarymix.runs import choose_epoch, load_run_or_checkpoint

EPILOG = """examples:
  {program} --format onnx-streaming --out exported/streaming --chunk-ms 320 640 1280 --left-chunks 4 --int8
  {program} --format onnx --out exported/offline
  {program} --format torchscript --out exported/torchscript"""

DEFAULT_LEFT_CHUNKS = 4


def main(recipe: str | None, argv: Sequence[str] | None = None, program: str = "./export.py") -> None:
    """Export a model from the command line.

    Args:
        recipe: name of the recipe; models of other recipes are refused. None allows any model.
        argv: command line arguments; None takes ``sys.argv``.
        program: name of the program in messages.

    Raises:
        SystemExit: with a message; 2 for a wrong option, 1 if the export fails.
    """
    name = program.removeprefix("./")
    parser = argparse.ArgumentParser(
        prog=program,
        description="Export a model for sherpa-onnx, or for C++ programs with libtorch. Writes a folder with encoder,\n"
        "decoder, joiner, tokens and a README with the commands to use them.",
        epilog=EPILOG.format(program=program),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    option = parser.add_argument
    option("--exp-dir", type=Path, default=Path("exp"), help="folder of the training run, or a checkpoint (exp)")
    add_epoch_options(parser)
    option("--format", choices=get_args(Format), required=True, help="onnx: whole recordings; the others: streaming")
    option("--out", type=Path, required=True, help="folder to write; must not exist yet")
    option("--chunk-ms", nargs="+", type=int, help=f"chunk sizes, multiples of 40 ms ({CHUNK_MS})")
    option("--left-chunks", type=int, help=f"left context in chunks, -1: unlimited ({DEFAULT_LEFT_CHUNKS})")
    option("--lookahead-ms", nargs="+", type=int, help="look-aheads, multiples of 40 ms, each with each chunk size (0)")
    option("--int8", action="store_true", help="also write ONNX files with int8 weights")
    option("--fp16", action="store_true", help="also write ONNX files in float16")
    args = parser.parse_args([dashed(argument) for argument in (sys.argv[1:] if argv is None else argv)])
    try:
        chunks = _chunks(args)
    except ValueError as error:
        parser.error(str(error))
    with clear_errors(name):
        *_, reason = choose_epoch(args.exp_dir, args.epoch, args.avg)
        if reason:
            print(reason, file=sys.stderr)
        loaded = load_run_or_checkpoint(args.exp_dir, args.epoch, args.avg, recipe)
        precisions: list[Precision] = [name for name in ("int8", "fp16") if getattr(args, name)]
        export = Export.of_run(*loaded, args.format, chunks, precisions)
        warnings = export.write(args.out)
    for warning in warnings:
        print(f"{name}: {warning}", file=sys.stderr)
    about = "; ".join(map(str, chunks))
    print(f"{args.out}: {export.name}, {args.format}, {about}; checked against the model. See {args.out}/README.md")


def _chunks(args: argparse.Namespace) -> list[ChunkConfig]:
    """Chunk configurations from the options.

    Raises:
        ValueError: the format has no chunks, or the chunk size is impossible.
    """
    if args.format != "onnx":
        left_chunks = DEFAULT_LEFT_CHUNKS if args.left_chunks is None else args.left_chunks
        pairs = product(args.chunk_ms or [CHUNK_MS], args.lookahead_ms or [0])
        return [ChunkConfig.from_ms(chunk_ms, left_chunks, lookahead_ms) for chunk_ms, lookahead_ms in pairs]
    if (args.chunk_ms, args.left_chunks, args.lookahead_ms) != (None, None, None):
        raise ValueError(
            "--format onnx has full context: omit --chunk-ms, --left-chunks, --lookahead-ms, or choose another format"
        )
    return [ChunkConfig()]
