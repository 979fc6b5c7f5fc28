"""A server of ``summarymix serve`` with many clients that speak in real time: latency, load and memory.

    cd egs/mini/ASR
    python ../../../tools/benchmark.py serve --model exp --audio download/mini/test/*/*.flac --clients 50 --minutes 2

Each client sends one recording after another, each in a connection of its own, as fast as it was spoken. The latency is
the time from the end of the audio to the end of the results. Every text is compared with that of a stream alone.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from importlib import import_module
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import summarymix
from benchmarks.record import Run, Table, panels
from summarymix.cli import above_zero
from summarymix.data.audio import AudioReader

SERVER = "from summarymix.command import main; main()"
TICKS = os.sysconf("SC_CLK_TCK")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    option = parser.add_argument
    option("--model", type=Path, required=True, help="folder of a training run or of export.py")
    option("--audio", type=Path, nargs="+", required=True, help="recordings")
    option("--clients", type=above_zero(int), default=50, help="clients at a time (50)")
    option("--minutes", type=float, default=1.0, help="time in which recordings begin (1)")
    option("--chunk-ms", type=int, help="chunk size (the server's default)")
    option("--lookahead-ms", type=int, help="look-ahead (the server's default)")
    option("--message-ms", type=above_zero(int), default=100, help="audio in a message (100)")
    option("--threads", type=above_zero(int), default=1, help="CPU threads of the server (1)")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Start a server, and measure it."""
    import_module("summarymix.serving.server")  # without aiohttp, the error names the remedy
    recognizer = summarymix.load(args.model, device="cpu")
    rate = recognizer.extractor.options.sample_rate
    recordings = []
    for path in args.audio:
        samples = np.concatenate([block.numpy() for block in AudioReader(path).blocks(rate)])
        stream = recognizer.stream(None, args.chunk_ms, None, args.lookahead_ms)
        recordings.append((samples, [one.text for one in stream.accept(samples) + stream.finish()]))
    given = {"--chunk-ms": args.chunk_ms, "--lookahead-ms": args.lookahead_ms, "--max-clients": args.clients}
    options = [text for name, value in given.items() if value is not None for text in (name, str(value))]
    environment = os.environ | {"OMP_NUM_THREADS": str(args.threads)}
    command = [sys.executable, "-c", SERVER, "serve", str(args.model), "--device", "cpu", "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            assert server.stdout is not None
            words = server.stdout.readline().split()
            if not words:
                raise ValueError("the server did not start, for the reason above")
            url = words[-1]
            return asyncio.run(_talk(url, server.pid, recordings, rate, args))
        finally:
            server.terminate()


async def _talk(url: str, pid: int, recordings: list, rate: int, args: argparse.Namespace) -> dict[str, Any]:
    import aiohttp

    latencies: list[float] = []
    memory: list[tuple[float, float]] = []  # seconds, MB
    different = 0
    following = cycle(recordings)
    block = rate * args.message_ms // 1000
    start = time.perf_counter()

    async def client(session: Any, delay: float) -> None:
        nonlocal different
        await asyncio.sleep(delay)
        while time.perf_counter() - start < 60 * args.minutes:
            samples, expected = next(following)
            async with session.ws_connect(url) as socket:
                texts = asyncio.create_task(_texts(socket))
                begin = time.perf_counter()
                for first in range(0, len(samples), block):
                    part = samples[first : first + block]
                    await asyncio.sleep(begin + (first + len(part)) / rate - time.perf_counter())
                    await socket.send_bytes(part.astype("<f4").tobytes())
                end = time.perf_counter()
                await socket.send_str("Done")
                found = await texts  # before the count is read, which other clients change meanwhile
                different += found != expected
                latencies.append(time.perf_counter() - end)

    async def watch() -> None:
        while True:
            memory.append((time.perf_counter() - start, _resident_mb(pid)))
            await asyncio.sleep(1)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        watching = asyncio.create_task(watch())
        cpu = _cpu_seconds(pid)
        await asyncio.gather(*(client(session, i * args.message_ms / 1000 / args.clients) for i in range(args.clients)))
        seconds = time.perf_counter() - start
        watching.cancel()
        async with session.get(url + "/status") as response:
            status = await response.json()
    return {
        "seconds": seconds,
        "latencies": latencies,
        "different": different,
        "audio_seconds": status["audio_seconds"],
        "busy": status["busy_seconds"] / seconds,
        "cpu": (_cpu_seconds(pid) - cpu) / seconds,
        "memory_mb": memory,
    }


async def _texts(socket: Any) -> list[str]:
    """Final texts of a stream."""
    found = []
    async for message in socket:
        if message.data == "Done!":
            return found
        result = json.loads(message.data)
        if result.get("is_final"):
            found.append(result["text"])
    raise ConnectionError("the server has closed the connection before the end")


def _cpu_seconds(pid: int) -> float:
    values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(values[11]) + int(values[12])) / TICKS


def _resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def tables(run: Run) -> list[Table]:
    """Table of the measurement."""
    settings, results = run["settings"], run["results"]
    memory = [megabytes for _, megabytes in results["memory_mb"]]
    row = [
        f"{len(results['latencies'])}",
        f"{results['different']}",
        *(f"{1000 * value:.0f}" for value in np.percentile(results["latencies"], [50, 95, 99])),
        f"{100 * results['cpu']:.0f} %",
        f"{100 * results['busy']:.0f} %",
        f"{memory[0]:.0f}, {memory[len(memory) // 2]:.0f}, {memory[-1]:.0f}",
    ]
    title = f"Server: {settings['clients']} clients in real time, {results['seconds']:.0f} s"
    header = ["streams", "other text", "p50 ms", "p95 ms", "p99 ms", "CPU", "computing", "memory MB"]
    note = (
        "Latency from the end of the audio to the end of the results; CPU is the share of one core; computing is the "
        "share of the time, in which other programs may hold the core; memory at the start, in the middle, at the end."
    )
    return [Table(title, header, [row], [note])]


def plots(run: Run) -> dict[str, Figure]:
    """Distribution of the latency, and memory over time."""
    results = run["results"]
    figure, (left, right) = panels(2, f"Server with {run['settings']['clients']} clients")
    latencies = np.sort(results["latencies"])
    left.plot(1000 * latencies, np.arange(1, len(latencies) + 1) / len(latencies))
    left.set(xlabel="latency, ms", ylabel="share of streams", xlim=(0, None), ylim=(0, 1))
    right.plot(*zip(*results["memory_mb"], strict=True))
    right.set(xlabel="seconds", ylabel="memory, MB", ylim=(0, None))
    return {"clients": figure}
