"""Take missing dev and test splits from the training data of a corpus."""

import hashlib
from collections.abc import Callable
from dataclasses import replace

from summarymix.data.corpus.base import Corpus, Utterance
from summarymix.data.names import kind_of

# Dev and test each get a twentieth of the data: at most two hours, which suffice to measure an error rate, and at least
# 20 utterances.
SHARE = 1 / 20
MAX_SECONDS = 2 * 3600.0
MIN_UTTERANCES = 20
# Upper limit of each, so that together they take at most a third.
MAX_SHARE = 1 / 6


def fill_splits(corpus: Corpus) -> None:
    """Take missing dev and test splits from the training data of ``corpus``, and record this in its notes.

    Whole speakers are moved, so that the splits share no speaker. If speakers are unknown or too few, whole recordings
    are moved, or else single utterances. The choice depends on their names only.

    Raises:
        ValueError: there is no training data, or too little of it.
    """
    kinds = {kind_of(split) for split in corpus.splits()}
    pool = [utterance for utterance in corpus.utterances if kind_of(utterance.split) == "train"]
    if not pool:
        raise ValueError(f"no training data: the splits are {', '.join(corpus.splits())}; begin one's name with train")
    wanted = [split for split in ("dev", "test") if split not in kinds]
    if not wanted:
        return
    for unit, name_of_group in _units(pool):
        moved = _choose(pool, name_of_group, wanted)
        if moved:
            break
        corpus.notes.append(f"There are too few {unit} to take {' and '.join(wanted)} from them")
    else:
        raise ValueError(f"{len(pool)} utterances are too few to take {' and '.join(wanted)} from them: add more")
    corpus.utterances = [
        replace(utterance, split=moved.get(name_of_group(utterance), utterance.split))
        if kind_of(utterance.split) == "train"
        else utterance
        for utterance in corpus.utterances
    ]
    reason = {
        "speakers": "no speaker is in two of them",
        "recordings": "but a speaker may be in two of them: error rates will look better than for new speakers",
        "utterances": "but speakers and recordings are in several: error rates will look better than for new ones",
    }
    verb = "was" if len(wanted) == 1 else "were"
    corpus.notes.append(f"{' and '.join(wanted)} {verb} taken from train by {unit}: {reason[unit]}")


def _units(pool: list[Utterance]) -> list[tuple[str, Callable[[Utterance], str]]]:
    """Units that can be moved as a whole, the best first: plural name, and function from utterance to group."""
    units: list[tuple[str, Callable[[Utterance], str]]] = [
        ("recordings", lambda utterance: utterance.recording.id),
        ("utterances", lambda utterance: utterance.supervision.id),
    ]
    if any(utterance.supervision.speaker for utterance in pool):
        # Without a speaker, the recording counts as the speaker.
        units.insert(0, ("speakers", lambda u: u.supervision.speaker or f"recording {u.recording.id}"))
    return units


def _choose(pool: list[Utterance], name_of_group: Callable[[Utterance], str], wanted: list[str]) -> dict[str, str]:
    """New split of each moved group; empty if every group is too large for one of the splits."""
    seconds: dict[str, float] = {}
    counts: dict[str, int] = {}
    for utterance in pool:
        name = name_of_group(utterance)
        seconds[name] = seconds.get(name, 0.0) + utterance.seconds
        counts[name] = counts.get(name, 0) + 1
    total = sum(seconds.values())
    goal = min(SHARE * total, MAX_SECONDS)
    # Ordered by hash, so that the choice is arbitrary but stable; groups that overshoot the goal come last.
    waiting = sorted(
        seconds, key=lambda name: (max(seconds[name] - goal, 0.0), hashlib.sha256(name.encode()).hexdigest())
    )
    moved: dict[str, str] = {}
    for split in wanted:
        taken, count = 0.0, 0
        for name in list(waiting):
            if taken >= goal and count >= MIN_UTTERANCES:
                break
            if taken + seconds[name] <= MAX_SHARE * total:
                moved[name] = split
                waiting.remove(name)
                taken += seconds[name]
                count += counts[name]
        if not count:
            return {}
    return moved
