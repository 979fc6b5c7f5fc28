"""Selection of (epoch, avg) on the dev splits."""

import argparse
import json
from itertools import product
from typing import Any

from summarymix.cli import say
from summarymix.data.evaluation_data import EvalData
from summarymix.decoding.evaluate import DecodeSetting
from summarymix.decoding.job import check_writable, decode_together, open_split, prepare, say_once
from summarymix.distributed import World
from summarymix.files import atomic_write
from summarymix.runs import epoch_path, list_epochs, load_model
from summarymix.scoring.errors import ErrorStats, format_percent
from summarymix.scoring.metrics import Metric, choose_metric

AVERAGES = (0, 1, 2, 4, 8, 16)  # 0: the last weights, which may be best after few epochs


def select(recipe: str, world: World, args: argparse.Namespace, settings: list[DecodeSetting]) -> None:
    """Select the (epoch, avg) with the lowest mean error rate, by one metric, over the dev splits and settings.

    The choice is written into ``selected.json`` and printed.

    Raises:
        FileNotFoundError: no checkpoint exists.
        ValueError: no checkpoint can be used, or a split has no words.
    """
    check_writable(args.exp_dir)
    metric: Metric | None = args.metric
    data: dict[str, EvalData] = {}
    tried: list[dict[str, Any]] = []
    for epoch, avg in _candidates(world, args):
        try:
            run = load_model(args.exp_dir, epoch, avg, recipe)
        except ValueError as error:
            say_once(world, f"epoch {epoch}, avg {avg}: skipped, {error}")
            continue
        job = prepare(recipe, world, args, settings, run)
        data = data or {split: open_split(job, split) for split in args.splits or job.data.dev_splits()}
        metric = metric or choose_metric(text for one in data.values() for text in one.texts)
        rates = {}
        for (split, one), setting in product(data.items(), settings):
            decoded = decode_together(job, setting, split, one)
            if not world.is_main:
                continue
            rate = ErrorStats.from_utterances(decoded.utterances(job.tokenizer), metric).rate
            if rate is None:
                raise ValueError(f"{split} has no reference words, so no error rate: give other --splits")
            rates[f"{split}, {setting.name}"] = rate
        if not world.is_main:
            continue
        mean = sum(rates.values()) / len(rates)
        tried.append({"epoch": epoch, "avg": avg, f"mean_{metric}": mean, metric: rates})
        each = ", ".join(map(format_percent, rates.values()))
        say(f"epoch {epoch}, avg {avg}: mean {metric.upper()} {mean:.2f}%  ({each})")
    if not world.is_main:
        return
    if not tried or metric is None:
        raise ValueError(f"no checkpoint in {args.exp_dir} can be used, for the reasons above")
    # Ties go to the longest average.
    best = min(tried, key=lambda candidate: (candidate[f"mean_{metric}"], -candidate["avg"]))
    path = args.exp_dir / "selected.json"
    choice = {key: best[key] for key in ("epoch", "avg")}
    choice |= {
        "metric": metric,
        "splits": list(data),
        "method": args.method,
        "search_options": args.search.label,
        "command": args.command,
        "tried": tried,
    }
    with atomic_write(path) as file:
        json.dump(choice, file, indent=1, ensure_ascii=False)
    mean = best[f"mean_{metric}"]
    print(f"Selected epoch {best['epoch']}, avg {best['avg']}: mean {metric.upper()} {mean:.2f}% ({path})")


def _candidates(world: World, args: argparse.Namespace) -> list[tuple[int, int]]:
    """Return the (epoch, avg) to try for which checkpoints exist.

    Raises:
        FileNotFoundError: no checkpoint exists for any of them, or for one of ``--epochs``.
    """
    there = list_epochs(args.exp_dir, needed=True)
    epochs, averages = dict.fromkeys(args.epochs or there[-1:]), dict.fromkeys(args.avgs or AVERAGES)
    if missing := sorted({*epochs} - {*there}):
        raise FileNotFoundError(f"No {epoch_path(args.exp_dir, missing[0])}; there are epochs {there}")
    candidates = []
    for epoch, avg in product(epochs, averages):
        if avg in (0, epoch) or epoch_path(args.exp_dir, epoch - avg).is_file():
            candidates.append((epoch, avg))
        elif args.avgs:
            say_once(world, f"epoch {epoch}, avg {avg}: skipped, no checkpoint of epoch {epoch - avg}")
    if not candidates:
        raise FileNotFoundError(
            f"No checkpoints in {args.exp_dir} for epochs {[*epochs]} and averages {[*averages]} (existing: {there}): "
            "train first, or correct --exp-dir, --epochs, --avgs"
        )
    return candidates
