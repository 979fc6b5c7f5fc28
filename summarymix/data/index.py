"""Index of a split: the place and the sizes of each cut, in memory-mapped arrays.

It is made once, beside the manifest::

    data/fbank/mini_cuts_train.index/
        1a2b3c4d5e6f7a8b/          the manifest's content
            cuts.jsonl, cuts.npy   lhotse's cuts, one a line, and where each begins
            seconds.npy …          a column for each number of a cut (COLUMNS)
            tokens-0123456789ab/   columns that depend on the tokens (TOKEN_COLUMNS)

Training selects, shuffles and divides cuts by these arrays alone, about 50 bytes a cut that all processes of a machine
share. lhotse parses a cut from its line when it is loaded.
"""

import errno
import fcntl
import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from lhotse.cut import Cut
from numpy.typing import NDArray
from tqdm import tqdm

from summarymix.data.config import DataConfig
from summarymix.data.cut_filter import ctc_frames_needed
from summarymix.data.cuts import has_no_speech, occurs_twice, transcript
from summarymix.data.lines import LineFile, id_hash, save_array, write_lines
from summarymix.data.manifests import CutSource, naming_line
from summarymix.data.tokens import Tokenizer
from summarymix.files import new_folder, remove_own

COLUMNS = {"seconds": "f8", "frames": "i4", "sample_rate": "i4", "id": "i8"}
"""Duration; stored feature frames, -1 without features; sample rate; hash of the id."""
TOKEN_COLUMNS = {"tokens": "i4", "needed": "i4", "first": "i4", "last": "i4"}
"""Number of tokens, -1 if the transcript is missing; fewest encoder frames for them, -1 with an unknown character;
first and last token, -1 without."""

_FORMAT = "2"  # increase it when the columns or their meaning change
_CUTS_AT_A_TIME = 1000
_FILES = r"cuts\.jsonl|\w+\.npy|tokens-[0-9a-f]+|\..*\.part"


class CutIndex:
    """The cuts of a split by number. Pickled, it is only the paths, so that worker processes share the arrays.

    Args:
        folder: folder of the index.
        tokens: name of its folder for the tokens.
        source: parser of the lines.
    """

    def __init__(self, folder: Path, tokens: str, source: CutSource) -> None:
        self._arguments = folder, tokens, source
        self._source = source
        self._columns = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in COLUMNS}
        self._columns |= {name: np.load(folder / tokens / f"{name}.npy", mmap_mode="r") for name in TOKEN_COLUMNS}
        self._lines = LineFile(folder / "cuts.jsonl")

    def __reduce__(self) -> tuple[Any, ...]:
        return CutIndex, self._arguments

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, number: int) -> Cut:
        return self._source.parse(self._lines[number])

    def column(self, name: str) -> NDArray[Any]:
        """A column of COLUMNS or TOKEN_COLUMNS, one value a cut."""
        return self._columns[name]


class IndexedCuts:
    """The cuts of several splits, numbered together."""

    def __init__(self, splits: Sequence[CutIndex], corpora: Sequence[str]) -> None:
        """
        Args:
            splits: index of each split.
            corpora: name of each split's corpus; the hashes of its cuts' ids depend on it unless it is empty.
        """
        self._splits = splits
        self._salts = [np.int64(id_hash(name) if name else 0) for name in corpora]
        self.starts = [0, *np.cumsum([len(split) for split in splits]).tolist()]
        """Number of the first cut of each split, and of all cuts."""

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, number: int) -> Cut:
        split = self.split_of(number)
        return self._splits[split][number - self.starts[split]]

    def column(self, name: str) -> NDArray[Any]:
        """A column of all splits; memory-mapped if there is only one, otherwise a copy: see :meth:`values`."""
        columns = [self._column(split, name) for split in range(len(self._splits))]
        return columns[0] if len(columns) == 1 else np.concatenate(columns)

    def values(self, name: str, numbers: NDArray[np.int32]) -> NDArray[Any]:
        """The values of some cuts in a column, without a copy of the column."""
        found = np.empty(len(numbers), (COLUMNS | TOKEN_COLUMNS)[name])
        for split, (begin, end) in enumerate(pairwise(self.starts)):
            inside = (begin <= numbers) & (numbers < end)
            found[inside] = self._column(split, name)[numbers[inside] - begin]
        return found

    def split_of(self, number: int) -> int:
        """The position of a cut's split among all splits."""
        return bisect_right(self.starts, number) - 1

    def _column(self, split: int, name: str) -> NDArray[Any]:
        column, salt = self._splits[split].column(name), self._salts[split]
        return column ^ salt if name == "id" and salt else column


