"""The index of a split against its cuts, and when it is made."""

import errno
import gzip
import json
import pickle
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from batch_cases import config_for, ids, rewrite, tiny_cuts, train_data
from lhotse import MonoCut
from programs import Program

from summarymix.data import index as index_module
from summarymix.data.cut_filter import REASONS, CutProblems, ctc_frames_needed
from summarymix.data.index import COLUMNS, TOKEN_COLUMNS, CutIndex, open_cuts, open_index
from summarymix.data.manifests import cuts_path, write_manifest
from summarymix.data.tokens import Tokenizer
from summarymix.encoder.subsampling import output_lengths


def open_tiny(fbank: Path, tokenizer: Tokenizer, executor=None, **options) -> CutIndex:
    return open_index(config_for(fbank, **options), "train", tokenizer, fbank.parent / "exp", executor)


def folders(fbank: Path) -> list[Path]:
    return sorted(path for path in (fbank / "tiny_cuts_train.index").iterdir() if path.is_dir())


def spoil(cuts: list) -> None:
    """A cut for each reason to leave it out, and some that just fit."""
    cuts.sort(key=lambda cut: cut.duration)
    cuts[0].supervisions[0].text = " "
    cuts[1].supervisions[0].text = "TWO ÉLAN"
    cuts[2].supervisions[0].text = "THREE " * 40
    cuts[3] = cuts[3].truncate(duration=0.05, preserve_id=True)
    cuts[4] = cuts[4].drop_features()
    for cut in cuts[5:20]:
        frames = output_lengths(cut.num_frames)
        cut.supervisions[0].text = ("TO" * frames)[: frames - 3 + len(cut.id) * (hash(cut.duration) % 2)]


@pytest.mark.parametrize("on_the_fly", [False, True])
def test_columns_and_reasons_are_those_of_the_cuts(on_the_fly: bool, prepare, tokenizer: Tokenizer) -> None:
    fbank = prepare(speeds=(0.9,))
    rewrite(fbank, spoil)
    cuts = tiny_cuts(fbank)
    index = open_tiny(fbank, tokenizer)
    assert [index[i] for i in reversed(range(len(index)))] == cuts[::-1]
    assert index.column("seconds").tolist() == [cut.duration for cut in cuts]
    counts = [len(tokenizer.encode(cut.supervisions[0].text)) or -1 for cut in cuts]  # none is said to have no speech
    assert index.column("tokens").tolist() == counts
    assert len(set(index.column("id").tolist())) == len(cuts)
    config = config_for(fbank, on_the_fly=on_the_fly, max_seconds=2.5, min_seconds=0.04)
    problems = CutProblems(config, tokenizer, output_lengths)
    reasons = problems.for_training_by_size(*map(index.column, ("seconds", "frames", "tokens", "needed")))
    expected = [problems.for_training(cut) for cut in cuts]
    assert [REASONS[number] for number in reasons] == [item.reason if item else "" for item in expected]
    assert set(reasons) == set(range(len(REASONS))) - {1}
    for number in np.flatnonzero(index.column("needed") >= 0)[:30].tolist():
        tokens = tokenizer.encode(cuts[number].supervisions[0].text)
        assert index.column("needed")[number] == ctc_frames_needed(tokens)
        assert [index.column(name)[number] for name in ("first", "last")] == (
            [tokens[0], tokens[-1]] if tokens else [-1, -1]
        )


def test_values_of_several_splits_are_those_of_the_joined_column(prepare, tokenizer: Tokenizer) -> None:
    fbank = prepare(count=9)
    cuts = tiny_cuts(fbank)
    for split, part in (("one", cuts[:5]), ("two", cuts[5:])):
        write_manifest(part, cuts_path(fbank, "tiny", split))
    corpus = open_cuts(config_for(fbank), ["one", "two"], tokenizer, fbank.parent / "exp")
    numbers = np.array([7, 0, 4, 5, 8, 0], np.int32)
    for name in COLUMNS | TOKEN_COLUMNS:
        values = corpus.values(name, numbers)
        assert values.dtype == corpus.column(name).dtype
        assert values.tolist() == corpus.column(name)[numbers].tolist()
    assert corpus.values("seconds", numbers).tolist() == [cuts[i].duration for i in numbers]


def test_it_is_made_once_and_again_when_the_content_changes(prepare, tokenizer: Tokenizer, monkeypatch) -> None:
    fbank = prepare(count=8)
    made: list[int] = []
    original = index_module._measure
    monkeypatch.setattr(index_module, "_measure", lambda *args: made.append(1) or original(*args))
    open_tiny(fbank, tokenizer)
    [first] = folders(fbank)
    cuts_path(fbank, "tiny", "train").touch()
    train_data(fbank, tokenizer, max_seconds=2.0)
    assert len(made) == 1
    # Other tokens: only their columns are made.
    open_tiny(fbank, Tokenizer.train(["ONE TWO THREE STOP LIGHT"] * 3, 12, "char"))
    assert len(made) == 2
    assert folders(fbank) == [first]
    assert len(list(first.glob("tokens-*"))) == 2
    assert len(list(first.glob("*.jsonl"))) == 1
    rewrite(fbank, lambda cuts: setattr(cuts[0].supervisions[0], "text", "TWO"))
    assert open_tiny(fbank, tokenizer)[0].supervisions[0].text == "TWO"
    assert len(made) == 3
    assert len(folders(fbank)) == 1
    assert folders(fbank) != [first]


