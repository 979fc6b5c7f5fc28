"""Take missing dev and test splits from the training data of a corpus."""

import hashlib

from summarymix.data.corpus.base import Corpus, Utterances
from summarymix.data.corpus.on_disk import Database
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
    are moved, or else single utterances. Their names put them in an order; dev takes some from its beginning, test some
    from its end. So a change of the corpus does not make test of dev, but it may make either of some training data.

    Raises:
        ValueError: there is no training data, or too little of it.
    """
    splits = corpus.splits()
    training = [split for split in splits if kind_of(split) == "train"]
    if not training:
        raise ValueError(f"no training data: the splits are {', '.join(splits)}; begin one's name with train")
    wanted = [split for split in ("dev", "test") if split not in map(kind_of, splits)]
    if not wanted:
        return
    pool = corpus.utterances.of(training)
    database = corpus.utterances.database
    database.create_function("kind_of", 1, kind_of)
    for unit, group in _units(pool):
        moved = _choose(database, group, wanted)
        if moved:
            break
        corpus.notes.append(f"There are too few {unit} to take {' and '.join(wanted)} from them")
    else:
        raise ValueError(f"{len(pool)} utterances are too few to take {' and '.join(wanted)} from them: add more")
    without = "WHERE kind_of(split) = 'train' AND coalesce(speaker, '') = ''"
    ((unnamed,),) = database.execute(f"SELECT count(*) FROM utterances {without}")
    speakers = "no speaker is in two of them"
    if unnamed:
        speakers = (
            f"no known speaker is in two of them; {unnamed} of {len(pool)} utterances have no speaker and went by "
            "recordings, so that their speakers may be in two"
        )
    database.create_function("moved", 1, moved.get)
    database.execute(
        f"UPDATE utterances SET split = moved({group}) WHERE kind_of(split) = 'train' AND moved({group}) NOTNULL"
    )
    reason = {
        "speakers": speakers,
        "recordings": "but a speaker may be in two of them: error rates will look better than for new speakers",
        "utterances": "but speakers and recordings are in several: error rates will look better than for new ones",
    }
    verb = "was" if len(wanted) == 1 else "were"
    corpus.notes.append(f"{' and '.join(wanted)} {verb} taken from train by {unit}: {reason[unit]}")


def _units(pool: Utterances) -> list[tuple[str, str]]:
    """Units that can be moved as a whole, the best first: plural name, and SQL expression for an utterance's group."""
    units = [("recordings", "recording_id"), ("utterances", "id")]
    if pool.speakers():
        # Without a speaker, the recording counts as the speaker.
        units.insert(0, ("speakers", "coalesce(nullif(speaker, ''), 'recording ' || recording_id)"))
    return units


def _choose(database: Database, group: str, wanted: list[str]) -> dict[str, str]:
    """New split of each moved group; empty if every group is too large for one of the splits.

    Args:
        database: the utterances.
        group: SQL expression for an utterance's group.
        wanted: splits that take groups.
    """
    database.execute("DROP TABLE IF EXISTS groups")
    database.execute("CREATE TABLE groups (number INTEGER PRIMARY KEY, name UNIQUE, seconds, utterances)")
    database.execute(f"""
        INSERT INTO groups (name, seconds, utterances)
            SELECT {group}, duration, 1 FROM utterances WHERE kind_of(split) = 'train' ORDER BY number
            ON CONFLICT (name) DO UPDATE SET seconds = seconds + excluded.seconds, utterances = utterances + 1
    """)
    total = sum(seconds for (seconds,) in database.execute("SELECT seconds FROM groups ORDER BY number"))
    goal = min(SHARE * total, MAX_SECONDS)
    # Ordered by hash, so that the choice is arbitrary but stable; groups that overshoot the goal come last.
    database.create_function("digest", 1, lambda name: hashlib.sha256(name.encode()).digest())
    order = "SELECT name, seconds, utterances FROM groups ORDER BY max(seconds - ?, 0.0), digest(name) "
    moved: dict[str, str] = {}
    for split in wanted:
        taken, count = 0.0, 0
        direction = "DESC" if split == "test" else "ASC"
        for name, seconds, utterances in database.execute(order + direction, (goal,)):
            if taken >= goal and count >= MIN_UTTERANCES:
                break
            if name not in moved and taken + seconds <= MAX_SHARE * total:
                moved[name] = split
                taken += seconds
                count += utterances
        if not count:
            return {}
    return moved