def open_cuts(config: DataConfig, splits: Sequence[str], tokenizer: Tokenizer, spare_dir: Path) -> IndexedCuts:
    """Open splits by their indexes, which are made if there are none for this content and these tokens.

    Args:
        config: data options.
        splits: names of the splits.
        tokenizer: turns transcripts into token ids.
        spare_dir: folder for the indexes of splits whose own folder is remote or read-only.

    Raises:
        FileNotFoundError: a split does not exist.
        ValueError: a line is not a cut, or a cut occurs twice.
    """
    indexes = [open_index(config, split, tokenizer, spare_dir) for split in splits]
    cuts = IndexedCuts(indexes, [split.partition("@")[2] for split in splits])
    if len(splits) > 1:
        ids = cuts.column("id")
        if (number := _first_repeated(ids)) is not None:
            both = np.flatnonzero(ids == ids[number])[:2].tolist()
            raise occurs_twice(cuts[number].id, *(config.location_of(splits[cuts.split_of(one)]) for one in both))
    return cuts


def open_index(
    config: DataConfig, split: str, tokenizer: Tokenizer, spare_dir: Path | None, executor: Executor | None = None
) -> CutIndex:
    """Open the index of a split, and make it first if necessary; other processes wait for the one that makes it.

    Args:
        config: data options.
        split: name of the split.
        tokenizer: turns transcripts into token ids.
        spare_dir: folder for the index if the split's own folder is remote or read-only.
        executor: runs the work; None: this process.

    Raises:
        FileNotFoundError: the split does not exist.
        ValueError: a line is not a cut, or a cut occurs twice.
        OSError: the index cannot be written.
    """
    source, location = config.open(split), config.location_of(split)
    corpus, name = config.find(split)
    mark = hashlib.blake2b(f"{_FORMAT} {source.mark()}".encode(), digest_size=8).hexdigest()
    tokens = f"tokens-{hashlib.blake2b(repr(tokenizer.state()).encode(), digest_size=6).hexdigest()}"
    folders = [corpus.index_dir(name)]
    if spare_dir is not None:
        folders.append(spare_dir / "index" / f"{corpus.prefix}_cuts_{name}.index")
    places = [folder / mark for folder in folders if folder is not None]
    for place in places:
        if (place / tokens).is_dir():
            return CutIndex(place, tokens, source)
    for place in places:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with _locked(place.parent / ".lock"):
                _make(place, tokens, source, tokenizer, location, executor)
        except OSError as error:
            if place != places[-1] and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                continue
            raise
        return CutIndex(place, tokens, source)
    raise AssertionError


def _make(
    place: Path, tokens: str, source: CutSource, tokenizer: Tokenizer, location: str, executor: Executor | None
) -> None:
    """Write what an index lacks. Where locks do not work, another process may write it meanwhile."""
    write = partial(_write, place, tokens, source, tokenizer, location, executor)
    try:
        write()
    except OSError as error:
        if not isinstance(error, FileExistsError) and error.errno != errno.ENOTEMPTY:
            raise
        write()  # what the other process has not written


