"""Cuts a second that a process reads from Shar on a web server which is far away.

    python tools/benchmark.py shar --latency-ms 30 --json benchmark/shar.json

The server runs on this machine, and waits before it answers a request and before it accepts a connection. Batches of
random cuts are read in turns: one cut after another, each with a connection of its own; all cuts of a batch together,
as in training; and together from disk. A training has several such processes (--data.num_workers).
"""

import argparse
import multiprocessing
import random
import re
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from lhotse import MonoCut
from lhotse.cut import Cut
from lhotse.features.io import NumpyFilesWriter
from matplotlib.figure import Figure

from benchmarks.data import cut, timed
from benchmarks.record import Run, Table, panels
from summarymix.cli import above_zero
from summarymix.data.manifests import cuts_path, write_manifest
from summarymix.data.shar import Contents, export_split, place_in_shar, read_data, read_shar, with_data


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    parser.add_argument("--cuts", type=above_zero(int), default=400, help="number of cuts (400)")
    parser.add_argument("--seconds", type=float, default=4, help="duration of each cut (4)")
    parser.add_argument("--batch", type=above_zero(int), default=150, help="cuts in a batch (150)")
    parser.add_argument("--latency-ms", type=float, default=30, help="of a request, and of a connection (30)")
    parser.add_argument("--rounds", type=above_zero(int), default=5, help="batches of each way (5)")
    parser.set_defaults(threads=1)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Measure the ways in turns."""
    if args.batch > args.cuts:
        raise ValueError(f"--batch {args.batch} is more than --cuts {args.cuts}")
    figures: dict[str, list[float]] = {"one after another": [], "together": [], "disk": []}
    with tempfile.TemporaryDirectory() as folder:
        export(Path(folder), args.cuts, args.seconds)
        with serve(Path(folder), args.latency_ms / 1000) as url:
            far, near = (list(read_shar(f"{place}/shar", "synthetic", "train", "features")) for place in (url, folder))
            rng = random.Random(0)
            for _ in range(args.rounds):
                chosen = rng.sample(range(args.cuts), args.batch)
                remote, local = ([cuts[i] for i in chosen] for cuts in (far, near))
                for name, batch, read in (
                    ("one after another", remote, read_in_turn),
                    ("together", remote, read_data),
                    ("disk", local, read_data),
                ):
                    seconds, _ = timed(partial(load, batch, read))
                    figures[name].append(args.batch / seconds)
    return {"figures": figures}


def load(cuts: list[Cut], read: Callable[[Iterable[Cut]], Contents]) -> list[np.ndarray]:
    """Load the features of cuts."""
    contents = read(cuts)
    return [with_data(one, contents).load_features() for one in cuts]


def read_in_turn(cuts: Iterable[Cut]) -> Contents:
    """Read each cut with a request and a connection of its own."""
    contents = {}
    for place in filter(None, map(place_in_shar, cuts)):
        headers = {"Range": f"bytes={place.offset}-{place.offset + place.size - 1}"}
        with urllib.request.urlopen(urllib.request.Request(place.tar, headers=headers)) as response:
            contents[place] = response.read()
    return contents


def export(folder: Path, count: int, seconds: float) -> None:
    """Write cuts with random features as Shar."""
    rng = np.random.default_rng(0)
    cuts = []
    with NumpyFilesWriter(folder / "feats") as writer:
        for number in range(count):
            one = cut(f"{number:06d}", seconds, "word")
            features = rng.standard_normal((one["features"]["num_frames"], 80), dtype=np.float32)
            one["features"] |= {"storage_path": str(folder / "feats"), "storage_key": writer.write(one["id"], features)}
            cuts.append(MonoCut.from_dict(one))
    write_manifest(cuts, cuts_path(folder, "synthetic", "train"))
    with ThreadPoolExecutor(1) as executor:
        export_split(folder, "synthetic", "train", folder / "shar", {"features": "numpy"}, 100, executor)


@contextmanager
def serve(folder: Path, latency: float) -> Iterator[str]:
    """Serve a folder from another process and yield its URL."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(folder, latency, there), daemon=True)
    process.start()
    yield f"http://127.0.0.1:{here.recv()}"
    process.kill()
    process.join()


def _serve(folder: Path, latency: float, pipe: Connection) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            time.sleep(latency)
            super().setup()

        def do_GET(self) -> None:
            time.sleep(latency)
            with (folder / self.path.lstrip("/")).open("rb") as file:
                size = file.seek(0, 2)
                wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
                first, last = map(int, wanted.groups()) if wanted else (0, size - 1)
                file.seek(first)
                content = file.read(last + 1 - first)
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        pipe.send(server.server_port)
        server.serve_forever()


def tables(run: Run) -> list[Table]:
    """Table with a row for each way."""
    settings, figures = run["settings"], run["results"]["figures"]
    medians = {name: statistics.median(values) for name, values in figures.items()}
    rows = [[name, f"{value:.0f}", f"{value / medians['one after another']:.1f}"] for name, value in medians.items()]
    title = f"Shar, latency {settings['latency_ms']:g} ms, cuts of {settings['seconds']:g} s"
    return [Table(title, ["reading", "cuts a second", "ratio"], rows)]


def plots(run: Run) -> dict[str, Figure]:
    """Plot of the rates by batch."""
    figure, (axes,) = panels(1, "Shar on a web server")
    for name, values in run["results"]["figures"].items():
        axes.plot(range(1, len(values) + 1), values, "o-", label=name)
    axes.set_xlabel("batch")
    axes.set_ylabel("cuts a second")
    axes.set_yscale("log")
    axes.legend()
    return {"rate": figure}
