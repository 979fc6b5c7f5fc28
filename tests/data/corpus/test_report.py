from pathlib import Path

from lhotse import AudioSource, Recording

from summarymix.data.corpus.base import Corpus, Row
from summarymix.data.corpus.gather import gather
from summarymix.data.corpus.recordings import AudioFindings
from summarymix.data.corpus.report import corpus_report, hours_by_rate
from summarymix.data.skipped import SkippedItems


def corpus_of(rows: list[Row], rates: dict[str, tuple[int, int]] | None = None, **options) -> Corpus:
    """Rows whose recordings last an hour; their sample rates and numbers of channels by name."""
    rates = {row.audio: (16000, 1) for row in rows} | (rates or {})
    recordings = {
        name: Recording(name, [AudioSource("file", list(range(channels)), name)], rate, 3600 * rate, 3600.0)
        for name, (rate, channels) in rates.items()
    }
    return gather(rows, recordings, AudioFindings(Path("no audio is opened")), **options)


def one_line(lines: list[str], beginning: str) -> str:
    (line,) = [line for line in lines if line.startswith(beginning)]
    return line


def test_good_corpus_has_no_warnings(tmp_path: Path) -> None:
    rows = [Row("r", "IT'S ALL WELL-DONE", speaker=f"s{i}", start=2.0 * i, duration=2) for i in range(90)]
    lines = corpus_report(corpus_of(rows), "c", tmp_path)
    assert lines == [
        "90 utterances, 0.05 h; skipped 0",
        "audio: 16000 Hz mono 0.05 h",
        "train: 90 utterances, 0.05 h, 1 recordings, 90 speakers",
        f"characters: 12 different ones; see {tmp_path}/characters-c.tsv",
    ]
    table = (tmp_path / "characters-c.tsv").read_text().splitlines()
    assert table[1] == "L\t360\t90\tLATIN CAPITAL LETTER L"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["characters-c.tsv"]


def test_hours_by_rate_count_speech_not_files(tmp_path: Path) -> None:
    rows = [Row("a", "X", duration=1800), Row("b", "X", duration=900, channel=1), Row("a", "X", start=9, duration=900)]
    corpus = corpus_of(rows, {"b": (8000, 2)})
    assert hours_by_rate(corpus.utterances) == {(16000, 1): 0.75, (8000, 2): 0.25}
    assert (
        one_line(corpus_report(corpus, "c", tmp_path), "audio")
        == "audio: 16000 Hz mono 0.75 h, 8000 Hz with 2 channels 0.25 h"
    )


def test_speakers_of_several_splits(tmp_path: Path) -> None:
    rows = [
        Row("r", "X Y", speaker=s, split=split, start=i)
        for i, (s, split) in enumerate(
            [
                ("a", "train"),
                ("b", "train"),
                ("b", "test"),
                ("c", "test"),
                (None, "train"),
                (None, "test"),
                ("a", "test"),
            ]
        )
    ]
    line = one_line(corpus_report(corpus_of(rows), "c", tmp_path), "Warning: train and test")
    assert "share 2 speakers (a b)" in line


def test_transcripts_that_want_normalising(tmp_path: Path) -> None:
    texts = ["The Cafe\u0301 costs $5, no?"] * 30 + ["z", "\u200bz"] + ["costs 5"] * 30
    lines = corpus_report(
        corpus_of([Row("r", text, start=3 * i, duration=3) for i, text in enumerate(texts)]), "c", tmp_path
    )
    assert "2 characters occur in less than 5 utterances (z '\\u200b')" in one_line(lines, "Warning: 2 char")
    assert "(5)" in one_line(lines, "Warning: digits")
    assert one_line(lines, "Warning: symbols").startswith("Warning: symbols in transcripts ($)")
    assert one_line(lines, "Warning: punctuation") == (
        "Warning: punctuation in 30 of 62 transcripts, such as 'The Café costs $5, no?': --punctuation remove makes it "
        "'The Café costs $5 no'; keep it if the model should write punctuation"
    )
    assert "--text-case lower" in one_line(lines, "Warning: upper and lower")
    assert "30 transcripts were not in Unicode's composed form" in one_line(lines, "30 ")
    assert "\u200b\t1\t1\tZERO WIDTH SPACE" in (tmp_path / "characters-c.tsv").read_text()


