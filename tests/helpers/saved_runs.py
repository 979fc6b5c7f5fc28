"""Runs and corpora on disk, for tests of the programs that read them."""

from pathlib import Path

import numpy as np
import soundfile
from lhotse import MonoCut, Recording, SupervisionSegment

from summarymix.configs import plain
from summarymix.data.tokens import Tokenizer
from summarymix.model import Transducer
from summarymix.runs import epoch_path, save_checkpoint
from summarymix.training.averaging import RunningMean
from summarymix.training.checkpoint import Progress
from summarymix.training.config import TrainConfig


def save_epoch(
    exp_dir: Path, epoch: int, model: Transducer, average: RunningMean, tokenizer: Tokenizer, config: TrainConfig
) -> None:
    """Save the checkpoint of an epoch of the recipe mini; adds the model's weights to ``average``."""
    average.update(model)
    checkpoint = {
        "model": model.state_dict(),
        "model_avg": average.state_dict(),
        "model_config": plain(model.config),
        "tokens": tokenizer.state(),
        "progress": vars(Progress(epoch=epoch + 1)),  # at the start of the next epoch
        "history": {},
        "config": plain(config),
        "recipe": "mini",
    }
    save_checkpoint(epoch_path(exp_dir, epoch), checkpoint)


def write_cut(path: Path, samples: np.ndarray, text: str) -> MonoCut:
    """Write samples (n,) at 16 kHz, and make their cut: cut-N for a file N.wav."""
    soundfile.write(path, samples, 16000)
    recording = Recording.from_file(path, recording_id=f"rec-{path.stem}")
    supervision = SupervisionSegment(f"sup-{path.stem}", recording.id, 0, recording.duration, text=text)
    return MonoCut(f"cut-{path.stem}", 0, recording.duration, 0, recording=recording, supervisions=[supervision])
