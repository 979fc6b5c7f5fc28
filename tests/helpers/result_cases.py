"""Made-up results and experiments for tests of tables and reports."""

import json
from pathlib import Path

from summarymix.scoring.results import Result, append_result


def make_result(**changes: object) -> Result:
    """Make a streaming result on test, with some fields changed."""
    fields: dict[str, object] = {
        "recipe": "mini", "split": "test", "mode": "streaming", "method": "greedy_search", "chunk_ms": 640,
        "left_chunks": 2, "epoch": 3, "avg": 1, "wer": 1.25, "words": 400, "insertions": 1, "deletions": 2,
        "substitutions": 2, "utterances": 50, "skipped": 0, "rtf": 0.01, "parameters": 3_000_000, "commit": "abc",
        "seconds": 100.0, "latency_ms": 677.5, "state_bytes": 2048, "num_streams": 8, "threads": 1, "device": "cpu",
        "recogs": "recogs.txt", "errs": "errs.txt",
    }  # fmt: skip
    return Result(**(fields | changes))  # type: ignore[arg-type]


def write_experiment(exp_dir: Path, wers: list[tuple[str, int | None, float]], seed: int = 42) -> Path:
    """Write the folder of a training resumed once and decoded, with a result for each (mode, chunk_ms, WER)."""
    for mode, chunk_ms, wer in wers:
        left = -1 if chunk_ms is None else 2
        result = make_result(mode=mode, chunk_ms=chunk_ms, left_chunks=left, wer=wer, substitutions=int(4 * wer))
        append_result(exp_dir / "results.jsonl", result)
    command = f"train.py --exp-dir {exp_dir.name} --seed {seed}"
    cost = {"kind": "cost", "wall_seconds": 100.0, "cpu_seconds": 90.0 + seed, "peak_memory": 500_000_000}
    log = [
        {"kind": "start", "step": 0, "command": command},
        cost | {"step": 70, "epoch": 1, "cpu_seconds": 60.0, "peak_memory": 600_000_000},
        {"kind": "epoch", "step": 70, "epoch": 1},
        {"kind": "start", "step": 70, "command": command, "threads": 2},
        {"kind": "epoch", "step": 140, "epoch": 2},
        {"kind": "valid", "step": 70, "epoch": 1, "setting": "offline", "pruned": 9.0},
        {"kind": "valid", "step": 140, "epoch": 2, "setting": "offline", "pruned": 0.125},
        {"kind": "valid", "step": 140, "epoch": 2, "setting": "640ms", "pruned": 0.25},
        cost | {"step": 140, "epoch": 2},
    ]
    (exp_dir / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    (exp_dir / "config.yaml").write_text(f"seed: {seed}\n")
    choice = {"epoch": 3, "avg": 1, "splits": ["dev"], "command": "./decode.py --select", "tried": [{}, {}]}
    (exp_dir / "selected.json").write_text(json.dumps(choice))
    return exp_dir