def test_what_was_done_to_punctuation_is_told(tmp_path: Path) -> None:
    texts = ["Yes, it's [noise] well-known.", "no", "<unk>"]
    rows = [Row("r", text, start=3 * i, duration=3) for i, text in enumerate(texts)]
    corpus = corpus_of(rows, punctuation="remove")
    assert [u.supervision.text for u in corpus.utterances] == ["Yes it's noise well-known", "no", "<unk>"]
    lines = corpus_report(corpus, "c", tmp_path)
    assert one_line(lines, "punctuation was removed") == (
        'punctuation was removed from 1 transcripts, such as "Yes, it\'s [noise] well-known.", now '
        '"Yes it\'s noise well-known"'
    )
    assert "([noise]) stay in the transcripts, now as words" in one_line(lines, "Warning: words in brackets")
    assert "(< >)" in one_line(lines, "Warning: symbols")


def test_recordings_without_speech_are_counted(tmp_path: Path) -> None:
    rows = [Row("r", "A B", duration=3), Row("r", "", start=3, duration=1800)]
    lines = corpus_report(corpus_of(rows, keep_empty=True), "c", tmp_path)
    assert one_line(lines, "1 of them") == "1 of them are recordings without speech, 0.50 h"
    assert not any(line.startswith("Warning") for line in lines)  # nor is there too little text


def test_absurd_speaking_rates_are_listed(tmp_path: Path) -> None:
    rows = [Row("r", "A B C", "good", duration=3), Row("r", "A B C D E", "fast", duration=0.5), Row("r", "A", "slow")]
    lines = corpus_report(corpus_of(rows), "c", tmp_path)
    assert "2 utterances have more than 8 or less than 0.2 words a second" in one_line(lines, "Warning")
    assert {i.id: i.reason for i in SkippedItems.read(tmp_path / "suspicious-c.tsv").items} == {
        "fast": "too many words",
        "slow": "too few words",
    }


def test_characters_without_spaces_are_half_words(tmp_path: Path) -> None:
    rows = [Row("r", "今天天气很好我们去公园玩", "good", duration=3), Row("r", "今天天气很好", "fast", duration=0.3)]
    lines = corpus_report(corpus_of([*rows, Row("r", "今 OK", "slow", duration=8)]), "c", tmp_path)
    assert "2 utterances have more than 8" in one_line(lines, "Warning: 2")
    assert {i.id: i.detail.split(" in ")[0] for i in SkippedItems.read(tmp_path / "suspicious-c.tsv").items} == {
        "fast": "3 words",
        "slow": "1.5 words",
    }


def test_text_without_spaces(tmp_path: Path) -> None:
    def lines(text: str) -> list[str]:
        rows = [Row("r", text, start=5 * i, duration=5) for i in range(9)]
        return corpus_report(corpus_of(rows), "c", tmp_path)

    assert "put spaces between words" in one_line(lines("THEWEATHERISFINE"), "Warning: most transcripts")
    assert not any("most transcripts" in line for line in lines("今天天气很好我们去公园"))  # is counted by characters


def test_audio_without_a_row(tmp_path: Path) -> None:
    corpus = corpus_of([Row("r", "A B", duration=2)])
    corpus.unnamed_audio = [Path("/x/a.wav"), Path("/x/b.wav")]
    line = one_line(corpus_report(corpus, "c", tmp_path), "Warning")
    assert "2 audio files belong to no utterance, for example /x/a.wav" in line
    assert (tmp_path / "unnamed-audio-c.txt").read_text() == "/x/a.wav\n/x/b.wav\n"


def test_guessed_kinds_of_splits_are_told(tmp_path: Path) -> None:
    splits = ("Train", "train_dev", "valid", "eval", "cv")
    rows = [Row("r", "X", split=split, start=2.0 * i, duration=2) for i, split in enumerate(splits)]
    lines = corpus_report(corpus_of(rows), "c", tmp_path)
    assert [line for line in lines if "a guess" in line] == [
        f"Warning: {split}, a guess from its name: if this is wrong, rename it to train…, dev… or test…, without "
        "another of these words"
        for split in ("train_dev is dev data", "cv is test data")
    ]


def test_audio_whose_name_is_not_utf8_is_listed(tmp_path: Path) -> None:
    corpus = corpus_of([Row("r", "X")])
    corpus.unnamed_audio = [Path("é\udcff.wav")]
    line = one_line(corpus_report(corpus, "c", tmp_path), "Warning: 1 audio files belong to no utterance")
    assert "é\\udcff.wav" in line
    assert (tmp_path / "unnamed-audio-c.txt").read_text() == "é\\udcff.wav\n"
