"""The command ``summarymix``: transcribe with a model, serve or export it, from any folder."""

import sys
from collections.abc import Sequence

USAGE = """usage: summarymix transcribe MODEL FILE...   transcribe audio files
       summarymix stream MODEL              transcribe raw audio from standard input, live
       summarymix serve MODEL               serve a page and a WebSocket that transcribe live
       summarymix export [options]          export a model for sherpa-onnx, or for C++ programs with libtorch

Each subcommand has --help. MODEL is the folder of a training run, a checkpoint, or an exported
model."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run a subcommand.

    Args:
        argv: arguments without the program's name; None takes the process's own.

    Raises:
        SystemExit: 2 on a wrong option or without a subcommand, 1 if the subcommand fails.
    """
    subcommand, *rest = [*(sys.argv[1:] if argv is None else argv)] or [""]
    # Imported only where they are run, because each takes a second or two.
    if subcommand in ("transcribe", "stream"):
        from summarymix.decoding.transcribe import main as transcribe

        transcribe([*rest, "--stdin"] if subcommand == "stream" else rest, f"summarymix {subcommand}")
    elif subcommand == "serve":
        from summarymix.serving.cli import main as serve

        serve(rest)
    elif subcommand == "export":
        from summarymix.export.cli import main as export

        export(None, rest, "summarymix export")
    elif subcommand in ("-h", "--help"):
        print(USAGE)
    else:
        print(USAGE, file=sys.stderr)
        sys.exit(2)
