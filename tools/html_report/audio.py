"""Audio of utterances for the page: where their cuts are, which ones are embedded, and how."""

import base64
import io
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import yaml
from lhotse.cut import Cut

from summarymix.configs import upgraded
from summarymix.data.config import CorpusConfig, DataConfig
from summarymix.decoding.evaluate import evaluation_data

SAMPLE_RATE = 16000
LONGEST = 120.0
"""Seconds of the longest utterance that gets audio."""


def open_cuts(exp_dir: Path, split: str, manifest_dir: str | None = None) -> dict[str, Cut]:
    """The cuts of a split of an experiment by id, from the manifests in its ``config.yaml``.

    Relative paths begin in the recipe's folder, the nearest one above ``exp_dir`` with the manifests; or else in the
    current folder.

    Raises:
        FileNotFoundError: config.yaml or the manifest is missing.
        ValueError: the experiment has no such split.
    """
    config = upgraded(yaml.safe_load((exp_dir / "config.yaml").read_text(encoding="utf-8")))
    data = evaluation_data(config["data"], manifest_dir)
    folders = [*exp_dir.absolute().parents, Path()]
    found = (moved for folder in folders if Path((moved := _moved(data, folder)).location_of(split)).is_file())
    corpus, name = next(found, data).find(split)
    return {cut.id: cut for cut in corpus.source(name, "recording")}


def _moved(data: DataConfig, folder: Path) -> DataConfig:
    """The configuration with the paths of its corpora beginning in ``folder``."""

    def dir_of(corpus: CorpusConfig) -> str:
        return str(folder / corpus.dir)

    return replace(data, dir=dir_of(data), corpora=[replace(one, dir=dir_of(one)) for one in data.corpora])


def choose(errors: Mapping[str, int], cuts: Mapping[str, Cut], number: int) -> list[str]:
    """Choose utterances for listening: ``number`` with the most errors, and as many of the others at random.

    Args:
        errors: numbers of errors by cut id.
        cuts: cuts by id; an utterance without a cut, or above :data:`LONGEST`, is not chosen.
        number: number of utterances of each kind.
    """
    short = [cut_id for cut_id in errors if cut_id in cuts and cuts[cut_id].duration <= LONGEST]
    worst_first = sorted(short, key=lambda cut_id: (-errors[cut_id], cut_id))
    others = worst_first[number:]
    return worst_first[:number] + random.Random(0).sample(others, min(number, len(others)))


def encode(cut: Cut) -> str:
    """The audio of a cut as Ogg/Opus in base64: 4 kB a second, of the exact length, played by all current browsers."""
    samples = cut.resample(SAMPLE_RATE).load_audio()[:1]  # (1, n)
    file = io.BytesIO()
    with av.open(file, "w", format="ogg") as container:
        # FFmpeg's level 5 takes a third of the time of libsndfile's.
        stream = container.add_stream("libopus", SAMPLE_RATE, layout="mono", options={"compression_level": "5"})
        stream.bit_rate = 24000
        integers = (samples.clip(-1, 1) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(integers, format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        for part in (frame, None):
            container.mux(stream.encode(part))
    return base64.b64encode(file.getvalue()).decode()
