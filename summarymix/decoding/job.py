"""A model with its search and its data, and decoding of a split by all processes: for decoding and for selection."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from summarymix.cli import progress_bar, say
from summarymix.data.config import DataConfig
from summarymix.data.evaluation_data import EvalData
from summarymix.data.tokens import Tokenizer
from summarymix.decoding.evaluate import Decoded, DecodeSetting, decode_split, evaluation_data
from summarymix.decoding.exported import exported_label
from summarymix.decoding.search import Search
from summarymix.distributed import World
from summarymix.encoder.subsampling import output_lengths
from summarymix.export.onnx_transducer import OnnxTransducer
from summarymix.model import Transducer
from summarymix.runs import model_digest


@dataclass
class DecodeJob:
    """Everything needed to decode.

    Args:
        digest: digest of the model.
        exported: model of ``search`` if that was exported.
    """

    recipe: str
    world: World
    args: argparse.Namespace
    tokenizer: Tokenizer
    info: dict[str, Any]
    digest: str
    data: DataConfig
    search: Search
    exported: OnnxTransducer | None

    @property
    def method(self) -> str:
        """Name of the search in results, and of the folder of its reports."""
        return self.args.method + ("" if self.exported is None else exported_label(self.exported.precision))


def prepare(
    recipe: str,
    world: World,
    args: argparse.Namespace,
    settings: list[DecodeSetting],
    run: tuple[Transducer, Tokenizer, dict[str, Any]],
    exported: OnnxTransducer | None = None,
) -> DecodeJob:
    """Make a job of what :func:`summarymix.runs.load_model` returns, or with the same run's exported model.

    Raises:
        ValueError, OSError: the model cannot stream with these settings, an option of the search is wrong, or the
            exported model is another one.
    """
    model, tokenizer, info = run
    digest = model_digest(model, tokenizer)
    if exported is not None and exported.digest not in (None, digest):
        raise ValueError(
            f"{args.onnx} is not an export of {args.exp_dir}, epoch {info['epoch']}, avg {info['avg']}: its weights or "
            "tokens are others. Give its --exp-dir, or export again"
        )
    config = evaluation_data(info["config"]["data"], args.manifest_dir)
    args.search.check_lattice(info["config"]["loss"]["rnnt_type"])
    for setting in settings:
        model.encoder.check_chunk(setting.chunk)
        if setting.mode == "streaming":
            model.encoder.init_state(1, setting.chunk)  # fail before hours of decoding in other modes
    # TensorFloat-32 keeps three digits: rounding would exceed TIE.
    torch.backends.cudnn.allow_tf32 = False
    if exported is None:
        model.to(world.device)
    search = args.search.build(exported or model, tokenizer, record_margins=args.compare)
    if any(setting.mode == "streaming" for setting in settings):
        search.check_streaming()
    return DecodeJob(recipe, world, args, tokenizer, info, digest, config, search, exported)


def open_split(job: DecodeJob, split: str) -> EvalData:
    """Open this process's share of a split."""
    limit, world = job.args.max_duration, job.world
    return EvalData(job.data, job.tokenizer, split, output_lengths, limit, rank=world.rank, world_size=world.size)


def decode_together(job: DecodeJob, setting: DecodeSetting, split: str, data: EvalData) -> Decoded:
    """Decode this process's share of a split. Return the shares of all on the main process, elsewhere nothing."""
    with progress_bar(
        desc=f"{split}, {setting.name}",
        total=round(data.total_seconds / job.world.size),
        bar_format="{desc} {percentage:3.0f}%|{bar:20}| {elapsed}<{remaining}",
        disable=not job.world.is_main,
    ) as bar:
        nbest = job.args.search.nbest
        decoded = decode_split(
            job.search, setting, data, job.args.num_streams, nbest, bar.update, tokenizer=job.tokenizer
        )
    decoded.skipped = list(data.skipped_items.items)
    decoded = decoded.gathered(job.world)
    if job.world.is_main and decoded.skipped and not decoded.hypotheses:
        item = decoded.skipped[0]
        raise OSError(f"{split}: no utterance could be read, for example {item.id}: {item.reason} {item.detail}")
    return decoded


def check_writable(*paths: Path) -> None:
    """Check before hours of work that files or folders, which need not exist yet, can be written.

    Raises:
        PermissionError: one cannot.
    """
    for path in paths:
        existing = next(one for one in (path, *path.absolute().parents) if one.exists())
        if not os.access(existing, os.W_OK):
            raise PermissionError(f"{existing} cannot be written by this user: give --exp-dir a copy")


def say_once(world: World, text: str) -> None:
    """Print a line on stderr, once for all processes."""
    if world.is_main:
        say(text)
