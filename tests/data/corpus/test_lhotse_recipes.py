"""Corpora in the layouts that lhotse's recipes expect, through those recipes."""

import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import lhotse_trees as trees
import pytest
from lhotse import CutSet, RecordingSet, SupervisionSet
from server import serve

from summarymix.data.corpus import lhotse_recipes
from summarymix.data.corpus.base import Corpus
from summarymix.data.corpus.lhotse_functions import find_recipe, list_recipes, options_of, read_values, recipes
from summarymix.data.corpus.lhotse_recipes import LhotseRecipe, download_with_lhotse, prepare_with_lhotse
from summarymix.data.corpus.options import CorpusSource, prepare_corpus


def prepare(
    name: str, corpus_dir: Path, out_dir: Path, *options: str, **text_options: object
) -> tuple[Corpus, list[str]]:
    recipe = LhotseRecipe(name, corpus_dir, options)
    source = CorpusSource(None, None, None, corpus_dir, lhotse_recipe=recipe, **text_options)
    return prepare_corpus(source, "c", out_dir, fill=True)


def texts(corpus: Corpus, split: str) -> list[str]:
    return [utterance.supervision.text for utterance in corpus.splits()[split]]


CASES: dict[str, tuple[Callable[[Path], Path], list[str], dict[str, int], str]] = {
    # tree, options, utterances by split, first training transcript
    "yesno": (trees.yesno, [], {"train": 25, "dev": 5, "test": 30}, ""),
    "tedlium": (trees.tedlium, [], {"train": 6, "dev": 6, "test": 6}, "aren't there yet. <unk>"),
    "aishell": (trees.aishell, [], {"train": 3, "dev": 3, "test": 2}, "而对楼市成交"),
    "aishell3": (trees.aishell3, [], {"train": 7, "dev": 1, "test": 2}, "广州"),
    "fleurs": (
        trees.fleurs,
        ["languages=en_us,th_th"],
        {f"{split}-{language}": 3 for split in ("train", "dev", "test") for language in ("en_us", "th_th")},
        "aren't there yet.",
    ),
    "mls": (trees.mls, [], {"train-polish": 3, "dev-polish": 3, "test-polish": 3}, "zażółć gęślą jaźń"),
    "ljspeech": (trees.ljspeech, [], {"train": 10, "dev": 1, "test": 1}, ""),
    "hifitts": (trees.hifitts, [], {f"{split}-92_clean_{split}": 2 for split in ("train", "dev", "test")}, "one two"),
    "emilia": (trees.emilia, ["lang=en"], {"train": 10, "dev": 1, "test": 1}, ""),
    "wenet_speech": (
        trees.wenet_speech,
        ["dataset_parts=L,DEV,TEST_NET"],
        {"train-L": 9, "DEV": 3, "TEST_NET": 3},
        "你好",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_splits_and_transcripts(name: str, tmp_path: Path) -> None:
    tree, options, counts, first = CASES[name]
    corpus, _ = prepare(name, tree(tmp_path / "corpus"), tmp_path / "m", *options)
    assert {split: len(utterances) for split, utterances in corpus.splits().items()} == counts
    train = next(iter(counts))
    assert sorted(texts(corpus, train))[0].startswith(first)
    audio = {source.source for u in corpus.utterances for source in u.recording.sources}
    assert all(Path(path).is_file() for path in audio)


def test_text_options_and_audio_without_an_utterance(tmp_path: Path) -> None:
    corpus_dir = trees.ljspeech(tmp_path / "corpus")
    trees.noise(corpus_dir / "wavs" / "spare.wav")
    corpus, lines = prepare("ljspeech", corpus_dir, tmp_path / "m", text_case="lower", punctuation="remove")
    assert set(texts(corpus, "train")) <= {
        "hello we aren't",
        "we aren't there",
        "aren't there yet",
        "there yet hello",
        "yet hello we",
    }
    told = "\n".join(lines)
    assert f"Warning: 1 audio files belong to no utterance, for example {corpus_dir}/wavs/spare.wav" in told
    missing = f"No such file: {corpus_dir}/wavs/LJ001-0012.wav"
    assert f"Warning: 1 warnings of lhotse's recipe, such as {missing}; see {tmp_path}/m/lhotse/c/lhotse.log" in told


def test_nothing_is_prepared_twice_until_the_corpus_or_an_option_changes(tmp_path: Path, monkeypatch) -> None:
    corpus_dir = trees.ljspeech(tmp_path / "corpus")
    calls = []
    find = lhotse_recipes.find_recipe
    monkeypatch.setattr(lhotse_recipes, "_call", lambda *args: calls.append(1) or call(*args))
    first = prepare("ljspeech", corpus_dir, tmp_path / "m")[1]
    assert prepare("ljspeech", corpus_dir, tmp_path / "m")[1] == first
    assert len(calls) == 1
    table = corpus_dir / "metadata.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:12]))
    assert "warnings of lhotse" not in "\n".join(prepare("ljspeech", corpus_dir, tmp_path / "m")[1])
    assert len(calls) == 2
    assert find("ljspeech") is recipes()["ljspeech"]


call = lhotse_recipes._call


def test_an_interrupted_preparation_is_done_again_and_other_folders_stay(tmp_path: Path, monkeypatch) -> None:
    recipe = LhotseRecipe("ljspeech", trees.ljspeech(tmp_path / "corpus"))

    def stop(items: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(lhotse_recipes, "write_manifest", stop)
        prepare_with_lhotse(recipe, tmp_path / "m")
    prepare_with_lhotse(recipe, tmp_path / "m")
    assert len(list(SupervisionSet.from_file(tmp_path / "m" / "ljspeech_supervisions.jsonl.gz"))) == 12
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileExistsError, match="mine is in the way"):
        prepare_with_lhotse(recipe, tmp_path / "mine")


def test_results_of_all_kinds() -> None:
    recordings, supervisions, cuts = RecordingSet([]), SupervisionSet([]), CutSet([])

    def found(result: object) -> list[tuple[str, str]]:
        return [("/".join(path), " ".join(kinds)) for path, kinds in lhotse_recipes._found(result)]

    pair = {"recordings": recordings, "supervisions": supervisions}
    both = "recordings supervisions"
    assert found(pair) == found((recordings, supervisions)) == [("", both)]
    assert found({"train": pair, "dev": {"recordings": recordings}}) == [("train", both), ("dev", "recordings")]
    assert found({"en": {"test": {**pair, "features": None}}}) == [("en/test", both)]
    assert found({"a": {"recordings": supervisions, "supervisions": recordings}}) == [("a", both)]
    assert found({"a": {**pair, "cuts": cuts}}) == [("a", f"{both} cuts")]
    assert found(cuts) == [("", "cuts")]
    assert found(None) == found({}) == []


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ([], None),
        (["train-clean-100"], "train-clean-100"),
        (["en", "train"], "train-en"),
        (["validation", "zh-CN"], "validation-zh-CN"),
        (["92_clean_train"], "train-92_clean_train"),
        (["test set", "v 1", "sdm"], "test_set-v_1-sdm"),
        (["XL"], "XL"),
    ],
)
def test_names_of_splits(path: list[str], name: str | None) -> None:
    assert lhotse_recipes._split_name(tuple(path)) == name


