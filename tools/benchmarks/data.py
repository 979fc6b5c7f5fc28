"""Time and memory that the cuts of a large corpus cost training, apart from audio and features.

    python tools/benchmark.py data --cuts 100000 1000000 --json benchmark/data.json

For each number of cuts it generates a manifest, makes the index (once, as ./prepare.sh does), starts a training's data,
plans an epoch, and resumes in its middle after a change of the batch size. A step is what the main process does for its
batch; the plan of the epoch is spread over its steps. Parsing is what workers do for the largest batch before they load
its data.
"""

import argparse
import gzip
import json
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.record import Run, Table, panels
from summarymix.cli import above_zero
from summarymix.data.config import DataConfig
from summarymix.data.index import COLUMNS, TOKEN_COLUMNS
from summarymix.data.manifests import cuts_path
from summarymix.data.tokens import Tokenizer
from summarymix.data.training_data import TrainData
from summarymix.encoder.subsampling import output_lengths
from summarymix.training.usage import process_memory


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    parser.add_argument("--cuts", type=above_zero(int), nargs="+", default=[100_000], help="numbers of cuts (100000)")
    parser.add_argument(
        "--ranks", type=above_zero(int), nargs="+", default=[1, 8, 32], help="numbers of processes (1 8 32)"
    )
    parser.set_defaults(threads=1)
    parser.add_argument("--max-duration", type=float, default=600, help="seconds of audio in a batch (600)")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Measure each number of cuts."""
    figures = []
    for count in args.cuts:
        with tempfile.TemporaryDirectory() as folder:
            figures.append(measure_corpus(Path(folder), count, args.ranks, args.max_duration))
    return {"figures": figures}


def measure_corpus(folder: Path, count: int, ranks: list[int], max_duration: float) -> dict[str, Any]:
    """Measure one generated corpus."""
    tokenizer = generate(folder, count)

    def start(max_duration: float) -> TrainData:
        config = DataConfig(prefix="synthetic", manifest_dir=str(folder), max_duration=max_duration)
        return TrainData(config, tokenizer, output_lengths, 0, folder / "skipped.tsv")

    index_seconds, _ = timed(lambda: start(max_duration))
    before = process_memory("RssAnon")
    start_seconds, data = timed(lambda: start(max_duration))
    epoch_seconds, _ = timed(lambda: next(data.tasks(1)))
    largest = max(data.tasks(1), key=lambda task: len(task.utterances))
    parse_seconds, _ = timed(lambda: data._loader.cuts(largest))
    steps = {}
    for world_size in ranks:
        data._plan = None
        seconds, tasks = timed(lambda size=world_size: list(data.tasks(1, 0, size)))
        steps[world_size] = seconds / len(tasks)
        del tasks
    own_bytes = process_memory("RssAnon") - before
    done = data.done(1, ranks[-1], len(data._plan[1].batches) // 2) if data._plan else None
    resume_seconds, resumed = timed(lambda: start(max_duration / 2))
    plan_seconds, _ = timed(lambda: next(resumed.tasks(1, 0, ranks[-1], 0, done)))
    return {
        "cuts": count,
        "index_seconds": index_seconds,
        "start_seconds": start_seconds,
        "epoch_seconds": epoch_seconds,
        "parse_seconds": parse_seconds,
        "resume_seconds": resume_seconds + plan_seconds,
        "step_seconds": steps,
        "shared_bytes_per_cut": 8 + sum(np.dtype(kind).itemsize for kind in (COLUMNS | TOKEN_COLUMNS).values()),
        "own_bytes_per_cut": own_bytes / count,
    }


def generate(folder: Path, count: int) -> Tokenizer:
    """Write a manifest of cuts with features, of 0.5 to 20 s, and train tokens on its words."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(2000)]
    with gzip.open(cuts_path(folder, "synthetic", "train"), "wt", compresslevel=1) as file:
        for number in range(count):
            seconds = round(min(max(rng.lognormvariate(1.3, 0.5), 0.5), 19.9), 2)
            text = " ".join(rng.choices(words, k=max(int(1.5 * seconds), 1)))
            json.dump(cut(f"{number:010d}", seconds, text), file)
            file.write("\n")
    return Tokenizer.train([" ".join(words)] * 3, 500)


def cut(name: str, seconds: float, text: str) -> dict[str, Any]:
    """A line of a manifest, as compute_fbank.py writes it."""
    span = {"start": 0.0, "duration": seconds}
    features = {"type": "fbank", "num_frames": round(100 * seconds), "num_features": 80, "frame_shift": 0.01}
    storage = {"storage_type": "numpy_files", "storage_path": "data/fbank/feats", "storage_key": f"{name[:3]}/{name}"}
    source = {"type": "file", "channels": [0], "source": f"download/corpus/{name}.flac"}
    samples = {"sampling_rate": 16000, "num_samples": round(16000 * seconds), "duration": seconds, "channel_ids": [0]}
    return {
        "id": name,
        "channel": 0,
        "supervisions": [{"id": name, "recording_id": name, "channel": 0, "text": text, "speaker": "x", **span}],
        "features": features | span | storage | {"sampling_rate": 16000, "channels": 0},
        "recording": {"id": name, "sources": [source], **samples},
        "type": "MonoCut",
        **span,
    }


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Call a function: seconds and result."""
    begin = time.perf_counter()
    result = function()
    return time.perf_counter() - begin, result


def tables(run: Run) -> list[Table]:
    """Table with a row for each number of cuts."""
    settings, figures = run["settings"], run["results"]["figures"]
    ranks = settings["ranks"]
    header = ["cuts", "index s", "start s", "epoch s", "resume s", *(f"step, {n} ranks, ms" for n in ranks)]
    header += ["parsing ms", "bytes a cut, shared", "own"]
    rows = []
    for result in figures:
        steps = {int(name): 1000 * seconds for name, seconds in result["step_seconds"].items()}
        seconds = [result[f"{name}_seconds"] for name in ("index", "start", "epoch", "resume")]
        rows.append(
            [f"{result['cuts']:,}", *(f"{value:.2f}" for value in seconds), *(f"{steps[n]:.2f}" for n in ranks)]
        )
        rows[-1] += [f"{1000 * result['parse_seconds']:.0f}", str(result["shared_bytes_per_cut"])]
        rows[-1].append(f"{result['own_bytes_per_cut']:.0f}")
    return [Table(f"Training data, batches of {settings['max_duration']:g} s", header, rows, [])]


def plots(run: Run) -> dict[str, Figure]:
    """Plot of the times against the number of cuts."""
    figure, (axes,) = panels(1, "Training data")
    figures = run["results"]["figures"]
    for name in ("start", "epoch", "resume"):
        axes.plot(
            [result["cuts"] for result in figures], [result[f"{name}_seconds"] for result in figures], "o-", label=name
        )
    axes.set_xlabel("cuts")
    axes.set_ylabel("seconds")
    axes.legend()
    return {"time": figure}
