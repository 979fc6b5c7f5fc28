"""Preparation of a corpus by one of lhotse's recipes, such as ``lhotse.recipes.prepare_aishell``.

The recipes differ in the names of their arguments and in the nesting of their results. Arguments are filled by the
signature; in the results, recordings and supervisions are found by their types. They are written to a folder of lhotse
manifests, which :mod:`summarymix.data.corpus.lhotse_manifests` reads.
"""

import hashlib
import inspect
import json
import logging
import os
import re
import shutil
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lhotse import CutSet, RecordingSet, SupervisionSet
from lhotse.audio.backend import (
    CompositeAudioBackend,
    Sph2pipeSubprocessBackend,
    get_current_audio_backend,
    set_current_audio_backend,
    soundfile_info,
)

from summarymix.data.corpus.lhotse_functions import (
    ABSOLUTE_PATHS,
    JOBS_ARGUMENTS,
    OUTPUT_ARGUMENTS,
    check_needed,
    corpus_argument,
    download_function,
    find_recipe,
    is_sequence,
    options_of,
    read_values,
    write_value,
)
from summarymix.data.manifests import write_manifest
from summarymix.data.names import check_name, is_guessed, kind_of, named_kinds, printable
from summarymix.files import atomic_write

MARK = ".lhotse-recipe.json"
LOG = "lhotse.log"
_OUTPUT = "output"
_KINDS = {"recordings": RecordingSet, "supervisions": SupervisionSet, "cuts": CutSet}


@dataclass(frozen=True)
class LhotseRecipe:
    """One of lhotse's recipes with its arguments."""

    name: str
    corpus_dir: Path
    options: tuple[str, ...] = ()
    """More arguments of the recipe, as NAME=VALUE; see
    :func:`summarymix.data.corpus.lhotse_functions.read_values`."""

    def absolute(self) -> "LhotseRecipe":
        """Copy with absolute paths, also in the options.

        Raises:
            ValueError: lhotse has no such recipe, or the recipe has no such option.
        """
        values = read_values(self.options, options_of(find_recipe(self.name)), self.name)
        options = tuple(f"{name}={write_value(value)}" for name, value in values.items())
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


def download_with_lhotse(recipe: LhotseRecipe) -> LhotseRecipe:
    """Download a corpus to ``recipe.corpus_dir`` by lhotse's own function.

    Returns:
        The recipe with the folder of the corpus, without options of the download alone.

    Raises:
        ValueError: lhotse cannot download it, or has no such option.
        OSError: the download failed.
    """
    prepare = find_recipe(recipe.name)
    function = download_function(recipe.name, prepare)
    if function is None:
        raise ValueError(
            f"lhotse cannot download {recipe.name}: get it from its publisher, and give its folder with --corpus-dir"
        )
    of_prepare, of_download = options_of(prepare), options_of(function)
    values = read_values(recipe.options, of_prepare | of_download, recipe.name)
    arguments = {corpus_argument(function): recipe.corpus_dir.absolute()}
    arguments |= {name: value for name, value in values.items() if name in of_download}
    check_needed(of_download, values, f"the download of {recipe.name}")
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


def _call(prepare: Callable[..., Any], recipe: LhotseRecipe, folder: Path, num_jobs: int) -> Any:
    parameters = inspect.signature(prepare).parameters
    options = options_of(prepare)
    values = read_values(recipe.options, options, recipe.name)
    check_needed(options, values, f"lhotse's recipe {recipe.name}")
    argument = corpus_argument(prepare)
    corpus: Any = recipe.corpus_dir
    filled = {argument: [corpus] if is_sequence(parameters[argument]) else corpus}
    filled |= {name: folder / _OUTPUT for name in OUTPUT_ARGUMENTS if name in parameters}
    filled |= {name: num_jobs for name in JOBS_ARGUMENTS if name in parameters}
    filled |= {ABSOLUTE_PATHS: True} if ABSOLUTE_PATHS in parameters else {}
    remedy = (
        "compare the folder with the layout that the recipe expects: "
        f"python -c \"help('{prepare.__module__}.{prepare.__name__}')\""
    )
    with _clear_errors(prepare, recipe.corpus_dir, remedy), _logged(folder / LOG), _sphere_files():
        return prepare(**(filled | values))


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
    for name, value in read_values(recipe.options, options_of(find_recipe(recipe.name)), recipe.name).items():
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
