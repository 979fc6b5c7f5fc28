#!/usr/bin/env python3
"""Make a recipe for a corpus: egs/NAME/ASR, whose run.sh prepares, trains and decodes.

The corpus is a table of audio files and transcripts, Kaldi data folders, lhotse manifests, or one for which lhotse has
a recipe. This program opens the audio, reads the transcripts and reports problems. It chooses the sizes of model and
training by the hours of training data.

The table is a .tsv, .csv or .jsonl with the columns audio and text, and optionally
  id                id of the utterance (default: from the audio's name)
  speaker           keeps each speaker in one split
  split             train, dev or test; missing dev and test splits are taken from train
  start, duration   in seconds, for utterances inside longer recordings
  channel           from 0, for multi-channel audio
  language
"""

import argparse
import gzip
import json
import math
import os
import re
import shlex
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

try:
    from summarymix.cli import above_zero, clear_errors
except ModuleNotFoundError as missing:
    sys.exit(f"{missing}: activate this repository's environment first with `. tools/setup.sh`")
import numpy as np

from summarymix.data.corpus.base import Corpus, Utterance, skipped_path
from summarymix.data.corpus.lhotse_functions import list_recipes
from summarymix.data.corpus.lhotse_recipes import download_with_lhotse
from summarymix.data.corpus.options import CorpusSource, add_source_options, prepare_corpus, source_of
from summarymix.data.corpus.report import hours_by_rate
from summarymix.data.cut_filter import ctc_frames_needed
from summarymix.data.manifests import write_lines_packed
from summarymix.data.names import check_name, kind_of
from summarymix.encoder.subsampling import FEATURE_SECONDS, output_lengths
from summarymix.encoder.zipformer import ZipformerConfig
from summarymix.files import atomic_write, new_folder

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = Path(__file__).parent / "recipe_template"
# Listed by name, because editors and Python leave other files in the folder.
TEMPLATE_FILES = (
    "prepare.sh",
    "run.sh",
    "train.py",
    "decode.py",
    "transcribe.py",
    "export.py",
    "conf/conformer.yaml",
    "conf/zipformer.yaml",
    "conf/with_librispeech.yaml",
    "README.md",
)

# Zip-style encoders for below 20 h, below 200 h and more: sizes of egs/mini, and of icefall's Zipformer-S and M.
ZIPFORMERS = (
    ZipformerConfig(
        downsampling=(1, 2, 4, 2),
        num_layers=(1, 2, 2, 1),
        dims=(96, 128, 176, 128),
        feedforward_dims=(192, 256, 352, 256),
        kernel_sizes=(15, 15, 9, 15),
        summary_dims=(48, 64, 88, 64),
        num_heads=(4, 4, 4, 4),
        frontend_channels=(8, 16, 32),
    ),
    ZipformerConfig(
        num_layers=(2, 2, 2, 2, 2, 2),
        dims=(192, 256, 256, 256, 256, 256),
        feedforward_dims=(512, 768, 768, 768, 768, 768),
        summary_dims=(64, 64, 64, 64, 64, 64),
    ),
    ZipformerConfig(),
)

SPEEDS = (0.9, 1.0, 1.1)
VOCAB_SIZE = 500
MIN_WORDS_FOR_PIECES = 1000
MAX_CHARACTERS_FOR_PIECES = 200
TAIL_FRAMES = 32


