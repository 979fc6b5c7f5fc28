"""A tiny corpus of noise with transcripts, prepared by the same code as any."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tables import prepare_table

from summarymix.data.extraction import ExtractionOptions, extract_split
from summarymix.data.tokens import Tokenizer

WORDS = ["ONE", "TWO", "THREE", "STOP", "LIGHT"]


@pytest.fixture
def make_corpus(tmp_path: Path):
    """Returns a function that writes ``count`` audio files and a table: (table, audio folder)."""

    def make(count: int = 40, seed: int = 0) -> tuple[Path, Path]:
        rng = np.random.default_rng(seed)
        audio_dir = tmp_path / "audio"
        audio_dir.mkdir(exist_ok=True)
        lines = ["audio\ttext\tid\tspeaker\tsplit"]
        for i in range(count):
            samples = rng.standard_normal(int(16000 * rng.uniform(0.8, 3.0))) * 0.1
            soundfile.write(audio_dir / f"u{i}.flac", samples, 16000)
            text = " ".join(rng.choice(WORDS, rng.integers(1, 4)))
            lines.append(f"u{i}.flac\t{text}\tu{i}\ts{i % 4}\ttrain")
        table = tmp_path / "table.tsv"
        table.write_text("\n".join(lines) + "\n")
        return table, audio_dir

    return make


@pytest.fixture
def prepare(tmp_path: Path, make_corpus):
    """Returns a function that prepares such a corpus with features: the folder of its cuts."""

    def run(count: int = 40, storage: str = "numpy_files", speeds: tuple[float, ...] = ()) -> Path:
        table, audio_dir = make_corpus(count)
        prepare_table(table, audio_dir, "tiny", tmp_path / "manifests")
        options = ExtractionOptions(storage=storage, speeds=speeds, shard_size=16)
        with ThreadPoolExecutor(1) as executor:
            extract_split(tmp_path / "manifests", tmp_path / "fbank", "tiny", "train", options, executor)
        return tmp_path / "fbank"

    return run


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([" ".join(WORDS)] * 3, 100, "char")
