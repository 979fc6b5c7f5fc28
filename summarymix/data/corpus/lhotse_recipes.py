"""Preparation of a corpus by one of lhotse's recipes, such as ``lhotse.recipes.prepare_aishell``.

The recipes differ in the names of their arguments and in the nesting of their results. Arguments are filled by the
signature; in the results, recordings and supervisions are found by their types. They are written to a folder of lhotse
manifests, which :mod:`summarymix.data.corpus.lhotse_manifests` reads.
"""

import ast
import difflib
import hashlib
import importlib
import inspect
import json
import logging
import os
import pkgutil
import re
import shutil
import textwrap
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from inspect import Parameter
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from lhotse import CutSet, RecordingSet, SupervisionSet
from lhotse.audio.backend import (
    CompositeAudioBackend,
    Sph2pipeSubprocessBackend,
    get_current_audio_backend,
    set_current_audio_backend,
    soundfile_info,
)

from summarymix.data.manifests import write_manifest
from summarymix.data.names import check_name, is_guessed, kind_of, named_kinds, printable
from summarymix.files import atomic_write

MARK = ".lhotse-recipe.json"
LOG = "lhotse.log"
_OUTPUT = "output"
_KINDS = {"recordings": RecordingSet, "supervisions": SupervisionSet, "cuts": CutSet}
# Arguments that are not options. csj has manifest_dir and nj in place of output_dir and num_jobs.
_CORPUS_ARGUMENTS = ("corpus_dir", "target_dir")
_OUTPUT_ARGUMENTS = ("output_dir", "manifest_dir")
_JOBS_ARGUMENTS = ("num_jobs", "nj")
# Otherwise some recipes cut paths to their last parts.
_ABSOLUTE_PATHS = "absolute_paths"


@dataclass(frozen=True)
class LhotseRecipe:
    """One of lhotse's recipes with its arguments."""

    name: str
    corpus_dir: Path
    options: tuple[str, ...] = ()
    """More arguments of the recipe, as NAME=VALUE; see :func:`_value`."""

    def absolute(self) -> "LhotseRecipe":
        """Copy with absolute paths, also in the options.

        Raises:
            ValueError: lhotse has no such recipe, or the recipe has no such option.
        """
        values = _values(self.options, _options(find_recipe(self.name)), self.name)
        options = tuple(f"{name}={_text(value)}" for name, value in values.items())
        return replace(self, corpus_dir=self.corpus_dir.absolute(), options=options)

    def paths(self) -> list[Path]:
        """The folder of the corpus, and other existing folders and files that the options name."""
        values = [part for option in self.options for part in option.partition("=")[2].split(",")]
        return [self.corpus_dir, *(Path(value) for value in values if os.path.isabs(value) and os.path.exists(value))]


@dataclass
class _Prepared:
    """Manifests of one split, by kind."""

    split: str | None
    manifests: dict[str, Any]


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
        options = _options(prepare)
        needed = [option for option, parameter in options.items() if parameter.default is Parameter.empty]
        download = "download" if _download_function(name, prepare) else ""
        others = [option for option in options if option not in needed]
        needs = f"needs {', '.join(needed)}" if needed else ""
        takes = f"takes {', '.join(others)}" if others else ""
        lines.append(f"{name:24}{download:10}{'; '.join(filter(None, (needs, takes)))}".rstrip())
    lines.append(
        f"{len(lines)} recipes of lhotse {version('lhotse')}; give what they need and take as --lhotse-option "
        f"NAME=VALUE. Not listed, because their code writes no transcripts: {', '.join(textless)}"
    )
    return lines