def test_options_have_the_types_of_the_arguments(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)

    def values(recipe: str, *options: str) -> dict[str, object]:
        known = options_of(find_recipe(recipe))
        return read_values(options, known, recipe)

    assert values("commonvoice", "languages=en", "splits=train") == {"languages": "en", "splits": ["train"]}
    assert values("fleurs", "languages=en_us,th_th") == {"languages": ["en_us", "th_th"]}
    assert values("fleurs", "languages=en_us,") == {"languages": ["en_us"]}
    assert values("mls", "opus=False") == {"opus": False}
    assert values("timit", "num_phones=39") == {"num_phones": 39}
    assert values("radio", "min_segment_duration=1.5") == {"min_segment_duration": 1.5}
    assert values("ami", "annotations_dir=a") == {"annotations_dir": tmp_path / "a"}
    assert values("gale_arabic", "transcript_dirs=a,/b") == {"transcript_dirs": [tmp_path / "a", Path("/b")]}
    recipe = LhotseRecipe("gale_arabic", Path("c"), ("transcript_dirs=a",)).absolute()
    assert (
        recipe == LhotseRecipe("gale_arabic", tmp_path / "c", (f"transcript_dirs={tmp_path}/a,",)) == recipe.absolute()
    )
    for option, told in (
        ("opus=maybe", "opus=maybe: use true or false"),
        ("opus", "opus: write NAME=VALUE"),
        ("lang=pl", "lang=pl: lhotse's recipe mls has opus, not lang"),
    ):
        with pytest.raises(ValueError, match=told):
            values("mls", option)
    with pytest.raises(ValueError, match="num_phones=few: use a whole number"):
        values("timit", "num_phones=few")