def _write(
    place: Path, tokens: str, source: CutSource, tokenizer: Tokenizer, location: str, executor: Executor | None
) -> None:
    if (place / tokens).is_dir():
        return
    measure = partial(_measure_all, source=source, tokenizer=tokenizer, location=location, executor=executor)
    if place.is_dir():
        columns = measure(place)
        with new_folder(place / tokens) as folder:
            _save(folder, columns, TOKEN_COLUMNS)
        return
    with new_folder(place) as folder:
        write_lines(source.lines(), folder / "cuts.jsonl")
        columns = measure(folder)
        _save(folder, columns, COLUMNS)
        (folder / tokens).mkdir()
        _save(folder / tokens, columns, TOKEN_COLUMNS)
        if (number := _first_repeated(columns["id"])) is not None:
            raise occurs_twice(CutIndex(folder, tokens, source)[number].id, location)
    # Indexes of manifests that have been replaced, and those of processes that were killed, only take space.
    for former in place.parent.iterdir():
        if former.is_dir() and former != place:
            with suppress(OSError):
                remove_own(former, _FILES)


def _measure_all(
    folder: Path, source: CutSource, tokenizer: Tokenizer, location: str, executor: Executor | None
) -> dict[str, NDArray[Any]]:
    """All columns of the cuts in a folder."""
    work = partial(_measure, folder, source, tokenizer, location)
    begins = range(0, len(LineFile(folder / "cuts.jsonl")), _CUTS_AT_A_TIME)
    run: Callable[..., Any] = map if executor is None else executor.map
    # Shown after five seconds, in logs too, because training waits for it.
    bar = tqdm(run(work, begins), f"Index of {location} (once)", len(begins), unit="k cuts", delay=5, mininterval=5)
    columns = COLUMNS | TOKEN_COLUMNS
    parts = [[np.zeros(0, dtype) for dtype in columns.values()], *bar]
    return {name: np.concatenate(arrays) for name, arrays in zip(columns, zip(*parts, strict=True), strict=True)}


def _measure(folder: Path, source: CutSource, tokenizer: Tokenizer, location: str, begin: int) -> list[NDArray[Any]]:
    """All columns of the next thousand cuts."""
    lines = LineFile(folder / "cuts.jsonl")
    rows = []
    for number in range(begin, min(begin + _CUTS_AT_A_TIME, len(lines))):
        with naming_line(location, number + 1):
            rows.append(_measure_cut(source.parse(lines[number]), tokenizer))
    types = (COLUMNS | TOKEN_COLUMNS).values()
    return [np.array(values, dtype) for values, dtype in zip(zip(*rows, strict=True), types, strict=True)]


def _measure_cut(cut: Cut, tokenizer: Tokenizer) -> tuple[float, ...]:
    """A cut's values of COLUMNS and TOKEN_COLUMNS."""
    frames = cut.num_frames if cut.has_features else -1
    tokens = tokenizer.encode(transcript(cut, tokenizer))
    count = len(tokens) if tokens or has_no_speech(cut) else -1
    needed = -1 if tokenizer.unk_id in tokens else ctc_frames_needed(tokens)
    ends = (tokens[0], tokens[-1]) if tokens else (-1, -1)
    sample_rate = cut.sampling_rate if cut.has_recording or cut.has_features else 0
    return cut.duration, frames, sample_rate, id_hash(cut.id), count, needed, *ends


def _first_repeated(ids: NDArray[np.int64]) -> int | None:
    """The number of the first cut whose id has occurred before."""
    order = np.argsort(ids, kind="stable")
    repeated = order[1:][ids[order[1:]] == ids[order[:-1]]]
    return int(repeated.min()) if len(repeated) else None


def _save(folder: Path, columns: dict[str, NDArray[Any]], types: dict[str, str]) -> None:
    for name, dtype in types.items():
        save_array(folder / f"{name}.npy", columns[name].astype(dtype, copy=False))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Wait until no other process holds the lock. Where a file system has no locks, several do the same work."""
    with open(path, "a", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                raise
        yield