def download_with_lhotse(recipe: LhotseRecipe) -> LhotseRecipe:
    """Download a corpus to ``recipe.corpus_dir`` by lhotse's own function.

    Returns:
        The recipe with the folder of the corpus, without options of the download alone.

    Raises:
        ValueError: lhotse cannot download it, or has no such option.
        OSError: the download failed.
    """
    prepare = find_recipe(recipe.name)
    function = _download_function(recipe.name, prepare)
    if function is None:
        raise ValueError(
            f"lhotse cannot download {recipe.name}: get it from its publisher, and give its folder with --corpus-dir"
        )
    of_prepare, of_download = _options(prepare), _options(function)
    values = _values(recipe.options, of_prepare | of_download, recipe.name)
    arguments = {_corpus_argument(function): recipe.corpus_dir.absolute()}
    arguments |= {name: value for name, value in values.items() if name in of_download}
    _check_needed(of_download, values, f"the download of {recipe.name}")
    remedy = "try again, or download it by hand and leave out --download"
    with _clear_errors(function, recipe.corpus_dir, remedy):
        made = function(**arguments)
    kept = tuple(option for option in recipe.options if option.partition("=")[0] in of_prepare)
    return replace(recipe, corpus_dir=Path(made or recipe.corpus_dir), options=kept)


def prepare_with_lhotse(recipe: LhotseRecipe, folder: Path, num_jobs: int = 1) -> list[str]:
    """Write the manifests of a corpus to ``folder``, unless an earlier call wrote them from the same files.

    Args:
        recipe: recipe and corpus.
        folder: output folder, which belongs to this function.
        num_jobs: processes or threads of the recipe.

    Returns:
        Sentences for the report on the corpus.

    Raises:
        FileNotFoundError: there is no folder of the corpus.
        FileExistsError: ``folder`` is from something else.
        ValueError: the recipe or an option does not exist, the recipe failed, or its result has no utterances.
        ImportError: the recipe needs a package that is missing.
    """
    recipe = recipe.absolute()
    prepare = find_recipe(recipe.name)
    if not recipe.corpus_dir.exists():
        raise FileNotFoundError(
            f"{recipe.corpus_dir}: no such folder; give the corpus with --corpus-dir, or add --download"
        )
    key = {
        "lhotse": version("lhotse"),
        "recipe": [recipe.name, str(recipe.corpus_dir), *recipe.options],
        "files": _digest(recipe.paths()),
    }
    mark = folder / MARK
    if mark.is_file():
        done = json.loads(mark.read_text(encoding="utf-8"))
        if done.get("key") == key:
            return list(done["notes"]) + _log_note(folder)
        shutil.rmtree(folder)
    elif folder.exists():
        raise FileExistsError(f"{folder} is in the way: it is not from this program; move it")
    _write_json(mark, {})
    (folder / _OUTPUT).mkdir()

    result = _call(prepare, recipe, folder, num_jobs)
    notes: list[str] = []
    for prepared in _named(result, recipe, notes):
        for kind, manifest in prepared.manifests.items():
            ending = "" if prepared.split is None else f"_{prepared.split}"
            write_manifest(manifest, folder / f"{recipe.name}_{kind}{ending}.jsonl.gz")
    for path in list((folder / _OUTPUT).rglob("*.jsonl*")):  # lhotse's copies of the same manifests
        path.unlink()
    _write_json(mark, {"key": key, "notes": notes})
    return notes + _log_note(folder)


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


def _download_function(name: str, prepare: Callable[..., Any]) -> Callable[..., Any] | None:
    function = vars(importlib.import_module(prepare.__module__)).get(f"download_{name}")
    return function if inspect.isfunction(function) else None


def _corpus_argument(function: Callable[..., Any]) -> str:
    """Name of the argument for the folder of the corpus: the first, unless one is named so."""
    names = list(inspect.signature(function).parameters)
    return next((name for name in _CORPUS_ARGUMENTS if name in names), names[0])


def _options(function: Callable[..., Any]) -> dict[str, Parameter]:
    """Arguments that can be given as options."""
    filled = {_corpus_argument(function), *_OUTPUT_ARGUMENTS, *_JOBS_ARGUMENTS, _ABSOLUTE_PATHS}
    return {name: p for name, p in inspect.signature(function).parameters.items() if name not in filled}


