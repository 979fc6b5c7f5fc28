"""Command lines from dataclasses: each field is an option, fields of nested dataclasses are written with dots."""

import argparse
import difflib
import io
import math
import os
import re
import select
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_type_hints

import jsonargparse
import yaml
from tqdm import tqdm

from summarymix.configs import dotted

jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)

ConfigT = TypeVar("ConfigT")
NumberT = TypeVar("NumberT", int, float)


def parse_config(
    cls: type[ConfigT],
    argv: Sequence[str] | None = None,
    description: str = "",
    what_became_of: Callable[[str], str | None] = lambda name: None,
) -> ConfigT:
    """Fill the dataclass ``cls`` from a command line.

    Options are the fields' names, nested ones with dots, with underscores or dashes:
    ``--model.conformer.num-layers 8``. ``--config FILE`` reads YAML (several may be given; later arguments override
    earlier ones), ``--print_config`` prints the resulting configuration as YAML, ``--help`` shows types, defaults and
    the fields' docstrings.

    Args:
        cls: dataclass with typed fields, whose defaults are plain values or dataclasses of them.
        argv: arguments without the program's name; None takes the process's own.
        description: first text of ``--help``.
        what_became_of: returns a sentence on an option of earlier versions, given its dotted name; None for others.

    Returns:
        An instance of ``cls``.

    Raises:
        SystemExit: after ``--help`` and ``--print_config`` (0), or with a message on a wrong option (2).
    """
    arguments = [_underscored(argument) for argument in (sys.argv[1:] if argv is None else argv)]
    known = option_names(cls)

    class Parser(jsonargparse.ArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            print(f"error: {message}{_suggestion(message, known)}\nAll options: {self.prog} --help", file=sys.stderr)
            sys.exit(2)

    for source, name in _given_names(arguments):
        if sentence := what_became_of(name):
            print(f"{source}: {sentence}", file=sys.stderr)
            sys.exit(2)
    try:
        return jsonargparse.auto_cli(
            cls,
            args=arguments,
            as_positional=False,
            return_instance=True,
            parser_class=Parser,
            description=description,
            allow_abbrev=False,
        )
    except ValueError as error:  # from a dataclass: options that contradict each other
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _given_names(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the source and the dotted name of each option in a command line and its configuration files."""
    for argument, following in pairwise([*arguments, ""]):
        name, equals, value = argument.partition("=")
        if name != "--config":
            if name.startswith("--"):
                yield "command line", name[2:]
            continue
        path = Path(value if equals else following)
        try:
            values = yaml.safe_load(path.read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError):  # the parser reports it
            continue
        if isinstance(values, dict):
            yield from ((str(path), name) for name, _ in dotted(values))


def dashed(argument: str) -> str:
    """Rewrite ``--exp_dir=a_b`` as ``--exp-dir=a_b``, so that parsers with dashes accept both spellings."""
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value if re.match(r"--[A-Za-z]", argument) else argument


def above_zero(kind: Callable[[str], NumberT]) -> Callable[[str], NumberT]:
    """Make the type of an argparse option: a finite number above 0, an ``int`` or a ``float``."""

    def parse(text: str) -> NumberT:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"{text!r} is not a {'whole ' if kind is int else ''}number above 0")
        return value

    return parse


def add_epoch_options(parser: argparse.ArgumentParser) -> None:
    """Add --epoch and --avg, for :func:`summarymix.runs.choose_epoch`."""
    parser.add_argument(
        "--epoch", type=int, help="last epoch to average (default: the choice of decode.py --select, or else the last)"
    )
    parser.add_argument(
        "--avg", type=int, help="epochs to average, 0 for none (default: as selected with the epoch, or else 1)"
    )


def progress_bar(*arguments: Any, **options: Any) -> "tqdm[Any]":
    """A tqdm bar on stderr, removed when it is full; in a file or pipe it prints a line every 15 seconds."""
    terminal = sys.stderr.isatty()
    pace = {"mininterval": 0.5 if terminal else 15, "delay": 0 if terminal else 15}
    return tqdm(*arguments, leave=False, **pace, **options)


def say(text: str) -> None:
    """Print a line on stderr, above a progress bar if there is one."""
    tqdm.write(text, file=sys.stderr)


@contextmanager
def clear_ends(program: str) -> Iterator[None]:
    """End ``program`` with one line on Ctrl-C, and silently when the reader of its output has closed the pipe.

    Characters that the output's encoding lacks become escapes, as on stderr.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.encoding != "utf-8":
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"{program}: stopped by Ctrl-C", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError as error:
        output = select.poll()
        output.register(sys.stdout, select.POLLOUT)
        if not any(events & select.POLLERR for _, events in output.poll(0)):
            sys.exit(f"{program}: {error}")  # another pipe or connection
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at exit
        sys.exit(128 + signal.SIGPIPE)


@contextmanager
def clear_errors(program: str) -> Iterator[None]:
    """End ``program`` with one line instead of a traceback on errors that the user can fix.

    Examples are a missing file, a full disk, a checkpoint of another model, a missing package, a batch that exceeds the
    memory (MemoryError) and a training that diverges (FloatingPointError). Other errors keep their traceback. Ctrl-C
    and closed pipes are handled as in :func:`clear_ends`.
    """
    with clear_ends(program):
        try:
            _check_library()
            yield
        except BrokenPipeError:  # an OSError that clear_ends handles
            raise
        except (ValueError, OSError, ImportError, MemoryError, FloatingPointError) as error:
            sys.exit(f"{program}: {error}")
        except BrokenExecutor as error:
            sys.exit(
                f"{program}: a worker was killed ({error}), perhaps because the memory was full: use fewer workers "
                "(--nj). The same command continues"
            )


def _check_library() -> None:
    """Check that a script uses the library of its own checkout, where both are in checkouts.

    Raises:
        ImportError: the library is that of another checkout, which is installed in this environment.
    """
    library, script = Path(__file__).resolve().parents[1], Path(sys.argv[0]).resolve()
    if script.suffix != ".py" or script.is_relative_to(Path(sys.prefix).resolve()):  # a program of the environment
        return
    own = next((folder for folder in script.parents if (folder / "summarymix" / "__init__.py").is_file()), library)
    if own != library and (library / "egs").is_dir():
        raise ImportError(
            f"this is a script of {own}, but the library of {library} is installed: run . {own}/tools/setup.sh, or "
            f"set PYTHONPATH={own}"
        )


def option_names(cls: type) -> list[str]:
    """The dotted names of all fields of a dataclass, including nested dataclasses."""
    names = []
    hints = get_type_hints(cls)
    for field in fields(cls):
        names.append(field.name)
        if is_dataclass(hints[field.name]) and (field.default_factory is not MISSING):
            names += [f"{field.name}.{name}" for name in option_names(hints[field.name])]
    return names


def _underscored(argument: str) -> str:
    """Rewrite ``--exp-dir=a-b`` as ``--exp_dir=a-b``; values do not change."""
    if not re.match(r"--[A-Za-z]", argument):
        return argument
    name, equals, value = argument.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value


def _suggestion(message: str, known: list[str]) -> str:
    """A suggestion for the first unknown option in an error message of the parser; empty without one."""
    unknown = re.search(r"[Uu]nrecognized arguments: --([\w.]+)|does not accept option '([\w.]+)'", message)
    if not unknown:
        return ""
    name = unknown.group(1) or unknown.group(2)
    # A key of a YAML file is reported without its group, so compare last parts as well.
    leaves = {option.rsplit(".", 1)[-1]: option for option in reversed(known)}
    near = difflib.get_close_matches(name, known, 1) or difflib.get_close_matches(
        name.rsplit(".", 1)[-1], list(leaves), 1
    )
    return f" (did you mean {leaves.get(near[0], near[0])}?)" if near else ""
