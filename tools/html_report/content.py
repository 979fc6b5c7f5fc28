"""Content of the page as plain data: experiments with their results, plots, and the utterances of each split."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lhotse.cut import Cut

from html_report.audio import LONGEST, choose, encode, open_cuts
from html_report.plots import latency_plot, learning_curves
from summarymix.files import read_json_lines
from summarymix.scoring.errors import ErrorStats, ScoredUtterance, read_recogs
from summarymix.scoring.experiments import Experiment, by_name, collect
from summarymix.scoring.metrics import UNIT_NAMES, split_units
from summarymix.scoring.report import INTERVALS, interval_table, pivot, surroundings
from summarymix.scoring.results import Result, setting_cells, shown_metrics

MODES = ("offline", "streaming", "simulated")
REMEDY = "Run this command in the recipe's folder, or give --manifest-dir"


@dataclass(frozen=True)
class Decoding:
    """A result with its experiment and its folder."""

    experiment: Experiment
    exp_dir: Path
    result: Result

    @property
    def model(self) -> tuple[str, str, str]:
        """Names of the experiment, the search and the checkpoint."""
        return self.experiment.name, self.result.search, f"epoch {self.result.epoch}, avg {self.result.avg}"

    @property
    def is_chosen(self) -> bool:
        """True for the checkpoint that ``decode.py --select`` chose; without a choice, for the newest result's."""
        chosen = self.experiment.selection or vars(self.experiment.results[-1])
        return (self.result.epoch, self.result.avg) == (chosen["epoch"], chosen["avg"])

    @property
    def setting(self) -> str:
        """Mode with chunk size and left context."""
        mode, chunk, left = setting_cells(self.result)
        return mode if mode == "offline" else f"{mode} {chunk}, left {left}"


def make_content(
    exp_dirs: Sequence[Path], splits: Sequence[str] | None, num_audio: int, manifest_dir: str | None = None
) -> dict[str, Any]:
    """Collect the content of the page.

    Args:
        exp_dirs: folders of experiments of one recipe.
        splits: splits whose utterances are shown; None for all that were decoded.
        num_audio: number of utterances of each split with audio: as many with the most errors, as many at random.
        manifest_dir: folder of the manifests, if they have moved since training.

    Raises:
        FileNotFoundError: an experiment has no results.
        ValueError: a split was not decoded, experiments of several recipes or of the same name.
    """
    experiments = {exp_dir: collect(exp_dir) for exp_dir in exp_dirs}
    by_name((), list(experiments.values()))
    decodings = [Decoding(one, exp_dir, result) for exp_dir, one in experiments.items() for result in one.results]
    in_order = _in_order(decodings)
    if len(recipes := sorted({one.result.recipe for one in decodings})) > 1:
        raise ValueError(f"The experiments belong to the recipes {', '.join(recipes)}: make one page for each recipe")
    decoded = list(dict.fromkeys(one.result.split for one in decodings))
    if unknown := sorted({*(splits or ())} - {*decoded}):
        raise ValueError(f"No results of {', '.join(unknown)}; decoded were {', '.join(decoded)}: correct --splits")
    logs = {one.name: exp_dir / "log.jsonl" for exp_dir, one in experiments.items()}
    plots, shown = learning_curves(logs), []
    notes: list[str] = []
    for split in splits or decoded:
        ordered = [one for one in in_order if one.result.split == split]
        chosen = [one for one in ordered if one.is_chosen]
        plots += latency_plot(split, [(_differing(one.model, chosen), one.result) for one in chosen])
        scored = _read_hypotheses(ordered, notes)
        if scored:
            shown.append(_split_content(split, scored, num_audio, manifest_dir, notes))
    return {
        "recipe": recipes[0],
        "experiments": [
            _experiment_content(one, [decoding.result for decoding in in_order if decoding.experiment is one])
            for one in experiments.values()
        ],
        "plots": plots,
        "splits": shown,
        "audio": num_audio,
        "longest": LONGEST,
        "notes": notes,
    }


def _experiment_content(experiment: Experiment, results: list[Result]) -> dict[str, Any]:
    choice = experiment.selection
    facts = [f"{size / 1e6:.2f} M parameters" for size in experiment.parameters]
    if experiment.epochs:
        facts.append(f"trained for {experiment.epochs} epochs, {experiment.steps} updates")
    if choice:
        chosen = f"epoch {choice['epoch']}, avg {choice['avg']} chosen on {', '.join(choice['splits'])}"
        facts.append(f"{chosen} among {choice['tried']} candidates")
    metrics = shown_metrics(results)
    rates = " / ".join(metric.upper() for metric in metrics)
    tables = [{"title": f"{rates} in % on each split", "note": "", "rows": pivot(results, metrics)}]
    if intervals := interval_table(results):
        note = " ".join(INTERVALS.split())
        tables.append({"title": "Intervals and delays", "note": note, "rows": intervals})
    commands = [*experiment.commands, choice.get("command", ""), *(result.command for result in results)]
    return {
        "name": experiment.name,
        "facts": facts,
        "surroundings": surroundings(results),
        "commands": list(dict.fromkeys(filter(None, commands))),
        "tables": tables,
    }


def _in_order(decodings: list[Decoding]) -> list[Decoding]:
    """Sort results: chosen checkpoints first, then by search, offline first, large chunks first."""
    searches = list(dict.fromkeys(one.result.search for one in decodings))

    def key(one: Decoding) -> tuple[Any, ...]:
        result = one.result
        chunk = result.lookahead_ms, -(result.chunk_ms or 0), result.left_chunks
        search, mode = searches.index(result.search), MODES.index(result.mode)
        return not one.is_chosen, search, mode, *chunk, result.epoch, result.avg

    return sorted(decodings, key=key)


