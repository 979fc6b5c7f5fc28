"""A small corpus of noise, checkpoints of a random model for it, and decode.py on them."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from saved_runs import save_epoch, write_cut

from summarymix.blocks.mixing import MixingConfig
from summarymix.data.config import DataConfig
from summarymix.data.manifests import cuts_path, read_cuts, write_manifest
from summarymix.data.tokens import Tokenizer
from summarymix.decoding.cli import main
from summarymix.encoder.conformer import ConformerConfig
from summarymix.model import ModelConfig, Transducer
from summarymix.scoring.errors import read_recogs
from summarymix.scoring.results import Result, read_results
from summarymix.training.averaging import RunningMean
from summarymix.training.config import TrainConfig

WORDS = ["one", "two", "three", "four", "stop"]


def make_corpus(folder: Path) -> None:
    """Write twelve recordings of noise as two splits; one is truncated, one too short, one without words."""
    rng = np.random.default_rng(0)
    cuts = []
    for i in range(12):
        seconds = 0.02 if i == 3 else float(rng.uniform(0.3, 2.5))
        path = folder / f"{i}.wav"
        samples = rng.normal(0, 0.1, int(16000 * seconds)).clip(-1, 1)
        cuts.append(write_cut(path, samples, "" if i == 5 else " ".join(rng.choice(WORDS, 4))))
        if i == 7:
            path.write_bytes(path.read_bytes()[:100])
    for split in ("dev", "test"):
        write_manifest(cuts, cuts_path(folder, "mini", split))


def make_run(corpus: Path, mixing: str) -> Path:
    """Save a run of two epochs of an untrained model that emits tokens."""
    torch.manual_seed(1)
    tokenizer = Tokenizer.train([" ".join(pair) for pair in product(WORDS, WORDS)], 40, "char")
    config = TrainConfig(
        exp_dir=corpus / f"exp-{mixing}",
        model=ModelConfig(
            conformer=ConformerConfig((4, 4), num_layers=2, dim=16, feedforward_dim=24, kernel_size=7, summary_dim=16),
            mixing=MixingConfig(mixing),
            predictor_dim=8,
            joiner_dim=12,
        ),
        data=DataConfig(manifest_dir=str(corpus), on_the_fly=True),
    )
    model = Transducer(replace(config.model, vocab_size=tokenizer.vocab_size)).eval()
    model.set_feature_stats(torch.full((80,), -6.0), torch.full((80,), 3.0))
    average = RunningMean(model)
    for epoch in (1, 2):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
            model.joiner.encoder_proj.weight.mul_(3)
            model.joiner.out.bias[:2] = -1.0
        save_epoch(config.exp_dir, epoch, model, average, tokenizer, config)
    return config.exp_dir


def decode(exp_dir: Path, options: str) -> list[Result]:
    main("mini", ["--exp-dir", str(exp_dir), "--device", "cpu", *options.split()])
    return read_results(exp_dir / "results.jsonl")


def sparse(talkative: Path, folder: Path) -> Path:
    """Save a run whose model emits words and pauses, so that its transcripts are no longer than the audio."""
    checkpoint = torch.load(talkative / "epoch-2.pt", weights_only=False)
    pieces = checkpoint["tokens"]["tokens"]
    space, often = pieces.index("▁"), pieces.index("t")
    for name in ("joiner.out.weight", "joiner.out.bias"):
        rows = checkpoint["model"][name]
        rows[[space, often]] = rows[[often, space]]
    checkpoint["model"]["joiner.out.bias"][0] += 3.3
    folder.mkdir()
    torch.save(checkpoint, folder / "epoch-2.pt")
    return folder


def write_as_transcripts(recogs: Path, corpus_dir: Path, folder: Path) -> None:
    """Write the test split's manifest into ``folder``, with the recognised words as transcripts."""
    texts = {u.cut_id: " ".join(u.hyp) for u in read_recogs(recogs)}
    cuts = []
    for cut in read_cuts(cuts_path(corpus_dir, "mini", "test")):
        cut.supervisions[0].text = texts.get(cut.id, "")
        cuts.append(cut)
    write_manifest(cuts, cuts_path(folder, "mini", "test"))
