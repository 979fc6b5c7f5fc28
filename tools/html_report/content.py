"""Content of the page as plain data: experiments with their results, plots, and the utterances of each split."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lhotse.cut import Cut

from html_report.audio import LONGEST, choose, encode, open_cuts
from html_report.plots import latency_plot, learning_curves
from summarymix.scoring.experiments import Experiment, by_name, collect
from summarymix.scoring.metrics import UNIT_NAMES, split_units
from summarymix.scoring.report import INTERVALS, interval_table, pivot, surroundings
from summarymix.scoring.results import ErrorStats, Result, ScoredUtterance, read_recogs, setting_cells, shown_metrics

MODES = ("offline", "streaming", "simulated")


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
    plots, shown, notes = learning_curves(logs), [], []
    for split in splits or decoded:
        ordered = [one for one in in_order if one.result.split == split]
        plots += latency_plot(split, [(_differing(one.model, ordered), one.result) for one in ordered])
        content, problems = _split_content(split, ordered, num_audio, manifest_dir)
        shown += [content] if content["ids"] else []
        notes += problems
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
        "notes": list(dict.fromkeys(notes)),
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
        chosen = one.experiment.selection or vars(one.experiment.results[-1])
        is_chosen = (result.epoch, result.avg) == (chosen["epoch"], chosen["avg"])
        search = searches.index(result.search)
        chunk = result.lookahead_ms, -(result.chunk_ms or 0), result.left_chunks
        return not is_chosen, result.epoch, result.avg, search, MODES.index(result.mode), *chunk

    return sorted(decodings, key=key)


def _differing(parts: tuple[str, ...], decodings: Iterable[Decoding]) -> str:
    """The parts of a model's name that are not the same for all decodings."""
    columns = zip(parts, zip(*(one.model for one in decodings), strict=True), strict=True)
    return ", ".join(part for part, column in columns if len(set(column)) > 1)


def _split_content(
    split: str, decodings: list[Decoding], num_audio: int, manifest_dir: str | None
) -> tuple[dict[str, Any], list[str]]:
    """Collect the utterances of a split, and the problems on the way, as sentences."""
    metric, problems = decodings[0].result.metric, []
    references: dict[str, list[str]] = {}
    scored: list[tuple[Decoding, dict[str, ScoredUtterance]]] = []
    for one in decodings:
        path = one.exp_dir / one.result.recogs
        if not path.is_file():
            problems.append(f"{path} is gone, so the utterances of {split}, {one.setting} are not shown: decode again")
            continue
        utterances = {utterance.cut_id: utterance for utterance in read_recogs(path)}
        if any(references.setdefault(cut_id, u.ref) != u.ref for cut_id, u in utterances.items()):
            problems.append(f"{path} has other references than the results before it, and is not shown: decode again")
            continue
        scored.append((one, utterances))
    ids = sorted(references)
    stats = [ErrorStats.from_utterances(utterances.values(), metric) for _, utterances in scored]
    counts = [one.by_utterance() for one in stats]
    errors = {cut_id: sum(one[cut_id][0] for one in counts if cut_id in one) for cut_id in ids}
    cuts: dict[str, Cut] = {}
    try:
        cuts = open_cuts(decodings[0].exp_dir, split, manifest_dir)
    except (OSError, ValueError) as error:
        problems.append(f"{split}: no audio, speakers and durations ({error})")
    audio, unreadable = {}, []
    for cut_id in choose(errors, cuts, num_audio):
        try:
            audio[cut_id] = encode(cuts[cut_id])
        except Exception as error:  # the type depends on format and library
            unreadable.append(f"{cut_id}: {error}")
    if unreadable:
        problems.append(f"{split}: the audio of {len(unreadable)} utterances cannot be read, of {unreadable[0]}")
    hyps = [one.exp_dir / one.result.hyps for one, _ in scored]
    if untimed := sum(not path.is_file() for path in hyps):
        problems.append(f"{split}: {untimed} of {len(hyps)} settings have no file of word times: decode again")
    words = [_words(path, audio) for path in hyps]
    separator = "" if metric == "cer" else " "
    return {
        "name": split,
        "unit": UNIT_NAMES[metric],
        "metric": metric,
        "settings": [
            {"model": one.model, "name": one.setting, "rate": stat.rate}
            for (one, _), stat in zip(scored, stats, strict=True)
        ],
        "ids": ids,
        "references": [separator.join(split_units(references[cut_id], metric)) for cut_id in ids],
        "seconds": [round(cuts[cut_id].duration, 2) if cut_id in cuts else None for cut_id in ids],
        "speakers": [_speakers(cuts[cut_id]) if cut_id in cuts else "" for cut_id in ids],
        "hypotheses": [_hypotheses(ids, stat, separator) for stat in stats],
        "audio": {
            ids.index(cut_id): {"ogg": ogg, "words": [one.get(cut_id) for one in words]}
            for cut_id, ogg in audio.items()
        },
    }, problems


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
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    records = map(json.loads, lines)
    return {
        record["id"]: [
            (word["word"], round(word["start"], 2), round(word["end"], 2), round(word["confidence"], 2))
            for word in record["words"]
        ]
        for record in records
        if record["id"] in wanted
    }


def _speakers(cut: Cut) -> str:
    return ", ".join(sorted({supervision.speaker for supervision in cut.supervisions if supervision.speaker}))
