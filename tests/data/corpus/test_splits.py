from collections import defaultdict
from pathlib import Path

import pytest
from lhotse import AudioSource, Recording
from manifest_cuts import load_cuts

from summarymix.data.corpus.base import Corpus, Row
from summarymix.data.corpus.gather import gather
from summarymix.data.corpus.recordings import AudioFindings
from summarymix.data.corpus.splits import fill_splits


def corpus_of(spoken: list[tuple[str | None, str, float, str | None]], backwards: bool = False) -> Corpus:
    """Utterances (speaker, recording, seconds, split), one behind the other in recordings of a day."""
    names = {recording for _, recording, _, _ in spoken}
    recordings = {n: Recording(n, [AudioSource("file", [0], n)], 16000, 86400 * 16000, 86400.0) for n in names}
    ends: dict[str, float] = defaultdict(float)
    rows = []
    for i, (speaker, recording, seconds, split) in enumerate(spoken):
        rows.append(Row(recording, "X", f"u{i}", speaker, split, ends[recording], seconds))
        ends[recording] += seconds
    return gather(rows[::-1] if backwards else rows, recordings, AudioFindings(Path("no audio is opened")))


def shares(corpus: Corpus) -> dict[str, float]:
    total = sum(utterance.seconds for utterance in corpus.utterances)
    return {split: sum(u.seconds for u in utterances) / total for split, utterances in corpus.splits().items()}


@pytest.mark.parametrize("num_speakers", [7, 12, 50, 400])
def test_speakers_are_kept_apart(num_speakers: int) -> None:
    spoken = [(f"s{i}", f"r{i}-{j}", 3.0 + (i + j) % 5, None) for i in range(num_speakers) for j in range(20)]
    corpus = corpus_of(spoken)
    fill_splits(corpus)
    assert len(corpus.utterances) == len(spoken)
    speakers = [{u.supervision.speaker for u in utterances} for utterances in corpus.splits().values()]
    assert sum(map(len, speakers)) == len(set.union(*speakers)) == num_speakers
    for split in ("dev", "test"):
        assert 1 / 20 <= shares(corpus)[split] <= (1 / 6 if num_speakers < 20 else 1 / 10)
        assert len(corpus.splits()[split]) >= 20
    assert corpus.notes == ["dev and test were taken from train by speakers: no speaker is in two of them"]


def test_the_same_every_time_and_whatever_the_order() -> None:
    spoken = [(f"s{i}", f"r{i}", 3.0, None) for i in range(60)]
    once, again = corpus_of(spoken), corpus_of(spoken, backwards=True)
    fill_splits(once)
    fill_splits(again)
    assert {u.supervision.id: u.split for u in once.utterances} == {u.supervision.id: u.split for u in again.utterances}


def test_dev_does_not_become_test_when_the_corpus_changes() -> None:
    def speakers(numbers: range) -> dict[str, set[str]]:
        corpus = corpus_of([(f"s{i}", f"r{i}-{j}", 3.0 + i % 5, None) for i in numbers for j in range(20)])
        fill_splits(corpus)
        return {split: {u.supervision.speaker for u in utterances} for split, utterances in corpus.splits().items()}

    before = speakers(range(100))
    for numbers in (range(130), range(5, 100), range(90)):
        after = speakers(numbers)
        assert not before["dev"] & after["test"]
        assert not before["test"] & after["dev"]


def test_not_more_than_two_hours() -> None:
    corpus = corpus_of([(f"s{i}", f"r{i}", 900.0, None) for i in range(800)])
    fill_splits(corpus)
    assert {s: sum(u.seconds for u in us) for s, us in corpus.splits().items()}["dev"] == 20 * 900  # 20 utterances
    corpus = corpus_of([(f"s{i}", f"r{i}", 60.0, None) for i in range(12000)])
    fill_splits(corpus)
    assert {s: sum(u.seconds for u in us) for s, us in corpus.splits().items()}["test"] == 7200


def test_too_few_speakers_then_recordings_then_utterances() -> None:
    corpus = corpus_of([(f"s{i % 3}", f"r{i % 30}", 4.0, None) for i in range(300)])
    fill_splits(corpus)
    assert "too few speakers" in corpus.notes[0]
    assert "by recordings: but a speaker may be in two" in corpus.notes[1]
    recordings = [{u.recording.id for u in utterances} for utterances in corpus.splits().values()]
    assert sum(map(len, recordings)) == 30

    corpus = corpus_of([(None, "r", 4.0, None) for i in range(300)])
    fill_splits(corpus)
    assert "too few recordings" in corpus.notes[0]
    assert "by utterances: but speakers and recordings are in several" in corpus.notes[1]
    assert len(corpus.splits()["dev"]) == len(corpus.splits()["test"]) == 20

    with pytest.raises(ValueError, match="5 utterances are too few to take dev and test from them"):
        fill_splits(corpus_of([(None, "r", 4.0, None)] * 5))


def test_only_what_is_missing_is_taken_and_only_from_train() -> None:
    spoken = [(f"s{i}", f"r{i}", 4.0, "dev-other" if i < 30 else "train-clean" if i < 60 else None) for i in range(200)]
    corpus = corpus_of([*spoken, ("s9", "r9", 4.0, "eval")])
    fill_splits(corpus)
    assert list(corpus.splits()) == ["train", "train-clean", "dev-other", "eval"]
    assert corpus.notes == []

    corpus = corpus_of(spoken)
    fill_splits(corpus)
    assert list(corpus.splits()) == ["train", "train-clean", "dev-other", "test"]
    assert len(corpus.splits()["dev-other"]) == 30
    assert corpus.notes[0].startswith("test was taken from train by speakers")

    with pytest.raises(ValueError, match="no training data: the splits are dev, eval"):
        fill_splits(corpus_of([("s", "r", 4.0, "eval"), ("s", "r", 4.0, "dev")]))


def test_utterances_without_speaker_go_with_their_recording() -> None:
    corpus = corpus_of([("s" if i % 2 else None, f"r{i // 10}", 4.0, None) for i in range(400)])
    fill_splits(corpus)
    unknown = [{u.recording.id for u in us if not u.supervision.speaker} for us in corpus.splits().values()]
    assert sum(map(len, unknown)) == 40
    assert all(u.split == "train" for u in corpus.utterances if u.supervision.speaker)
    assert "no known speaker is in two of them; 200 of 400 utterances have no speaker and went by" in corpus.notes[0]


def test_written_splits_have_the_recordings_of_their_segments(tmp_path: Path) -> None:
    corpus = corpus_of([(None, "r", 4.0, None) for i in range(300)])
    fill_splits(corpus)
    corpus.write("c", tmp_path)
    for split, utterances in corpus.splits().items():
        ids = {utterance.supervision.id for utterance in utterances}
        assert ids
        assert {cut.id for cut in load_cuts(tmp_path, "c", split)} == ids
