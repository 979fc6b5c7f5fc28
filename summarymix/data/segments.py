"""Cuts of a split, each made of its supervision and recording when it is needed.

The manifests of a large corpus do not fit into memory as Python objects. They are copied once to files whose lines can
be read in any order, with memory-mapped arrays beside them::

    supervisions.jsonl, .npy     the lines, and where they begin
    recordings.jsonl, .npy
    by_id.npy                    the numbers of the supervisions in the order of their ids
    seconds.npy                  the duration of each supervision
    recording.npy                the number of each supervision's recording
"""

import hashlib
import json
import re
import socket
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Protocol

import numpy as np
from lhotse import Recording, SupervisionSegment
from lhotse.cut import Cut
from lhotse.serialization import deserialize_item
from numpy.typing import NDArray

from summarymix.data.lines import LineFile, id_hash, save_array, write_lines
from summarymix.data.manifests import CutManifest
from summarymix.files import new_folder

# The beginning of a line as lhotse writes it, unless an id has a backslash; json.loads takes several times as long.
_SUPERVISION = re.compile(
    rb'\{"id": "([^"\\]+)", "recording_id": "([^"\\]+)", "start": [0-9.e+-]+, "duration": ([0-9.e+-]+)[,}]'
)
_RECORDING = re.compile(rb'\{"id": "([^"\\]+)", ')

_LINES_AT_A_TIME = 1 << 16

# Bytes of each id in arrays, where the longest one sets the width of all.
_HEAD = 128


class Cuts(Protocol):
    """Cuts by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Cut: ...


class Segments:
    """The cuts of a split in the order of their ids, which are those of the supervisions. Pickled, it is only the path.

    Args:
        folder: folder that :func:`open_segments` has made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._supervisions = LineFile(folder / "supervisions.jsonl")
        self._recordings = LineFile(folder / "recordings.jsonl")
        self._by_id, self._recording = (np.load(folder / f"{n}.npy", mmap_mode="r") for n in ("by_id", "recording"))

    def __reduce__(self) -> tuple[type["Segments"], tuple[Path]]:
        return Segments, (self._folder,)

    def __len__(self) -> int:
        return len(self._by_id)

    def __getitem__(self, number: int) -> Cut:
        line = self._by_id[number]
        cut = Recording.from_dict(json.loads(self._recordings[self._recording[line]])).to_cut()
        cut.supervisions = [SupervisionSegment.from_dict(json.loads(self._supervisions[line]))]
        (trimmed,) = cut.trim_to_supervisions(keep_overlapping=False)
        return trimmed

    @property
    def seconds(self) -> float:
        """Duration of all cuts."""
        return float(np.load(self._folder / "seconds.npy", mmap_mode="r").sum())

    def ids(self) -> Iterator[str]:
        """The ids of all cuts, in any order."""
        path = self._folder / "supervisions.jsonl"
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                yield _values(_SUPERVISION, ("id",), line, path, number)[0].decode()


class CutLines:
    """Cuts in a file. Pickled, it is only the path."""

    def __init__(self, lines: LineFile) -> None:
        self._lines = lines

    @classmethod
    def write(cls, cuts: Iterable[Cut], path: Path) -> "CutLines":
        """Write cuts to a file and open it."""
        write_lines((json.dumps(cut.to_dict()).encode() + b"\n" for cut in cuts), path)
        return cls(LineFile(path))

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, number: int) -> Cut:
        return deserialize_item(json.loads(self._lines[number]))


def open_segments(recordings: Path, supervisions: Path, folder: Path, executor: Executor) -> Segments:
    """Open the cuts of two manifests, which are read only if ``folder`` has no copy of their present content.

    Args:
        recordings: manifest of the recordings.
        supervisions: manifest of the supervisions.
        folder: folder for the copy, which all workers must see under its absolute path.
        executor: reads the manifests.

    Raises:
        ValueError: a supervision's recording is missing, an id comes twice, or a line is no recording or supervision.
    """
    marks = repr([CutManifest(path).mark() for path in (recordings, supervisions)])
    place = folder.absolute() / hashlib.blake2b(marks.encode(), digest_size=8).hexdigest()
    if not place.is_dir():
        with new_folder(place) as new:
            scans = [
                executor.submit(_copy_recordings, recordings.absolute(), new),
                executor.submit(_copy_supervisions, supervisions.absolute(), new),
            ]
            ids, wanted = (scan.result() for scan in scans)
            order = np.argsort(ids, kind="stable")
            ids = ids[order]
            if len(twice := np.flatnonzero(ids[1:] == ids[:-1])):
                line = LineFile(new / "recordings.jsonl")[int(order[twice[0]])]
                raise _several(recordings, "recordings", json.loads(line)["id"])
            found = np.searchsorted(ids, wanted, side="right") - 1
            missing = np.flatnonzero(ids[found] != wanted) if len(ids) else np.arange(len(wanted))
            if len(missing):
                line = json.loads(LineFile(new / "supervisions.jsonl")[int(missing[0])])
                raise ValueError(
                    f"{supervisions}: the recording {line['recording_id']} of {line['id']} is not in {recordings}: "
                    "run ./prepare.sh from the manifest stage on"
                )
            save_array(new / "recording.npy", order[found])
    return Segments(place)