def _differing(parts: tuple[str, ...], decodings: Iterable[Decoding]) -> str:
    """The parts of a model's name that are not the same for all decodings."""
    columns = zip(parts, zip(*(one.model for one in decodings), strict=True), strict=True)
    return ", ".join(part for part, column in columns if len(set(column)) > 1)


Scored = list[tuple[Decoding, list[ScoredUtterance]]]


def _read_hypotheses(decodings: list[Decoding], notes: list[str]) -> Scored:
    """Read the utterances of each result of a split. Results that do not fit the first ones get a note instead."""
    references: dict[str, list[str]] = {}
    scored = []
    for one in decodings:
        path = one.exp_dir / one.result.recogs
        utterances = read_recogs(path) if path.is_file() else []
        if not path.is_file():
            notes.append(f"{path} is gone, so its utterances are not shown: decode again")
        elif any(references.get(utterance.cut_id, utterance.ref) != utterance.ref for utterance in utterances):
            notes.append(f"{path} has other references than the results before it, and is not shown: decode again")
        else:
            references |= {utterance.cut_id: utterance.ref for utterance in utterances}
            scored.append((one, utterances))
    return scored


def _split_content(
    split: str, scored: Scored, num_audio: int, manifest_dir: str | None, notes: list[str]
) -> dict[str, Any]:
    """Collect the utterances of a split."""
    metric = scored[0][0].result.metric
    separator = "" if metric == "cer" else " "
    references = {utterance.cut_id: utterance.ref for _, utterances in scored for utterance in utterances}
    ids = sorted(references)
    stats = [ErrorStats.from_utterances(utterances, metric) for _, utterances in scored]
    errors = dict.fromkeys(ids, 0)  # in all settings together
    for one in stats:
        for cut_id, (count, _) in one.by_utterance().items():
            errors[cut_id] += count
    cuts: dict[str, Cut] = {}
    try:
        cuts = open_cuts(scored[0][0].exp_dir, split, manifest_dir)
    except (OSError, ValueError) as error:
        notes.append(f"{split}: no audio, speakers and durations ({error}). {REMEDY}")
    audio = _encode(split, [cuts[cut_id] for cut_id in choose(errors, cuts, num_audio)], notes)
    hyps = [decoding.exp_dir / decoding.result.hyps for decoding, _ in scored]
    if untimed := sum(not path.is_file() for path in hyps):
        notes.append(f"{split}: {untimed} of {len(hyps)} settings have no file of word times: decode again")
    words = [_words(path, audio) for path in hyps]
    return {
        "name": split,
        "unit": UNIT_NAMES[metric],
        "metric": metric,
        "settings": [
            {"model": decoding.model, "name": decoding.setting, "rate": one.rate}
            for (decoding, _), one in zip(scored, stats, strict=True)
        ],
        "ids": ids,
        "references": [separator.join(split_units(references[cut_id], metric)) for cut_id in ids],
        "seconds": [round(cuts[cut_id].duration, 2) if cut_id in cuts else None for cut_id in ids],
        "speakers": [_speakers(cuts[cut_id]) if cut_id in cuts else "" for cut_id in ids],
        "hypotheses": [_hypotheses(ids, one, separator) for one in stats],
        "audio": {
            ids.index(cut_id): {"ogg": ogg, "words": [one.get(cut_id) for one in words]}
            for cut_id, ogg in audio.items()
        },
    }


def _encode(split: str, cuts: Iterable[Cut], notes: list[str]) -> dict[str, str]:
    """Encode the audio of cuts, by id. Unreadable ones are left out, with a note."""
    audio, unreadable = {}, []
    for cut in cuts:
        try:
            audio[cut.id] = encode(cut)
        except Exception as error:  # the type depends on format and library
            # lhotse appends the failed call with all its arguments.
            unreadable.append(f"{cut.id} ({' '.join(str(error).split('[extra info]')[0].split())})")
    if unreadable:
        notes.append(f"{split}: the audio of {len(unreadable)} utterances is missing, of {unreadable[0]}. {REMEDY}")
    return audio


def _hypotheses(ids: list[str], stats: ErrorStats, separator: str) -> list[list[str] | int | None]:
    """Text and alignment of each utterance's hypothesis; 0 if it is correct, None if there is none.

    An alignment has a letter for each pair: ``=`` correct, ``S`` substituted, ``D`` deleted, ``I`` inserted.
    """
    found: dict[str, list[str] | int] = {}
    for cut_id, pairs in stats.alignments:
        letters = "".join("=" if ref == hyp else "I" if not ref else "D" if not hyp else "S" for ref, hyp in pairs)
        hypothesis = separator.join(hyp for _, hyp in pairs if hyp)
        found[cut_id] = [hypothesis, letters] if letters.strip("=") else 0
    return [found.get(cut_id) for cut_id in ids]


def _words(path: Path, wanted: Iterable[str]) -> dict[str, list[tuple[str, float, float, float]]]:
    """Word, start, end and confidence of the words of some utterances, from a hyps file."""
    return {
        record["id"]: [
            (word["word"], round(word["start"], 2), round(word["end"], 2), round(word["confidence"], 2))
            for word in record["words"]
        ]
        for _, record in (read_json_lines(path) if path.is_file() else ())
        if record["id"] in wanted
    }


def _speakers(cut: Cut) -> str:
    return ", ".join(sorted({supervision.speaker for supervision in cut.supervisions if supervision.speaker}))
