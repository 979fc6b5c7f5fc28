"""The command line of every recipe's ``train.py``."""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from summarymix.cli import clear_errors, parse_config
from summarymix.configs import what_became_of
from summarymix.data.evaluation_data import EvalData
from summarymix.data.skipped import list_of_process, remove_other_lists
from summarymix.data.tokens import Tokenizer
from summarymix.data.training_data import TrainData
from summarymix.distributed import World, join_world
from summarymix.encoder.subsampling import output_lengths
from summarymix.model import Transducer
from summarymix.seeding import reseed
from summarymix.training.bad_steps import unreadable_notice
from summarymix.training.config import TrainConfig
from summarymix.training.lock import lock_folder
from summarymix.training.loop import train
from summarymix.training.run import Run

DEFAULT_CONFIG = Path("conf/conformer.yaml")


def main(recipe: str, argv: Sequence[str] | None = None) -> None:
    """Train a model from the command line, in the recipe's folder.

    Without ``--config`` the recipe's ``conf/conformer.yaml`` is read. Under torchrun all processes train one model::

        torchrun --nproc-per-node 4 train.py [options]        the GPUs of this machine
        torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint HOST:29400 train.py [options]

    Run the second command on every machine, in a folder that all of them share; HOST is one of them.

    Args:
        recipe: name of the corpus.
        argv: arguments without the program's name; None takes the process's own.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not any(argument.split("=")[0] == "--config" for argument in arguments):
        if not DEFAULT_CONFIG.is_file():
            sys.exit(f"No {DEFAULT_CONFIG} in {Path.cwd()}: run train.py in a recipe's folder, or give --config FILE")
        arguments = ["--config", str(DEFAULT_CONFIG), *arguments]
    config = parse_config(TrainConfig, arguments, f"Train a model with the recipe {recipe}.", what_became_of)

    with (
        clear_errors("train.py"),
        join_world() as world,
        lock_folder(config.exp_dir) if world.is_main else nullcontext(),
    ):
        tokenizer = Tokenizer.from_lang_dir(config.data.lang_dir)
        reseed(config.seed, "weights")
        if config.model.vocab_size not in (0, tokenizer.vocab_size):
            raise ValueError(
                f"--model.vocab_size {config.model.vocab_size} differs from the {tokenizer.vocab_size} tokens of "
                f"{config.data.lang_dir}/tokens.txt: leave it out, or correct --data.lang_dir"
            )
        model = Transducer(replace(config.model, vocab_size=tokenizer.vocab_size))
        skipped_path = config.exp_dir / "skipped.tsv"
        train_data = TrainData(config.data, tokenizer, output_lengths, config.seed, skipped_path, world.is_main)
        dev_data = {split: _open_dev(config, split, tokenizer, world) for split in config.data.dev_splits()}
        if world.is_main:
            parameters = sum(parameter.numel() for parameter in model.parameters())
            print(
                f"{recipe}: {parameters / 1e6:.1f} M parameters, {world.size} process(es) on {world.device.type}, "
                f"{train_data.num_cuts} utterances ({train_data.total_seconds / 3600:.2f} hours), "
                f"{config.data.noise.summary()}, {config.data.silence.summary()}",
                file=sys.stderr,
            )
            if config.data.corpora:
                hours = ", ".join(f"{split} {seconds / 3600:.2f}" for split, seconds in train_data.seconds.items())
                print(f"Hours of an epoch by split: {hours}", file=sys.stderr)
            if train_data.skipped:
                reasons = ", ".join(f"{count} {reason}" for reason, count in train_data.skipped.items())
                print(f"Left out of training: {reasons}; listed in {skipped_path}", file=sys.stderr)
        progress = train(Run(config, model, tokenizer, train_data, dev_data, world, recipe))
        if world.is_main:
            notice = unreadable_notice(progress, config.exp_dir)
            print(
                f"Training has ended after {progress.step} steps; {progress.skipped} more steps were skipped and "
                f"{progress.left_out} utterances left out for their loss. {notice and f'Last epoch: {notice}. '}"
                f"Checkpoints and logs are in {config.exp_dir}",
                file=sys.stderr,
            )


def _open_dev(config: TrainConfig, split: str, tokenizer: Tokenizer, world: World) -> EvalData:
    """Open this process's share of a dev split; list what is left out of it."""
    path = config.exp_dir / f"skipped-{split}.tsv"
    listing = list_of_process(path, world.rank, world.size)
    if world.is_main:
        remove_other_lists(path, world.size)
    data = EvalData(
        config.data,
        tokenizer,
        split,
        output_lengths,
        for_loss=True,
        rank=world.rank,
        world_size=world.size,
        listing=listing,
    )
    if data.skipped and world.is_main:
        print(f"Validation on {split} {data.skipped_items.summary()}; listed in {listing}", file=sys.stderr)
    return data