def _copy_recordings(manifest: Path, folder: Path) -> NDArray[np.int64]:
    """Copy the lines, and return the hashes of the ids."""
    ids = array("q")

    def lines() -> Iterator[bytes]:
        for number, line in enumerate(CutManifest(manifest).lines(), 1):
            (name,) = _values(_RECORDING, ("id",), line, manifest, number)
            ids.append(id_hash(name))
            yield line

    write_lines(lines(), check_visible(folder) / "recordings.jsonl")
    return np.array(ids)


def _copy_supervisions(manifest: Path, folder: Path) -> NDArray[np.int64]:
    """Copy the lines, save their order and durations, and return the hashes of their recordings' ids."""
    recordings, seconds = array("q"), array("d")
    names: list[bytes] = []
    long_names: dict[int, bytes] = {}
    ids = [np.array(names, "S")]

    def lines() -> Iterator[bytes]:
        for number, line in enumerate(CutManifest(manifest).lines(), 1):
            name, recording, duration = _values(
                _SUPERVISION, ("id", "recording_id", "duration"), line, manifest, number
            )
            recordings.append(id_hash(recording))
            seconds.append(float(duration))
            names.append(name[:_HEAD])
            if len(name) > _HEAD:
                long_names[len(seconds) - 1] = name
            if len(names) == _LINES_AT_A_TIME:
                ids.append(np.array(names))
                names.clear()
            yield line

    write_lines(lines(), check_visible(folder) / "supervisions.jsonl")
    heads = np.concatenate([*ids, np.array(names, "S")])
    order = _order(heads, long_names)
    heads = heads[order]
    for place in np.flatnonzero(heads[1:] == heads[:-1]):
        first, second = (long_names.get(number) for number in order[place : place + 2].tolist())
        if first == second:
            raise _several(manifest, "supervisions", (first or heads[place]).decode())
    save_array(folder / "by_id.npy", order)
    save_array(folder / "seconds.npy", np.array(seconds))
    return np.array(recordings)


def _several(manifest: Path, kind: str, id_: str) -> ValueError:
    return ValueError(
        f"{manifest}: several {kind} have the id {id_}, so that one would get the audio of another: give each its own "
        "where the manifests are made (stage 1 of prepare.sh)"
    )


def _order(heads: NDArray[np.bytes_], long_names: Mapping[int, bytes]) -> NDArray[np.int64]:
    """The order of ids, given their first bytes, and all bytes of longer ids by number."""
    # Bytes in UTF-8 have the order of the characters.
    order = np.argsort(heads, kind="stable")
    for head in {name[:_HEAD] for name in long_names.values()}:
        begin, end = (np.searchsorted(heads, head, side, sorter=order) for side in ("left", "right"))
        order[begin:end] = sorted(order[begin:end].tolist(), key=lambda number: long_names.get(number, head))
    return order


def _values(
    pattern: re.Pattern[bytes], keys: tuple[str, ...], line: bytes, manifest: Path, number: int
) -> Sequence[bytes]:
    if match := pattern.match(line):
        return match.groups()
    try:
        item = json.loads(line)
        return [str(item[key]).encode() for key in keys]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{manifest}, line {number}: no {' and '.join(keys)} ({type(error).__name__}: {error}): run ./prepare.sh "
            "from the manifest stage on"
        ) from error


def check_visible(folder: Path) -> Path:
    """Return a folder that another machine has made.

    Raises:
        FileNotFoundError: this machine does not see it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"The worker on {socket.gethostname()} cannot find {folder}: use a disk that all workers mount under the "
            "same path"
        )
    return folder