def test_errors_name_recipe_folder_and_remedy(tmp_path: Path) -> None:
    def told(name: str, corpus_dir: Path, *options: str, error: type[Exception] = ValueError) -> str:
        with pytest.raises(error) as caught:
            prepare(name, corpus_dir, tmp_path / "m", *options)
        return str(caught.value)

    assert "no recipe 'CommonVoice'" in told("CommonVoice", tmp_path)
    assert "did you mean commonvoice" in told("CommonVoice", tmp_path)
    assert f"{tmp_path}/none: no such folder; give the corpus" in told(
        "yesno", tmp_path / "none", error=FileNotFoundError
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    message = told("aishell", empty, error=OSError)
    assert message.startswith(f"prepare_aishell of lhotse failed on {empty}: FileNotFoundError: ")
    assert "aishell_transcript_v0.8.txt" in message
    assert "help('lhotse.recipes.aishell.prepare_aishell')" in message
    message = told("yesno", empty)
    assert message.startswith(
        f"prepare_yesno of lhotse failed on {empty}: AssertionError: assert len(wave_files) == 60;"
    )
    assert "recipe fleurs gives no recordings with supervisions" in told("fleurs", empty)
    assert f"for {empty}: it found nothing" in told("fleurs", empty)
    assert "lhotse's recipe heroico needs --lhotse-option transcript_dir=VALUE" in told("heroico", empty)
    message = told("musan", trees.musan(tmp_path / "musan"))
    assert "music has no utterances with transcripts; speech has recordings alone; noise" in message.replace("\n", " ")
    assert "needs another package, to be installed with pip: " in told("gigaspeech", empty, error=ImportError)


def test_a_language_that_is_not_there_is_named(tmp_path: Path) -> None:
    corpus_dir = trees.fleurs(tmp_path / "corpus", ("en_us",))
    _, lines = prepare("fleurs", corpus_dir, tmp_path / "m", "languages=en_us,th_th")
    assert "Warning: th_th of languages is not there, says lhotse's recipe" in lines


def test_list() -> None:
    *rows, total = list_recipes()
    names = [row.split()[0] for row in rows]
    assert names == sorted(names)
    assert {"aishell", "ami", "commonvoice", "fleurs", "gigaspeech", "librittsr", "mls", "tedlium", "voxpopuli"} <= {
        *names
    }
    # They make noise and mixtures, return nothing, or are parts of another.
    assert not {"musan", "rir_noise", "librimix", "must_c", "slu", "audio_single", "music", "part1"} & {*names}
    assert total.startswith(f"{len(names)} recipes of lhotse ")
    assert any(row.split() == ["heroico", "download", "needs", "transcript_dir"] for row in rows)
    assert any(row.split() == ["commonvoice", "download", "takes", "languages,", "splits"] for row in rows)


def test_download(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "waves_yesno.tar.gz", "w:gz") as archive:
        archive.add(trees.yesno(tmp_path / "made" / "waves_yesno"), "waves_yesno")
    with serve(tmp_path) as server:
        recipe = LhotseRecipe("yesno", tmp_path / "dl", (f"url={server.url}/waves_yesno.tar.gz",))
        done = download_with_lhotse(recipe)
        assert done == LhotseRecipe("yesno", tmp_path / "dl" / "waves_yesno")
        assert len(os.listdir(done.corpus_dir)) == 61  # and lhotse's mark
        gone = LhotseRecipe("yesno", tmp_path / "dl2", (f"url={server.url}/gone.tar.gz",))
        with pytest.raises(
            OSError, match=rf"download_yesno of lhotse failed on {tmp_path}/dl2: HTTPError.*404.*by hand"
        ):
            download_with_lhotse(gone)
    with pytest.raises(ValueError, match="lhotse cannot download mls: get it from its publisher"):
        download_with_lhotse(LhotseRecipe("mls", tmp_path))
    with pytest.raises(ValueError, match="the download of gigaspeech needs --lhotse-option password=VALUE"):
        download_with_lhotse(LhotseRecipe("gigaspeech", tmp_path))