def choose_sizes(hours: float, max_seconds: int) -> dict[str, str]:
    """Choose the sizes of model and training for ``hours`` of training data, the longest utterance of ``max_seconds``.

    | hours | layers x width | parameters | zip-style | batch | updates | modelled on |
    |---|---|---|---|---|---|---|
    | < 20 | 6 x 144 | 3 M | 3 M | 48 s | 8 000 | egs/speechocean762 (one view), the only one trained so far |
    | < 200 | 12 x 256 | 19 M | 23 M | 200 s | 40 000 | egs/librispeech, conformer_small.yaml |
    | more | 12 x 512 | 75 M | 66 M | 600 s | 100 000 | egs/librispeech, conformer.yaml |

    With little data the number of updates matters, so batches are small. The number of epochs follows from the updates,
    within 5 to 60 below 20 hours and 10 to 60 above.
    """
    seconds = 3600 * hours * sum(1 / speed for speed in SPEEDS)
    if hours < 20:
        layers, dim, joiner_dim, max_duration, updates, min_epochs = 6, 144, 144, 48, 8_000, 5
        zipformer = ZIPFORMERS[0]
    elif hours < 200:
        layers, dim, joiner_dim, max_duration, updates, min_epochs = 12, 256, 512, 200, 40_000, 10
        zipformer = ZIPFORMERS[1]
    else:
        layers, dim, joiner_dim, max_duration, updates, min_epochs = 12, 512, 512, 600, 100_000, 10
        zipformer = ZIPFORMERS[2]
    small = hours < 20
    max_duration = max(max_duration, max_seconds)
    updates_per_epoch = max(seconds / max_duration, 1)
    num_epochs = min(max(round(updates / updates_per_epoch), min_epochs), 60)
    updates = math.ceil(num_epochs * updates_per_epoch)
    values = {
        "num_layers": layers,
        "dim": dim,
        "feedforward_dim": 4 * dim,
        "kernel_size": 15 if small else 31,
        "frontend_channels": [32, 32] if small else [64, 32],
        "predictor_dim": dim,
        "joiner_dim": joiner_dim,
        "precision": "fp32" if small else "bf16",
        "max_duration": max_duration,
        "num_workers": 1 if small else 4,
        "num_epochs": num_epochs,
        "updates": updates,
        "lr": "2.0e-3" if small else "8.0e-4",
        "warmup_steps": min(max(updates // 12, 20), 200 if small else 5000),
        "easy_steps": min(max(updates // 8, 20), 1000 if small else 2000),
        "mask_steps": updates // 2 if small else 2000,
        "average_period": 10 if small else 100,
        "speed_perturb": ",".join(str(speed) for speed in SPEEDS if speed != 1),
        # In icefall's recipes the learning rate ends at a tenth of its peak, and the regularisers' schedules end after
        # some hundred hours.
        "lr_batches": round(updates / 10),
        "lr_epochs": round(num_epochs / 8.6, 2),
    }
    sizes = {name: list(value) for name, value in vars(zipformer).items() if isinstance(value, tuple)}
    sizes["ref_duration"] = f"{0.2 * num_epochs * seconds / 20_000:.2g}"
    values |= {f"zip_{name}": value for name, value in sizes.items()}
    return {name: str(value) for name, value in values.items()}


def choose_tokens(texts: Iterable[str], hours: float) -> dict[str, str]:
    """Choose characters or subword units, and the lattice of the loss.

    With subword units and little data, training can stay long on a plateau where the model has learnt the label
    statistics but not the acoustics. A few hundred words, or thousands of characters, do not yield 500 useful units.
    """
    words, characters = set[str](), set[str]()
    for text in texts:
        words.update(text.split())
        characters.update(text)
    pieces = hours >= 20 and len(words) >= MIN_WORDS_FOR_PIECES and len(characters) <= MAX_CHARACTERS_FOR_PIECES
    if pieces:
        return {
            "model_type": "unigram",
            "vocab_size": str(VOCAB_SIZE),
            "lang": f"lang_bpe_{VOCAB_SIZE}",
            "tokens_reason": f"subword units: {len(words)} different words are enough to learn them",
            "rnnt_type": "regular",
            "rnnt_reason": "two subword units rarely fall into one frame of 40 ms",
        }
    return {
        "model_type": "char",
        # upper limit; includes blank, unknown and the word boundary
        "vocab_size": str(max(VOCAB_SIZE, len(characters) + 3)),
        "lang": "lang_char",
        "tokens_reason": "characters: subword units overfit on little data or few words",
        "rnnt_type": "modified",
        "rnnt_reason": "a token takes a frame, as in the searches: characters follow each other fast",
    }


def choose_tail(utterances: Iterable[tuple[str, float]], model_type: str) -> dict[str, str]:
    """Choose the silence behind utterances, from the text and the seconds of each: some if over 1 % of them have fewer
    encoder frames than characters need.
    """
    too_short, count = 0, 0
    for text, seconds in utterances if model_type == "char" else ():
        needed = ctc_frames_needed([ord(character) for character in f" {text}"])
        too_short += output_lengths(round(seconds / FEATURE_SECONDS)) < needed
        count += 1
    if too_short > 0.01 * count:
        reason = f"{too_short} of {count} utterances are too short for their characters"
        return {"tail_frames": str(TAIL_FRAMES), "tail_reason": reason}
    return {"tail_frames": "0", "tail_reason": "hardly any utterance is too short for its tokens"}


def choose_features(utterances: Iterable[Utterance]) -> dict[str, str]:
    """Choose sample rate and mel bins: 8 kHz if most of the speech is sampled below 16 kHz, otherwise 16 kHz."""
    hours = hours_by_rate(utterances)
    if sum(spoken for (rate, _), spoken in hours.items() if rate < 16000) > sum(hours.values()) / 2:
        reason = "most of the audio is sampled below 16 kHz; some of 80 bins would have no frequency of their own"
        return {"sample_rate": "8000", "num_mel_bins": "40", "freq_mask_bins": "14", "rate_reason": reason}
    reason = "audio at other rates is resampled"
    return {"sample_rate": "16000", "num_mel_bins": "80", "freq_mask_bins": "27", "rate_reason": reason}


def choose_max_seconds(utterances: Iterable[Utterance]) -> int:
    """Choose the maximum training utterance, 20 to 60 s in steps of 10, that keeps 99 % of the speech."""
    durations = np.sort(np.fromiter((utterance.seconds for utterance in utterances), np.float64))[::-1]
    longer = np.cumsum(durations)
    longest_used = durations[longer > 0.01 * longer[-1]][0]
    return min(max(10 * math.ceil(longest_used / 10), 20), 60)


def new_recipe(name: str, source: CorpusSource, egs_dir: Path = ROOT / "egs", num_jobs: int = 4) -> list[str]:
    """Write ``{egs_dir}/{name}/ASR``, completely or not at all.

    Args:
        name: name of corpus and recipe.
        source: source of the corpus.
        egs_dir: folder of the recipes, in this repository or elsewhere.
        num_jobs: audio files to open in parallel.

    Returns:
        The lines to print.

    Raises:
        ValueError: the name is invalid, or the corpus is malformed or empty.
        FileExistsError: the recipe exists.
        FileNotFoundError: a file is missing.
    """
    check_name(name, "the recipe")
    source = source.absolute()
    recipe = egs_dir / name
    if recipe.exists():
        raise FileExistsError(f"{recipe} is there already: choose another name, or remove the folder first")
    listing = recipe.with_name(f"skipped-{name}-table.tsv")
    with new_folder(recipe) as partial:
        manifests = partial / "ASR" / "data" / "manifests"
        try:
            corpus, lines = prepare_corpus(source, name, manifests, num_jobs, fill=True)
        except ValueError as error:
            made = skipped_path(manifests, name)
            if not made.is_file():
                raise
            os.replace(made, listing)  # the folder goes, the reasons stay
            raise ValueError(str(error).replace(str(made), str(listing))) from error
        values, told = _choose(name, source, corpus, egs_dir)
        for name_of_file in TEMPLATE_FILES:
            _write(TEMPLATE / name_of_file, partial / "ASR" / name_of_file, values)
        _rename_folder(partial.name, name, manifests)
    listing.unlink(missing_ok=True)
    return [line.replace(str(partial), str(recipe)) for line in lines] + told


def _choose(name: str, source: CorpusSource, corpus: Corpus, egs_dir: Path) -> tuple[dict[str, str], list[str]]:
    """Choose the values for the template. Return them, and the lines to print about them."""
    names = {kind: [split for split in corpus.splits() if kind_of(split) == kind] for kind in ("train", "dev", "test")}
    training = corpus.utterances.of(names["train"])
    hours = training.seconds / 3600
    texts = (text for (text,) in training.columns("text"))
    max_seconds = choose_max_seconds(training)
    tokens = choose_tokens(texts, hours)
    tail = choose_tail(training.columns("text, duration"), tokens["model_type"])
    root = "../../.." if egs_dir.resolve() == ROOT / "egs" else str(ROOT)
    silent_hours = len(training) * FEATURE_SECONDS * int(tail["tail_frames"]) / 3600
    values = {
        "NAME": name,
        "ROOT": shlex.quote(root),
        # JSON, and so YAML
        "LIBRISPEECH": json.dumps(f"{root}/egs/librispeech/ASR", ensure_ascii=False),
        "PATH": str(source.path),
        "SOURCE": shlex.join(_options(source)),
        "CONTENTS": _contents(source),
        "TEXT_CASE": source.text_case,
        "PUNCTUATION": source.punctuation,
        "HOURS": f"{hours:.3g}",
        "max_seconds": str(max_seconds),
        **{kind.upper(): " ".join(names[kind]) for kind in names},
        # Quoted, because YAML reads names such as 1, no and null as other things.
        **{f"{kind.upper()}_LIST": ", ".join(f'"{split}"' for split in names[kind]) for kind in names},
        "TEST_STRINGS": '", "'.join(names["test"]),
        **choose_sizes(hours + silent_hours, max_seconds),
        **tokens,
        **tail,
        **choose_features(training),
    }
    too_long = sum(seconds > max_seconds for (seconds,) in training.columns("duration"))
    told = [
        f"model: {values['num_layers']} layers of width {values['dim']}, {values['num_epochs']} epochs, some "
        f"{values['updates']} updates of {values['max_duration']} s",
        f"tokens: {values['tokens_reason']}",
        f"features: {values['num_mel_bins']} mel bins at {values['sample_rate']} Hz: {values['rate_reason']}",
        f"silence behind each utterance: {values['tail_frames']} frames of 10 ms: {values['tail_reason']}",
    ]
    if too_long:
        told.append(
            f"Warning: {too_long} training utterances are longer than {max_seconds} s and are not used: "
            "segment them (columns start and duration), or raise data.max_seconds and data.max_duration"
        )
    return values, told


def _rename_folder(old: str, new: str, manifests: Path) -> None:
    """Rename a folder, by its unique name, in the manifests and tables that name audio in it: copies of files that
    training cannot read, and files that lhotse's recipe made.
    """
    # Random letters and digits, which JSON never escapes
    token = old.split(".")[-2].encode()

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: renamed(part) for name, part in value.items()}
        if isinstance(value, list):
            return [renamed(part) for part in value]
        return value.replace(old, new) if isinstance(value, str) else value

    def renamed_line(line: bytes, is_table: bool) -> bytes:
        if token not in line:
            return line
        if is_table:
            return line.replace(old.encode(), new.encode())
        return json.dumps(renamed(json.loads(line)), ensure_ascii=False).encode() + b"\n"

    patterns = ["*_recordings_*.jsonl.gz", "lhotse/*/*_recordings*.jsonl.gz", "lhotse/*/*_cuts*.jsonl.gz"]
    patterns += ["audio/*/measured.jsonl", "*.tsv"]
    for path in [path for pattern in patterns for path in manifests.glob(pattern)]:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            lines = (renamed_line(line, path.suffix == ".tsv") for line in file)
            if path.suffix == ".gz":
                write_lines_packed(lines, path)
            else:
                with atomic_write(path, "wb") as whole:
                    whole.writelines(lines)


def _options(source: CorpusSource) -> list[str]:
    """Options of local/prepare_table.py for the corpus."""
    if recipe := source.lhotse_recipe:
        options = ["--lhotse-recipe", recipe.name, "--corpus-dir", str(recipe.corpus_dir)]
        options += [part for option in recipe.options for part in ("--lhotse-option", option)]
    else:
        option = "--table" if source.table else "--kaldi-dir" if source.kaldi_dir else "--lhotse-manifests"
        options = [option, str(source.path)]
    options += ["--audio-dir", str(source.audio_dir)]
    if source.channel is not None:
        options += ["--channel", str(source.channel)]
    if source.keep_empty:
        options.append("--keep-empty")
    if source.kaldi_dir:
        options += ["--command-timeout", f"{source.command_timeout:g}"]
    return options


def _contents(source: CorpusSource) -> str:
    """Shell command whose output changes when the lists of the corpus change, or the files of a recipe of lhotse."""
    path = shlex.quote(str(source.path))
    if source.table:
        return f"cat {path}"
    if source.lhotse_recipe:
        folders = shlex.join(map(str, source.lhotse_recipe.paths()))
        return f"find -L {folders} -samefile .. -prune -o -type f -printf '%p %s %T@\\n' | sort"
    if source.kaldi_dir:
        return f"cat {path}/{{,*/}}{{wav.scp,segments,text,utt2spk,utt2lang}}"
    return f"cat {path}/*.jsonl*"


class _ListRecipes(argparse.Action):
    """Option that prints lhotse's recipes and ends the program."""

    def __init__(self, option_strings: list[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(*list_recipes(), sep="\n")
        parser.exit()


def _write(template: Path, path: Path, values: dict[str, str]) -> None:
    text = re.sub(r"@(\w+)@", lambda match: values[match[1]], template.read_text(encoding="utf-8"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    if path.suffix in (".sh", ".py"):
        path.chmod(0o755)


def _source(args: argparse.Namespace) -> CorpusSource:
    """Source of the corpus, which is downloaded if the command line says so."""
    source = source_of(args)
    if not args.download:
        return source
    if source.lhotse_recipe is None:
        raise ValueError("--download needs --lhotse-recipe NAME, whose corpus is downloaded")
    recipe = download_with_lhotse(source.lhotse_recipe)
    return replace(source, lhotse_recipe=recipe, audio_dir=args.audio_dir or recipe.corpus_dir)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", metavar="NAME", help="name of corpus and recipe")
    add_source_options(parser)
    parser.add_argument(
        "--download",
        action="store_true",
        help="first download the corpus to --corpus-dir by lhotse; --lhotse-option also takes options of the download",
    )
    parser.add_argument("--list", action=_ListRecipes, help="list lhotse's recipes, with their arguments, and exit")
    parser.add_argument("--egs-dir", type=Path, default=ROOT / "egs", metavar="DIR", help="folder of recipes (egs)")
    parser.add_argument("--nj", type=above_zero(int), default=4, help="audio files to open in parallel (4)")
    args = parser.parse_args()
    with clear_errors("new_recipe.py"):
        egs_dir = Path(os.path.relpath(args.egs_dir))
        lines = new_recipe(args.name, _source(args), egs_dir, args.nj)
    recipe = egs_dir / args.name / "ASR"
    print(*lines, f"{recipe} is ready. Next: {recipe}/run.sh", sep="\n")


if __name__ == "__main__":
    main()
