"""From a folder of recordings to a recipe that runs."""

import math
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import lhotse_trees as trees
import numpy as np
import pytest
import soundfile
import yaml
from lhotse import AudioSource, Recording, RecordingSet, SupervisionSegment, SupervisionSet

from summarymix.cli import parse_config
from summarymix.data.corpus import lhotse_functions
from summarymix.data.corpus.base import Utterance
from summarymix.data.corpus.lhotse_recipes import LhotseRecipe
from summarymix.data.corpus.measured import read_measured
from summarymix.data.corpus.options import CorpusSource, prepare_corpus
from summarymix.data.manifests import cuts_path, read_cuts
from summarymix.data.skipped import SkippedItems
from summarymix.scoring.results import read_results
from summarymix.training.config import TrainConfig

ROOT = Path(__file__).parents[2]
tool = SimpleNamespace(**runpy.run_path(str(ROOT / "tools" / "new_recipe.py")))


def write_corpus(folder: Path) -> CorpusSource:
    """48 utterances of 12 speakers in mixed formats, most of it telephone speech, and some rows that are no good."""
    rng = np.random.default_rng(0)
    words = ["ONE", "TWO", "THREE", "STOP"]
    lines = ["audio\ttext\tspeaker\tstart\tduration\tchannel"]

    def noise(name: str, rate: int, seconds: float, channels: int = 1) -> None:
        opus = name.endswith("opus")
        samples = rng.uniform(-0.3, 0.3, (int(rate * seconds), channels))
        soundfile.write(folder / name, samples, rate, format="OGG" if opus else None, subtype="OPUS" if opus else None)

    def row(name: str, speaker: int, *place: object) -> None:
        text = " ".join(rng.choice(words, 3))
        lines.append("\t".join(map(str, (name, text, f"s{speaker}", *(place or ("", "", ""))))))

    folder.mkdir()
    for call in range(2):  # two speakers in each, one on each channel
        noise(f"call{call}.wav", 8000, 16, channels=2)
        for i in range(16):
            row(f"call{call}.wav", 2 * call + i % 2, 1.9 * (i // 2), 1.5, i % 2)
    for i, suffix in enumerate(["flac", "ogg", "mp3", "opus"] * 4):
        noise(f"{i}.{suffix}", 16000 if suffix != "ogg" else 8000, 1.5)
        row(f"{i}.{suffix}", 4 + i % 8)
    lines += ["gone.wav\tTWO\ts0\t\t\t", lines[-1], "1.ogg\t\ts0\t\t\t", "call0.wav\tONE\ts0\t\t\t"]
    noise("spare.wav", 8000, 1)
    table = folder.parent / "table.tsv"
    table.write_text("\n".join(lines) + "\n")
    return CorpusSource(table, None, None, folder)


SKIPPED = {"missing audio": 1, "duplicate audio": 1, "empty transcript": 1, "several channels": 1}


SIZES = {"num-layers": 1, "dim": 16, "feedforward-dim": 16, "summary-dim": 16}
SMALL = " ".join(f"--model.conformer.{name} {size}" for name, size in SIZES.items())
TINY = (
    *("--train-options", f"{SMALL} --average-period 1 --data.num-workers 0 --data.max-duration 100"),
    *("--nproc", "1", "--chunk-ms", "640", "--num-epochs", "1", "--prepare-options", "--nj 1 --speed-perturb 1.1"),
)


@pytest.fixture
def run_script(fast_python: dict[str, str]) -> Callable[..., str]:
    """Run a script of a recipe with options, and return what it prints."""
    environment = fast_python | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

    def call(recipe: Path, script: str, *options: str) -> str:
        command = [str(recipe / script), *options]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout
        return done.stdout

    return call


def test_from_a_folder_of_recordings_to_error_rates(run_script: Callable[..., str], tmp_path: Path) -> None:
    source = write_corpus(tmp_path / "some audio")
    told = "\n".join(tool.new_recipe("calls", source, tmp_path / "egs"))
    recipe = tmp_path / "egs" / "calls" / "ASR"
    assert (
        f"skipped 4: 1 missing audio, 1 duplicate audio, 1 empty transcript, 1 several channels; see {recipe}" in told
    )
    assert "dev and test were taken from train by speakers" in told
    assert "40 mel bins at 8000 Hz" in told
    assert "1 audio files belong to no utterance" in told

    out = run_script(recipe, "run.sh", *TINY)
    assert SkippedItems.read(recipe / "data/manifests/skipped-calls-table.tsv").counts == SKIPPED
    splits = {
        split: list(read_cuts(cuts_path(recipe / "data/fbank", "calls", split))) for split in ("train", "dev", "test")
    }
    assert len(splits["train"]) // 2 + len(splits["dev"]) + len(splits["test"]) == 48  # train also at another speed
    assert all(cut.num_features == 40 and cut.sampling_rate == 8000 for cuts in splits.values() for cut in cuts)
    speakers = [{cut.supervisions[0].speaker for cut in cuts} for cuts in splits.values()]
    assert sum(map(len, speakers)) == 12
    results = read_results(recipe / "exp" / "results.jsonl")
    assert {(result.mode, result.split, result.utterances) for result in results} >= {
        (mode, "test", len(splits["test"])) for mode in ("offline", "simulated", "streaming")
    }
    assert all(mode in out.split("Stage 4: results")[1] for mode in ("offline", "simulated", "streaming"))

    # Nothing is done twice, until the corpus changes.
    assert "Stage 1: Manifests: already done" in run_script(recipe, "prepare.sh", "--stop-stage", "1")
    source.table.write_text(source.table.read_text().replace("gone.wav", "spare.wav"))
    assert "missing audio" not in run_script(recipe, "prepare.sh", "--stop-stage", "1")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> CorpusSource:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "audio")


def test_the_recipe_is_whole_and_names_its_corpus(source: CorpusSource, tmp_path: Path) -> None:
    tool.new_recipe("my-corpus_2", source, tmp_path)
    recipe = tmp_path / "my-corpus_2" / "ASR"
    files = {str(path.relative_to(recipe)) for path in recipe.rglob("*") if path.is_file() and "data" not in path.parts}
    assert files == {str(name) for name in tool.TEMPLATE_FILES}
    for name in files:
        text = (recipe / name).read_text()
        assert not re.search(r"@\w+@", text)
        if not name.startswith("conf/"):
            assert "my-corpus_2" in text
    assert all(os.access(recipe / name, os.X_OK) for name in files if name.endswith((".sh", ".py")))
    assert f"--table {source.table} --audio-dir {source.audio_dir}" in (recipe / "prepare.sh").read_text()

    config = parse_config(TrainConfig, ["--config", str(recipe / "conf" / "conformer.yaml")])
    assert (config.data.prefix, config.data.sample_rate, config.data.num_mel_bins) == ("my-corpus_2", 8000, 40)
    assert (config.data.train, config.data.dev) == (["train"], ["dev"])
    overlay = ["--config", str(recipe / "conf" / "conformer.yaml"), "--config", str(recipe / "conf" / "zipformer.yaml")]
    config = parse_config(TrainConfig, overlay)
    assert (config.model.encoder, config.optim.name) == ("zipformer", "scaled_adam")
    assert tuple(config.model.zipformer.dims) == tool.ZIPFORMERS[0].dims
    overlay[-1] = str(recipe / "conf" / "with_librispeech.yaml")
    config = parse_config(TrainConfig, overlay)
    assert config.data.train_splits() == ["train", "train-clean-100@librispeech"]
    assert Path(config.data.corpora[0].dir) == ROOT / "egs/librispeech/ASR"


def test_the_repository_may_lie_in_any_folder(source: CorpusSource, tmp_path: Path, monkeypatch) -> None:
    root = tmp_path / "it's my repo: #1"
    monkeypatch.setitem(tool.new_recipe.__globals__, "ROOT", root)
    tool.new_recipe("c", source, tmp_path / "egs")
    recipe = tmp_path / "egs" / "c" / "ASR"
    config = yaml.safe_load((recipe / "conf" / "with_librispeech.yaml").read_text())
    assert config["data"]["corpora"][0]["dir"] == f"{root}/egs/librispeech/ASR"
    (root / "local").mkdir(parents=True)
    (root / "local" / "prepare_stages.sh").write_text("echo found; exit\n")
    assert subprocess.run([recipe / "prepare.sh"], stdout=subprocess.PIPE, text=True).stdout == "found\n"


def test_names_that_cannot_be(source: CorpusSource, tmp_path: Path) -> None:
    for name in ("", "a b", "../a", "..", "-h", "--help", "a/b", ".a"):
        with pytest.raises(ValueError, match=r"the recipe .* cannot be a name: use letters, digits"):
            tool.new_recipe(name, source, tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "there").mkdir()
    with pytest.raises(FileExistsError, match=r"there is there already: choose another name, or remove"):
        tool.new_recipe("there", source, tmp_path)
    with pytest.raises(FileExistsError, match="egs/mini is there already"):
        tool.new_recipe("mini", source)


def test_only_the_reasons_are_left_of_a_recipe_that_fails(source: CorpusSource, tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("audio\ttext\ngone.wav\tONE\n")
    with pytest.raises(ValueError, match="none of 1 utterances is usable; skipped 1: 1 missing audio") as caught:
        tool.new_recipe("c", CorpusSource(tmp_path / "t.tsv", None, None, tmp_path), tmp_path / "egs")
    listing = tmp_path / "egs" / "skipped-c-table.tsv"
    assert f"see {listing}" in str(caught.value)
    assert list((tmp_path / "egs").iterdir()) == [listing]
    assert SkippedItems.read(listing).counts == {"missing audio": 1}
    tool.new_recipe("c", source, tmp_path / "egs")
    assert [path.name for path in (tmp_path / "egs").iterdir()] == ["c"]


def test_when_too_few_utterances_are_left_the_list_of_reasons_stays(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(16000) + 0.1, 16000)
    table = tmp_path / "t.tsv"
    table.write_text("audio\ttext\na.wav\tONE\nb.wav\tTWO\n")
    listing = tmp_path / "egs" / "skipped-c-table.tsv"
    told = rf"1 utterances are too few to take .*: add more\. skipped 1: 1 missing audio; see {listing}$"
    with pytest.raises(ValueError, match=told):
        tool.new_recipe("c", CorpusSource(table, None, None, tmp_path), tmp_path / "egs")
    assert SkippedItems.read(listing).counts == {"missing audio": 1}


def test_manifests_name_converted_audio_where_it_is(tmp_path: Path) -> None:
    rows = ["audio\ttext\tspeaker"]
    for i in range(6):
        subtype = "GSM610" if i % 2 else "PCM_16"
        samples = np.random.default_rng(i).normal(0, 0.1, 16000).clip(-1, 1)
        soundfile.write(tmp_path / f"{i}.wav", samples, 8000, subtype=subtype)
        rows.append(f"{i}.wav\tONE TWO\ts{i}")
    (tmp_path / "t.tsv").write_text("\n".join(rows) + "\n")
    tool.new_recipe("c", CorpusSource(tmp_path / "t.tsv", None, None, tmp_path), tmp_path / "egs")
    manifests = tmp_path / "egs" / "c" / "ASR" / "data" / "manifests"
    recordings = [one for path in manifests.glob("*_recordings_*") for one in RecordingSet.from_file(path)]
    sources = [Path(recording.sources[0].source) for recording in recordings]
    assert len(sources) == 6
    assert sum(manifests / "audio" in path.parents for path in sources) == 3
    assert all(path.is_file() for path in sources)


def test_command_line(source: CorpusSource, tmp_path: Path, monkeypatch, capsys) -> None:
    def call(*options: object) -> str:
        monkeypatch.setattr(sys, "argv", ["new_recipe.py", *map(str, options), "--egs-dir", str(tmp_path)])
        tool.main()
        return capsys.readouterr().out

    options = ("--table", source.table, "--audio-dir", source.audio_dir)
    out = call("c", *options, "--channel", 1, "--text-case", "lower", "--punctuation", "remove", "--keep-empty")
    recipe = f"{os.path.relpath(tmp_path)}/c/ASR"
    assert out.endswith(f"{recipe} is ready. Next: {recipe}/run.sh\n")
    assert f"see {recipe}/data/manifests/characters-c.tsv" in out
    script = (tmp_path / "c" / "ASR" / "prepare.sh").read_text()
    assert '--channel 1 --keep-empty --text-case "$text_case" --punctuation "$punctuation")' in script
    assert "\ntext_case=lower\npunctuation=remove\n" in script
    assert "several channels" not in out
    with pytest.raises(SystemExit, match=r"new_recipe.py: .*c is there already"):
        call("c", *options)
    with pytest.raises(SystemExit):
        call("d", *options, "--kaldi-dir", tmp_path)
    assert "not allowed with argument" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        call("d")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        call("d", *options, "--nj", 0)
    assert "argument --nj: '0' is not a whole number above 0" in capsys.readouterr().err


def lhotse_source(name: str, corpus_dir: Path, **text_options: str) -> CorpusSource:
    return CorpusSource(None, None, None, corpus_dir, lhotse_recipe=LhotseRecipe(name, corpus_dir), **text_options)


def test_two_languages_of_common_voice_to_error_rates(run_script: Callable[..., str], tmp_path: Path) -> None:
    corpus_dir = trees.commonvoice(tmp_path / "cv-corpus-13.0")
    source = lhotse_source("commonvoice", corpus_dir, text_case="lower", punctuation="remove")
    told = "\n".join(tool.new_recipe("voices", source, tmp_path / "egs", num_jobs=1))
    for split, count in {"train-cs": 8, "train-en": 8, "dev-cs": 2, "dev-en": 3, "test-cs": 3, "test-en": 3}.items():
        assert f"\n{split}: {count} utterances" in told
    recipe = tmp_path / "egs" / "voices" / "ASR"
    assert f"common_voice_en_spare.mp3; see {recipe}/data/manifests/unnamed-audio-voices.txt" in told
    marks = recipe / "data/manifests/lhotse/voices/.lhotse-recipe.json"
    before = marks.stat().st_mtime_ns
    out = run_script(recipe, "run.sh", *TINY)
    assert marks.stat().st_mtime_ns == before  # lhotse is not called again for the same corpus
    cuts = read_cuts(cuts_path(recipe / "data/fbank", "voices", "test-cs"))
    assert "hello we aren't" in {cut.supervisions[0].text for cut in cuts}
    results = read_results(recipe / "exp" / "results.jsonl")
    assert {(result.split, result.utterances) for result in results} >= {("test-cs", 3), ("test-en", 3)}
    assert "test-cs" in out.split("Stage 4: results")[1]


def test_a_recipe_of_lhotse_without_a_dev_split_trains(run_script: Callable[..., str], tmp_path: Path) -> None:
    corpus_dir = trees.yesno(tmp_path / "waves_yesno")
    source = lhotse_source("yesno", corpus_dir)
    told = "\n".join(tool.new_recipe("answers", source, tmp_path / "egs"))
    assert "dev was taken from train by recordings" in told
    recipe = tmp_path / "egs" / "answers" / "ASR"
    run_script(recipe, "run.sh", *TINY, "--stop-stage", "2")
    assert (recipe / "exp" / "selected.json").is_file()
    assert "Stage 1: Manifests: already done" in run_script(recipe, "prepare.sh", "--stop-stage", "1")
    os.utime(next(corpus_dir.iterdir()), (0, 0))
    assert "Stage 1: Manifests: done" in run_script(recipe, "prepare.sh", "--stop-stage", "1")


def prepare_made(corpus_dir: Path, output_dir: Path) -> tuple[RecordingSet, SupervisionSet]:
    """A recipe that writes audio, as some of lhotse do."""
    recordings = [Recording.from_file(trees.noise(output_dir / f"{i:02}.wav")) for i in range(12)]
    supervisions = [SupervisionSegment(one.id, one.id, 0.0, one.duration, text="one two") for one in recordings]
    return RecordingSet.from_recordings(recordings), SupervisionSet.from_segments(supervisions)


def test_audio_that_a_recipe_of_lhotse_makes_has_paths_that_hold(tmp_path: Path, monkeypatch) -> None:
    """Also from a relative folder, and if JSON escapes some of their characters."""
    monkeypatch.setattr(lhotse_functions, "recipes", lambda: {"made": prepare_made})
    lab = tmp_path / "Prüfung 日本"
    (lab / "corpus").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    options = ["--lhotse-recipe", "made", "--corpus-dir", f"{lab.name}/corpus", "--egs-dir", f"{lab.name}/egs"]
    monkeypatch.setattr(sys, "argv", ["new_recipe.py", "c", *options])
    tool.main()
    recipe = lab / "egs" / "c" / "ASR"
    manifests = recipe / "data" / "manifests"
    sources = [
        source.source
        for path in [*manifests.glob("*_recordings_*"), *manifests.glob("lhotse/c/*_recordings*")]
        for one in RecordingSet.from_file(path)
        for source in one.sources
    ]
    assert len(sources) == 24
    measured = read_measured(manifests / "audio")
    assert all(Path(source).resolve().is_relative_to(recipe) and measured.get(source) for source in sources)

    # prepare.sh does not call lhotse again.
    prepare_corpus(lhotse_source("made", lab / "corpus"), "c", manifests)
    assert SkippedItems.read(manifests / "skipped-c-table.tsv").counts == {}


def test_audio_that_a_recipe_of_lhotse_makes_is_found_in_the_new_recipe(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(lhotse_functions, "recipes", lambda: {"made": prepare_made})
    (tmp_path / "corpus").mkdir()
    tool.new_recipe("c", lhotse_source("made", tmp_path / "corpus"), tmp_path / "egs")
    manifests = tmp_path / "egs" / "c" / "ASR" / "data" / "manifests"
    for paths in (manifests.glob("*_recordings_*"), manifests.glob("lhotse/c/*_recordings*")):
        sources = [one.sources[0].source for path in paths for one in RecordingSet.from_file(path)]
        assert len(sources) == 12
        assert all(Path(source).is_file() for source in sources)


def write_kaldi(folder: Path, source: CorpusSource) -> None:
    for i, split in enumerate(("train", "dev", "test")):
        (folder / split).mkdir(parents=True)
        (folder / split / "wav.scp").write_text(f"u{i} cat {source.audio_dir}/{4 * i}.flac |\n")
        (folder / split / "text").write_text(f"u{i} SOME WORDS\n")


def test_kaldi_folders_are_prepared_anew_when_they_change(
    source: CorpusSource, run_script: Callable[..., str], tmp_path: Path
) -> None:
    write_kaldi(tmp_path / "k", source)
    told = tool.new_recipe("k", CorpusSource(None, tmp_path / "k", None, tmp_path), tmp_path / "egs")
    assert "3 recordings are commands" in "\n".join(told)
    recipe = tmp_path / "egs" / "k" / "ASR"
    assert "Stage 1: Manifests: done" in run_script(recipe, "prepare.sh", "--stop-stage", "1")
    assert "already done" in run_script(recipe, "prepare.sh", "--stop-stage", "1")
    (tmp_path / "k" / "test" / "text").write_text("u2 OTHER WORDS\n")
    assert "already done" not in run_script(recipe, "prepare.sh", "--stop-stage", "1")


@pytest.mark.parametrize("kind", ["table", "kaldi_dir", "lhotse_manifests", "lhotse_recipe"])
def test_stage_1_runs_again_when_audio_changes_and_only_then(
    kind: str, run_script: Callable[..., str], tmp_path: Path
) -> None:
    """The recipe lies in the folder of the corpus, to which other programs write too."""
    folder = tmp_path / "corpus"
    names = [f"{i}.wav" for i in range(9)]
    audio = [trees.noise(folder / name) for name in names]
    if kind == "table":
        lines = [f"{name}\tONE TWO\tS{i}" for i, name in enumerate(names)]
        trees.lines(folder / "t.tsv", "audio\ttext\tspeaker", *lines, "late.wav\tONE\tS9")
    elif kind == "kaldi_dir":
        trees.lines(folder / "wav.scp", *(f"u{i} {name}" for i, name in enumerate(names)), "v late.wav")
        trees.lines(folder / "text", *(f"u{i} ONE TWO" for i in range(len(names))), "v ONE")
    elif kind == "lhotse_manifests":
        recordings = [Recording.from_file(path) for path in audio]
        late = trees.noise(folder / "late.wav")
        recordings.append(Recording.from_file(late))
        late.unlink()
        RecordingSet.from_recordings(recordings).to_file(folder / "recordings.jsonl.gz")
        supervisions = [SupervisionSegment(one.id, one.id, 0.0, one.duration, text="ONE") for one in recordings]
        SupervisionSet.from_segments(supervisions).to_file(folder / "supervisions.jsonl.gz")
    source = CorpusSource(None, None, None, folder)
    if kind == "lhotse_recipe":
        folder = trees.yesno(tmp_path / "waves_yesno")
        audio = [*folder.iterdir()]
        source = lhotse_source("yesno", folder)
    else:
        source = replace(source, **{kind: folder / "t.tsv" if kind == "table" else folder})
    tool.new_recipe("c", source, folder / "egs")
    recipe = folder / "egs" / "c" / "ASR"

    def prepare() -> str:
        return run_script(recipe, "prepare.sh", "--stop-stage", "1", "--nj", "1")

    assert "Stage 1: Manifests: done" in prepare()
    if kind != "lhotse_recipe":
        (folder / "other-recipe.log").write_text("not of this corpus")
    assert "Stage 1: Manifests: already done" in prepare()
    changed = trees.noise(audio[0], 1.5, rate=8000)
    out = prepare()
    assert "Stage 1: Manifests: done" in out
    assert f"{changed} has changed since stage 1" in out or kind == "lhotse_recipe"
    assert "already done" in prepare()
    late = folder / ("late.txt" if kind == "lhotse_recipe" else "late.wav")
    trees.lines(late, "new") if kind == "lhotse_recipe" else trees.noise(late)
    out = prepare()
    assert "Stage 1: Manifests: done" in out
    assert f"{late} has changed since stage 1" in out or kind == "lhotse_recipe"
    assert "missing audio" not in out
    assert "already done" in prepare()


def test_sizes_grow_with_the_data_and_updates_stay_sensible() -> None:
    before = 0
    for hours in (0.01, 0.3, 3, 19.9, 20, 100, 199, 200, 1000, 50000):
        sizes = tool.choose_sizes(hours, 20)
        updates, epochs = int(sizes["updates"]), int(sizes["num_epochs"])
        assert 5 <= epochs <= 60
        assert updates >= 7500 or epochs == 60
        assert all(int(sizes[name]) <= updates / 3 for name in ("warmup_steps", "easy_steps"))
        assert int(sizes["dim"]) >= before
        before = int(sizes["dim"])


def test_batches_hold_the_longest_utterance_and_updates_are_counted_with_them() -> None:
    usual, long = (tool.choose_sizes(5, seconds) for seconds in (20, 60))
    assert (usual["max_duration"], long["max_duration"]) == ("48", "60")
    for sizes in (usual, long):
        audio = 5 * 3600 * sum(1 / speed for speed in tool.SPEEDS) * int(sizes["num_epochs"])
        assert int(sizes["updates"]) == math.ceil(audio / int(sizes["max_duration"]))


def test_tokens_are_pieces_only_with_much_data_and_many_words() -> None:
    words = [f"{a}{b}{c}" for a in "abcdefghijkl" for b in "abcdefghij" for c in "abcdefghij"]
    assert tool.choose_tokens(words, 100)["model_type"] == "unigram"
    assert tool.choose_tokens(words, 100)["lang"] == "lang_bpe_500"
    assert tool.choose_tokens(words, 10)["model_type"] == "char"
    assert tool.choose_tokens(words[:900], 100)["model_type"] == "char"
    chinese = [chr(0x4E00 + i) for i in range(3000)]
    assert tool.choose_tokens(chinese, 100) | {"tokens_reason": "", "rnnt_reason": ""} == {
        "model_type": "char",
        "vocab_size": "3003",
        "lang": "lang_char",
        "tokens_reason": "",
        "rnnt_type": "modified",
        "rnnt_reason": "",
    }


def utterance(seconds: float, rate: int = 16000) -> Utterance:
    recording = Recording("r", [AudioSource("file", [0], "r")], rate, int(seconds * rate), seconds)
    return Utterance(recording, SupervisionSegment("u", "r", 0.0, seconds, text="X"), "train")


def test_telephone_speech_stays_at_8_khz() -> None:
    assert tool.choose_features([utterance(3, 8000), utterance(2, 16000)])["sample_rate"] == "8000"
    assert (
        tool.choose_features([utterance(2, 8000), utterance(1, 11025), utterance(3, 48000)])["sample_rate"] == "16000"
    )


def test_silence_follows_words_that_are_too_short_for_their_characters() -> None:
    """THREE takes seven frames: one of the space before it, and one of a blank between equal characters."""
    enough, too_short = ("THREE", 0.31), ("THREE", 0.30)
    assert tool.choose_tail([enough] * 99 + [too_short], "char")["tail_frames"] == "0"
    chosen = tool.choose_tail([enough] * 98 + [too_short] * 2, "char")
    assert chosen["tail_frames"] == "32"
    assert "2 of 100 utterances" in chosen["tail_reason"]
    assert tool.choose_tail([too_short] * 100, "unigram")["tail_frames"] == "0"


@pytest.mark.parametrize(
    ("durations", "limit"), [([3] * 50, 20), ([5] * 99 + [25], 30), ([5] * 1000 + [25], 20), ([200] * 9, 60)]
)
def test_longest_utterance_that_is_trained_on(durations: list[float], limit: int) -> None:
    assert tool.choose_max_seconds([utterance(seconds) for seconds in durations]) == limit


def test_the_smallest_table_of_the_readme(tmp_path: Path) -> None:
    """Columns audio and text alone."""
    for i in range(12):
        soundfile.write(tmp_path / f"{i}.flac", np.random.default_rng(i).uniform(-0.1, 0.1, 32000), 16000)
    (tmp_path / "t.csv").write_text("audio,text\n" + "".join(f"{i}.flac,one two\n" for i in range(12)))
    told = tool.new_recipe("c", CorpusSource(tmp_path / "t.csv", None, None, tmp_path), tmp_path / "egs")
    assert [line for line in told if line.startswith("train: 8 utterances")]
    config = yaml.safe_load((tmp_path / "egs" / "c" / "ASR" / "conf" / "conformer.yaml").read_text())
    assert config["data"]["num_mel_bins"] == 80
