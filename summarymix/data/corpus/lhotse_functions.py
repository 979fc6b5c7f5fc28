"""The functions of lhotse's recipes that prepare and download corpora, and their arguments as options."""

import ast
import difflib
import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from inspect import Parameter
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from lhotse import CutSet

# Arguments that are not options. csj has manifest_dir and nj in place of output_dir and num_jobs.
_CORPUS_ARGUMENTS = ("corpus_dir", "target_dir")
OUTPUT_ARGUMENTS = ("output_dir", "manifest_dir")
JOBS_ARGUMENTS = ("num_jobs", "nj")
# Otherwise some recipes cut paths to their last parts.
ABSOLUTE_PATHS = "absolute_paths"


@cache
def recipes() -> dict[str, Callable[..., Any]]:
    """The ``prepare_…`` functions of lhotse's recipes that can give recordings with supervisions, by name.

    A recipe fits if its function is public, returns something, and does not declare to return anything else.
    """
    package = importlib.import_module("lhotse.recipes")
    found: dict[str, Callable[..., Any]] = {}
    for info in pkgutil.iter_modules(package.__path__):
        try:
            module = importlib.import_module(f"{package.__name__}.{info.name}")
        except ImportError:  # a recipe of another version of lhotse, with a missing package
            continue
        for name, function in vars(module).items():
            public = hasattr(package, name) or name == f"prepare_{info.name}"
            if name.startswith("prepare_") and public and inspect.isfunction(function) and _fits(function):
                found[name.removeprefix("prepare_")] = function
    return dict(sorted(found.items()))


def find_recipe(name: str) -> Callable[..., Any]:
    """The ``prepare_…`` function of a recipe.

    Raises:
        ValueError: there is none, or it gives no recordings with supervisions.
    """
    known = recipes()
    if name in known:
        return known[name]
    folded = {known_name.replace("_", ""): known_name for known_name in known}
    near = difflib.get_close_matches(re.sub(r"[\W_]", "", name.lower()), folded, 3)
    hint = f"did you mean {' or '.join(folded[close] for close in near)}?" if near else "--list shows all"
    raise ValueError(f"lhotse has no recipe {name!r} that gives recordings with supervisions: {hint}")


def list_recipes() -> list[str]:
    """One line per recipe: name, whether lhotse downloads it, arguments that it needs, options."""
    lines = []
    known = recipes()
    textless = [name for name, prepare in known.items() if not _writes_texts(prepare)]
    for name in [name for name in known if name not in textless]:
        prepare = known[name]
        options = options_of(prepare)
        needed = [option for option, parameter in options.items() if parameter.default is Parameter.empty]
        download = "download" if download_function(name, prepare) else ""
        others = [option for option in options if option not in needed]
        needs = f"needs {', '.join(needed)}" if needed else ""
        takes = f"takes {', '.join(others)}" if others else ""
        lines.append(f"{name:24}{download:10}{'; '.join(filter(None, (needs, takes)))}".rstrip())
    lines.append(
        f"{len(lines)} recipes of lhotse {version('lhotse')}; give what they need and take as --lhotse-option "
        f"NAME=VALUE. Not listed, because their code writes no transcripts: {', '.join(textless)}"
    )
    return lines


def _fits(function: Callable[..., Any]) -> bool:
    returned = str(inspect.signature(function).return_annotation)
    declared = "SupervisionSet" in returned or returned in (str(CutSet), str(Parameter.empty))
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    return declared and any(isinstance(node, ast.Return) and node.value for node in ast.walk(tree))


def _writes_texts(function: Callable[..., Any]) -> bool:
    """True if the module of a recipe makes supervisions with transcripts."""
    tree = ast.parse(inspect.getsource(importlib.import_module(function.__module__)))
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "SupervisionSegment"
        and any(keyword.arg == "text" for keyword in node.keywords)
        for node in ast.walk(tree)
    )


def download_function(name: str, prepare: Callable[..., Any]) -> Callable[..., Any] | None:
    """The ``download_…`` function beside a ``prepare_…`` function; None if the corpus cannot be downloaded."""
    function = vars(importlib.import_module(prepare.__module__)).get(f"download_{name}")
    return function if inspect.isfunction(function) else None


def corpus_argument(function: Callable[..., Any]) -> str:
    """Name of the argument for the folder of the corpus: the first, unless one is named so."""
    names = list(inspect.signature(function).parameters)
    return next((name for name in _CORPUS_ARGUMENTS if name in names), names[0])


def options_of(function: Callable[..., Any]) -> dict[str, Parameter]:
    """Arguments that can be given as options."""
    filled = {corpus_argument(function), *OUTPUT_ARGUMENTS, *JOBS_ARGUMENTS, ABSOLUTE_PATHS}
    return {name: p for name, p in inspect.signature(function).parameters.items() if name not in filled}


def check_needed(options: dict[str, Parameter], values: dict[str, Any], who: str) -> None:
    """Check that all options without a default have values.

    Raises:
        ValueError: one is missing; the message names it.
    """
    for name, parameter in options.items():
        if parameter.default is Parameter.empty and name not in values:
            raise ValueError(f"{who} needs --lhotse-option {name}=VALUE")


def read_values(options: Sequence[str], parameters: dict[str, Parameter], recipe: str) -> dict[str, Any]:
    """Values of ``NAME=VALUE`` options, converted to the types of the parameters.

    Raises:
        ValueError: an option does not exist, or has another type; the message names both.
    """
    values = {}
    for option in options:
        name, equals, text = option.partition("=")
        if not equals:
            raise ValueError(f"--lhotse-option {option}: write NAME=VALUE")
        if name not in parameters:
            names = ", ".join(parameters) or "no options"
            raise ValueError(f"--lhotse-option {option}: lhotse's recipe {recipe} has {names}, not {name}")
        try:
            values[name] = _value(text, parameters[name])
        except ValueError as error:
            raise ValueError(f"--lhotse-option {option}: {error}") from error
    return values


def _value(text: str, parameter: Parameter) -> Any:
    """Value of an option: a number, true or false, an absolute path, a string, or a list of these with commas.

    Where an argument may be both a string and a list, ``en`` is a string, and ``en,de`` and ``en,`` are lists.
    """
    types = _types(parameter.annotation)
    default = parameter.default
    if is_sequence(parameter) and ("," in text or str not in types or isinstance(default, list | tuple)):
        kinds = [kind for type_ in types for kind in get_args(type_)]
        is_path = any(Path in _types(kind) for kind in kinds)
        return [Path(part).absolute() if is_path else part for part in text.split(",") if part]
    if bool in types or isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError("use true or false")
        return text.lower() == "true"
    for number in (int, float):
        if number in types:
            try:
                return number(text)
            except ValueError as error:
                raise ValueError("use a whole number" if number is int else "use a number") from error
    return Path(text).absolute() if Path in types else text


def write_value(value: Any) -> str:
    """An option's value as :func:`read_values` reads it."""
    if isinstance(value, list):
        return ",".join(map(str, value)) + ("," if len(value) == 1 else "")
    return str(value).lower() if isinstance(value, bool) else str(value)


def _types(annotation: Any) -> list[Any]:
    """The alternatives of an annotation: those of a union, or itself."""
    if get_origin(annotation) in (Union, UnionType):
        return [part for one in get_args(annotation) for part in _types(one)]
    return [annotation]


def is_sequence(parameter: Parameter) -> bool:
    """True for an argument that may be a list."""
    origins = [get_origin(type_) for type_ in _types(parameter.annotation)]
    return any(inspect.isclass(origin) and issubclass(origin, Sequence) for origin in origins)