def _call(prepare: Callable[..., Any], recipe: LhotseRecipe, folder: Path, num_jobs: int) -> Any:
    parameters = inspect.signature(prepare).parameters
    options = _options(prepare)
    values = _values(recipe.options, options, recipe.name)
    _check_needed(options, values, f"lhotse's recipe {recipe.name}")
    argument = _corpus_argument(prepare)
    corpus: Any = recipe.corpus_dir
    filled = {argument: [corpus] if _is_sequence(parameters[argument]) else corpus}
    filled |= {name: folder / _OUTPUT for name in _OUTPUT_ARGUMENTS if name in parameters}
    filled |= {name: num_jobs for name in _JOBS_ARGUMENTS if name in parameters}
    filled |= {_ABSOLUTE_PATHS: True} if _ABSOLUTE_PATHS in parameters else {}
    remedy = (
        "compare the folder with the layout that the recipe expects: "
        f"python -c \"help('{prepare.__module__}.{prepare.__name__}')\""
    )
    with _clear_errors(prepare, recipe.corpus_dir, remedy), _logged(folder / LOG), _sphere_files():
        return prepare(**(filled | values))


def _check_needed(options: dict[str, Parameter], values: dict[str, Any], who: str) -> None:
    for name, parameter in options.items():
        if parameter.default is Parameter.empty and name not in values:
            raise ValueError(f"{who} needs --lhotse-option {name}=VALUE")


def _values(options: Sequence[str], parameters: dict[str, Parameter], recipe: str) -> dict[str, Any]:
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
    if _is_sequence(parameter) and ("," in text or str not in types or isinstance(default, list | tuple)):
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


def _text(value: Any) -> str:
    """An option's value as :func:`_value` reads it."""
    if isinstance(value, list):
        return ",".join(map(str, value)) + ("," if len(value) == 1 else "")
    return str(value).lower() if isinstance(value, bool) else str(value)


def _types(annotation: Any) -> list[Any]:
    """The alternatives of an annotation: those of a union, or itself."""
    if get_origin(annotation) in (Union, UnionType):
        return [part for one in get_args(annotation) for part in _types(one)]
    return [annotation]


def _is_sequence(parameter: Parameter) -> bool:
    origins = [get_origin(type_) for type_ in _types(parameter.annotation)]
    return any(inspect.isclass(origin) and issubclass(origin, Sequence) for origin in origins)


@contextmanager
def _clear_errors(function: Callable[..., Any], corpus_dir: Path, remedy: str) -> Iterator[None]:
    """Name recipe, folder and remedy in errors of a recipe, which raises whatever a missing file leads to."""
    try:
        yield
    except ImportError as error:
        raise ImportError(
            f"{function.__name__} of lhotse needs another package, to be installed with pip: {error}"
        ) from error
    except Exception as error:
        line = traceback.extract_tb(error.__traceback__)[-1].line  # says more than a bare AssertionError
        reason = f"{type(error).__name__}: {str(error).rstrip('.') or line}"
        kind = OSError if isinstance(error, OSError) else ValueError
        raise kind(f"{function.__name__} of lhotse failed on {corpus_dir}: {reason:.500}; {remedy}") from error


class _SphereBackend(Sph2pipeSubprocessBackend):
    """Reader of the lengths of .sph files by libsndfile, or by sph2pipe if they are compressed."""

    def info(self, path_or_fd: Any, force_opus_sampling_rate: int | None = None) -> Any:
        try:
            return soundfile_info(path_or_fd)
        except Exception:  # lhotse's message on sph2pipe is better
            return super().info(path_or_fd, force_opus_sampling_rate)