def test_processes_make_one_index_together(prepare, tokenizer: Tokenizer) -> None:
    fbank = prepare(count=40)
    tokenizer.write(fbank / "lang")
    program = fbank / "open.py"
    program.write_text(
        "import sys; from pathlib import Path; from batch_cases import *; from summarymix.data.index import open_index;"
        "fbank = Path(sys.argv[1]); tokenizer = Tokenizer.from_lang_dir(fbank / 'lang');"
        "print(len(open_index(config_for(fbank), 'train', tokenizer, None)))"
    )
    jobs = [Program([program, fbank], {"PYTHONPATH": ":".join(sys.path)}) for _ in range(3)]
    assert [job.wait().stdout for job in jobs] == ["40\n"] * 3
    assert len(folders(fbank)) == 1


def test_another_process_may_be_faster_where_locks_do_not_work(prepare, tokenizer: Tokenizer, monkeypatch) -> None:
    fbank = prepare(count=8)
    new_folder = index_module.new_folder

    def beaten(place: Path):
        monkeypatch.setattr(index_module, "new_folder", new_folder)
        open_tiny(fbank, tokenizer)
        return new_folder(place)

    monkeypatch.setattr(index_module, "new_folder", beaten)
    assert len(open_tiny(fbank, tokenizer)) == 8
    assert len(folders(fbank)) == 1


def test_what_cannot_be_written_is_measured_once(prepare, tokenizer: Tokenizer, monkeypatch) -> None:
    """A read-only index that lacks these tokens."""
    fbank = prepare(count=8)
    open_tiny(fbank, tokenizer)
    measured, measure = [], index_module._measure_all

    def read_only(place: Path):
        raise PermissionError(errno.EACCES, "Permission denied", str(place))

    def counted(*arguments, **options):
        measured.append(1)
        return measure(*arguments, **options)

    monkeypatch.setattr(index_module, "new_folder", read_only)
    monkeypatch.setattr(index_module, "_measure_all", counted)
    with pytest.raises(PermissionError):
        open_index(config_for(fbank), "train", Tokenizer.train(["OTHER TOKENS"], 30, "char"), None, None)
    assert len(measured) == 1


def test_jobs_and_pickling_change_nothing(prepare, tokenizer: Tokenizer, monkeypatch) -> None:
    monkeypatch.setattr(index_module, "_CUTS_AT_A_TIME", 7)
    fbank, columns = prepare(), index_module.COLUMNS | index_module.TOKEN_COLUMNS
    one = open_tiny(fbank, tokenizer)
    (fbank / "tiny_cuts_train.index").rename(fbank / "other")
    with ProcessPoolExecutor(2) as executor:
        other = open_tiny(fbank, tokenizer, executor)
    assert len(pickle.dumps(other)) < 10_000
    for same in (other, pickle.loads(pickle.dumps(other))):
        assert all((same.column(name) == one.column(name)).all() for name in columns)
        assert same[3] == one[3]


def test_read_only_manifests_are_indexed_elsewhere(prepare, tokenizer: Tokenizer, monkeypatch) -> None:
    fbank = prepare(count=8)
    mkdir = Path.mkdir

    def refuse(self: Path, *args, **options) -> None:
        if self.parent == fbank:
            raise PermissionError(13, "Permission denied")
        mkdir(self, *args, **options)

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert len(open_tiny(fbank, tokenizer)) == 8
    assert sum(map(len, ids(train_data(fbank, tokenizer).epoch(0)))) == 8
    assert not (fbank / "tiny_cuts_train.index").exists()
    assert [path.name for path in (fbank.parent / "exp" / "index").iterdir()] == ["tiny_cuts_train.index"]


def test_manifests_that_cannot_be_indexed_are_explained(prepare, tokenizer: Tokenizer) -> None:
    fbank = prepare(count=4)
    manifest = cuts_path(fbank, "tiny", "train")
    lines = gzip.decompress(manifest.read_bytes()).splitlines(keepends=True)
    manifest.write_bytes(gzip.compress(b"".join([*lines, lines[1]])))
    with pytest.raises(
        ValueError,
        match=rf"The cut {json.loads(lines[1])['id']} of .*tiny_cuts_train.jsonl.gz occurs twice: run local/validate",
    ):
        open_tiny(fbank, tokenizer)
    manifest.write_bytes(gzip.compress(lines[0] + lines[1][:50] + b"\n" + lines[2]))
    with pytest.raises(ValueError, match=r"cuts_train.jsonl.gz, line 2 cannot be used.*JSONDecodeError.*prepare.sh"):
        open_tiny(fbank, tokenizer)
    assert folders(fbank) == []
    manifest.write_bytes(gzip.compress(b""))
    assert len(open_tiny(fbank, tokenizer)) == 0
    with pytest.raises(ValueError, match=r"No cut of .* is left to train on; skipped 0"):
        train_data(fbank, tokenizer)


def test_a_cut_takes_few_bytes(prepare, tokenizer: Tokenizer) -> None:
    index = open_tiny(prepare(count=4), tokenizer)
    columns = [index._lines._offset, *index._columns.values()]
    assert all(isinstance(column, np.memmap) for column in columns)
    assert sum(column.itemsize for column in columns) <= 50
    assert isinstance(index[0], MonoCut)
