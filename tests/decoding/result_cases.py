"""Made-up results for tests of tables and reports."""

from summarymix.decoding.results import Result


def make_result(**changes: object) -> Result:
    """A streaming result on test, with some fields changed."""
    fields: dict[str, object] = {
        "recipe": "mini", "split": "test", "mode": "streaming", "method": "greedy_search", "chunk_ms": 640,
        "left_chunks": 2, "epoch": 3, "avg": 1, "wer": 1.25, "words": 400, "insertions": 1, "deletions": 2,
        "substitutions": 2, "utterances": 50, "skipped": 0, "rtf": 0.01, "parameters": 3_000_000, "commit": "abc",
        "seconds": 100.0, "latency_ms": 677.5, "state_bytes": 2048, "num_streams": 8, "threads": 1, "device": "cpu",
        "recogs": "recogs.txt", "errs": "errs.txt",
    }  # fmt: skip
    return Result(**(fields | changes))  # type: ignore[arg-type]
