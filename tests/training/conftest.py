"""A recipe whose corpus is a handful of tones."""

import random
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment

from summarymix.data.tokens import Tokenizer

SIZES = {"num_layers": 1, "dim": 16, "feedforward_dim": 32, "summary_dim": 16}
MODEL = {"conformer": SIZES, "predictor_dim": 16, "joiner_dim": 16}


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe's folder: tones as audio, one file cut off, one transcript empty; the configuration in its place."""
    rng = random.Random(0)
    for folder in ("audio", "conf", "data/fbank"):
        Path(tmp_path, folder).mkdir(parents=True)
    for split, count in [("train", 12), ("dev", 4)]:
        cuts = []
        for i in range(count):
            name, text = f"{split}-{i}", " ".join(rng.choices("ab", k=3))
            seconds = rng.uniform(0.8, 1.6)
            tone = np.sin(np.arange(int(16000 * seconds)) * rng.uniform(0.05, 1.0)) * 0.3
            path = tmp_path / "audio" / f"{name}.wav"
            soundfile.write(path, tone, 16000)
            recording = Recording.from_file(path)
            text = "" if name == "train-3" else text
            supervision = SupervisionSegment(name, name, 0.0, recording.duration, text=text)
            cuts.append(MonoCut(name, 0.0, recording.duration, 0, [supervision], recording=recording))
            if name == "train-5":
                path.write_bytes(path.read_bytes()[:30])
        CutSet.from_cuts(cuts).to_file(tmp_path / "data" / "fbank" / f"toy_cuts_{split}.jsonl.gz")
    Tokenizer.train(["a b"], 10, "char").write(tmp_path / "data" / "lang")
    config = {
        "num_epochs": 2,
        "model": MODEL,
        "data": {"prefix": "toy", "on_the_fly": True, "max_duration": 4, "num_workers": 1},
        "average_period": 1,
        "tensorboard": False,
    }
    Path(tmp_path, "conf", "conformer.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    return tmp_path