@contextmanager
def _sphere_files() -> Iterator[None]:
    """Let recipes open .sph files as the rest of the preparation does, where lhotse starts sph2pipe for each."""
    current = get_current_audio_backend()
    if not isinstance(current, CompositeAudioBackend):
        yield
        return
    backends = [_SphereBackend() if type(one) is Sph2pipeSubprocessBackend else one for one in current.backends]
    set_current_audio_backend(CompositeAudioBackend(backends))
    try:
        yield
    finally:
        set_current_audio_backend(current)


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Write warnings, by which recipes say what they leave out, to a file."""
    handler = logging.FileHandler(path, encoding="utf-8", delay=True)
    handler.setLevel(logging.WARNING)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


def _log_note(folder: Path) -> list[str]:
    path = folder / LOG
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [f"Warning: {len(lines)} warnings of lhotse's recipe, such as {lines[0]:.200}; see {path}"]


def _named(result: Any, recipe: LhotseRecipe, notes: list[str]) -> list[_Prepared]:
    """Splits of a result with utterances.

    Raises:
        ValueError: there is none.
    """
    prepared: list[_Prepared] = []
    incomplete: list[str] = []
    keys: set[str] = set()
    for path, manifests in _found(result):
        keys.update(path)
        label = "/".join(path) or "the corpus"
        if "recordings" in manifests and "supervisions" in manifests:
            manifests.pop("cuts", None)
        elif "cuts" in manifests:
            manifests = {"cuts": manifests["cuts"]}
        else:
            incomplete.append(f"{label} has {' and '.join(manifests)} alone")
            continue
        if not _has_texts(manifests):
            incomplete.append(f"{label} has no utterances with transcripts")
        else:
            prepared.append(_Prepared(_split_name(path), manifests))
    if not prepared:
        reason = "; ".join(incomplete) or "it found nothing"
        raise ValueError(
            f"lhotse's recipe {recipe.name} gives no recordings with supervisions for {recipe.corpus_dir}: {reason}. "
            "Give the folder that its documentation describes, and a corpus of transcribed speech"
        )
    for name, value in _values(recipe.options, _options(find_recipe(recipe.name)), recipe.name).items():
        # Recipes skip some languages and parts that they do not find.
        missing = set(value) - keys if isinstance(value, list) and keys & set(value) else ()
        incomplete += [f"{part} of {name} is not there" for part in sorted(missing)]
    notes += [f"Warning: {reason}, says lhotse's recipe" for reason in incomplete]
    _choose_training(prepared, notes)
    names = [one.split for one in prepared]
    for split in names:
        if names.count(split) > 1:
            raise ValueError(
                f"lhotse's recipe {recipe.name} gives two splits that become {split}: choose one by an option"
            )
    return prepared


def _found(result: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Manifests in a nested result, by kind, with the keys that lead to them.

    The types decide, because keys differ, and those of aishell3 are interchanged.
    """
    items = result.values() if isinstance(result, Mapping) else result if isinstance(result, tuple | list) else [result]
    manifests = {kind: item for kind, type_ in _KINDS.items() for item in items if isinstance(item, type_)}
    if manifests:
        yield path, manifests
    elif isinstance(result, Mapping):
        for key, value in result.items():
            yield from _found(value, (*path, str(key)))


def _has_texts(manifests: dict[str, Any]) -> bool:
    cuts = manifests.get("cuts", ())
    supervisions = manifests.get("supervisions") or (one for cut in cuts for one in cut.supervisions)
    return any(supervision.text is not None for supervision in supervisions)


def _split_name(path: tuple[str, ...]) -> str | None:
    """Name of a split: its kind comes first, so that ``en`` and ``train`` become ``train-en``; None without a name."""
    if not path:
        return None
    name = re.sub(r"[^\w.-]+", "_", "-".join(sorted(path, key=is_guessed)))
    kinds = named_kinds(name)
    name = f"{kinds[0]}-{name}" if is_guessed(name) and len(kinds) == 1 else name
    return check_name(name, "lhotse's split")


def _choose_training(prepared: list[_Prepared], notes: list[str]) -> None:
    """Train on the splits whose names say nothing, such as XL, if no name says that it is training data."""
    splits = [one.split for one in prepared if one.split is not None]
    if len(splits) < len(prepared) or any(kind_of(split) == "train" for split in splits):
        return
    for one in prepared:
        if one.split is not None and kind_of(one.split) == "test" and not named_kinds(one.split):
            notes.append(f"{one.split} is training data, because no split of lhotse's recipe is named so")
            one.split = f"train-{one.split}"


def _digest(paths: Sequence[Path]) -> str:
    """Text that changes when a file in these folders does: by names, sizes and times."""
    digest = hashlib.sha256()
    for top in paths:
        found = os.walk(top, followlinks=True)
        for path in [top] if top.is_file() else sorted(Path(at, name) for at, _, names in found for name in names):
            if path.exists():  # not a dangling link
                status = path.stat()
                digest.update(f"{printable(path)} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic_write(path) as file:
        json.dump(content, file)
