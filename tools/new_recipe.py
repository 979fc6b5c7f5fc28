#!/usr/bin/env python3
"""Make a recipe for a corpus: egs/NAME/ASR, whose run.sh prepares, trains and decodes.

The corpus is a table of audio files and transcripts, Kaldi data folders, or lhotse manifests. Its audio is opened and
its transcripts are read, what is wrong with them is told, and the sizes of model and training are chosen by the hours
of training data.

The table is a .tsv, .csv or .jsonl with the columns audio and text, and optionally
  id                id of the utterance (made from the audio's name)
  speaker           keeps each speaker in one split
  split             train, dev or test; dev and test are taken from train where there are none
  start, duration   in seconds, for utterances inside longer recordings
  channel           from 0, for audio with several
  language
"""

import argparse
import math
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

try:
    from summarymix.cli import clear_errors
except ModuleNotFoundError as missing:
    sys.exit(f"{missing}: activate the environment first, with this repository's `. tools/setup.sh`")
from summarymix.data.corpus.base import Corpus, Utterance, kind_of
from summarymix.data.corpus.options import CorpusSource, add_source_options, prepare_corpus, source_of
from summarymix.data.corpus.report import hours_by_rate
from summarymix.encoder.zipformer import ZipformerConfig

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = Path(__file__).parent / "recipe_template"
# By name, because editors and Python leave files of their own in any folder.
TEMPLATE_FILES = (
    "prepare.sh",
    "run.sh",
    "train.py",
    "decode.py",
    "transcribe.py",
    "export.py",
    "conf/conformer.yaml",
    "conf/zipformer.yaml",
    "README.md",
)

# The zip-style encoder for little, more and much data: that of egs/mini, and icefall's S and M.
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


def choose_sizes(hours: float) -> dict[str, str]:
    """Model and training for ``hours`` of training data.

    | hours | layers x width | parameters | zip-style | batch | updates | modelled on |
    |---|---|---|---|---|---|---|
    | < 20 | 6 x 144 | 3 M | 3 M | 48 s | 8 000 | egs/speechocean762 (one view), the only one trained so far |
    | < 200 | 12 x 256 | 19 M | 23 M | 200 s | 40 000 | egs/librispeech, conformer_small.yaml |
    | more | 12 x 512 | 75 M | 66 M | 600 s | 100 000 | egs/librispeech, conformer.yaml |

    With little data the number of updates counts, so batches are small, and epochs are as many as give the updates
    (between 5 and 60, or 10 and 60).
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
        # icefall's recipes end at a tenth of the peak rate, and their regularisers' schedules after some hundred hours.
        "lr_batches": round(updates / 10),
        "lr_epochs": round(num_epochs / 8.6, 2),
    }
    sizes = {name: list(value) for name, value in vars(zipformer).items() if isinstance(value, tuple)}
    sizes["ref_duration"] = f"{0.2 * num_epochs * seconds / 20_000:.2g}"
    values |= {f"zip_{name}": value for name, value in sizes.items()}
    return {name: str(value) for name, value in values.items()}


def choose_tokens(texts: Iterable[str], hours: float) -> dict[str, str]:
    """Characters or pieces of words, and the lattice of the loss that suits them.

    With pieces and little data, training can stay for long on a plateau where the model has learnt the language but
    not to listen. And of a few hundred words, or of thousands of characters, there are no useful 500 pieces.
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
            "tokens_reason": f"pieces of words: {len(words)} different words are enough to find good ones",
            "rnnt_type": "regular",
            "rnnt_reason": "pieces of words hardly ever share a frame of 40 ms",
        }
    return {
        "model_type": "char",
        # the most that there may be; blank, unknown and the word boundary are among them
        "vocab_size": str(max(VOCAB_SIZE, len(characters) + 3)),
        "lang": "lang_char",
        "tokens_reason": "characters: with pieces of words, little data or few words are learnt by heart",
        "rnnt_type": "modified",
        "rnnt_reason": "characters follow each other fast, and searches take one token a frame: so does training",
    }


def choose_features(utterances: Iterable[Utterance]) -> dict[str, str]:
    """Sample rate and mel bins: 8 kHz if most of the speech has less than 16 kHz, and is only resampled otherwise."""
    hours = hours_by_rate(utterances)
    if sum(spoken for (rate, _), spoken in hours.items() if rate < 16000) > sum(hours.values()) / 2:
        reason = "most of the audio has no more; 80 bins would leave some without a frequency of their own"
        return {"sample_rate": "8000", "num_mel_bins": "40", "freq_mask_bins": "14", "rate_reason": reason}
    reason = "other audio is resampled"
    return {"sample_rate": "16000", "num_mel_bins": "80", "freq_mask_bins": "27", "rate_reason": reason}


def choose_max_seconds(utterances: Iterable[Utterance]) -> int:
    """A limit in tens of seconds, 20 to 60, that leaves 99 % of the speech."""
    durations = sorted((utterance.seconds for utterance in utterances), reverse=True)
    longer, allowed = 0.0, 0.01 * sum(durations)
    for duration in durations:
        longer += duration
        if longer > allowed:
            return min(max(10 * math.ceil(duration / 10), 20), 60)
    return 20


def new_recipe(name: str, source: CorpusSource, egs_dir: Path = ROOT / "egs", num_jobs: int = 4) -> list[str]:
    """Write ``{egs_dir}/{name}/ASR``, all of it or nothing.

    Args:
        name: of the corpus and the recipe.
        source: the corpus.
        egs_dir: folder of the recipes; another one than this repository's is possible.
        num_jobs: audio files to open at a time.

    Returns:
        What to tell the user.

    Raises:
        ValueError: the name cannot be used, or the corpus is malformed or empty.
        FileExistsError: there is such a recipe.
        FileNotFoundError: the corpus is not there.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
        raise ValueError(f"{name!r} cannot be a recipe's name: use letters, digits, dashes and underscores")
    source = source.absolute()
    recipe = egs_dir / name
    if recipe.exists():
        raise FileExistsError(f"{recipe} is there already: choose another name, or remove that folder first")
    partial = recipe.with_name(f".{name}.{os.getpid()}.part")
    try:
        corpus, lines = prepare_corpus(source, name, partial / "ASR" / "data" / "manifests", num_jobs, fill=True)
        values, told = _choose(name, source, corpus, egs_dir)
        for name_of_file in TEMPLATE_FILES:
            _write(TEMPLATE / name_of_file, partial / "ASR" / name_of_file, values)
        partial.rename(recipe)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return [line.replace(str(partial), str(recipe)) for line in lines] + told


def _choose(name: str, source: CorpusSource, corpus: Corpus, egs_dir: Path) -> tuple[dict[str, str], list[str]]:
    """What goes into the template, and what to tell about it."""
    splits = corpus.splits()
    names = {kind: [split for split in splits if kind_of(split) == kind] for kind in ("train", "dev", "test")}
    training = [utterance for split in names["train"] for utterance in splits[split]]
    hours = sum(utterance.seconds for utterance in training) / 3600
    texts = [utterance.supervision.text for utterance in training]
    max_seconds = choose_max_seconds(training)
    values = {
        "NAME": name,
        "ROOT": "../../.." if egs_dir.resolve() == ROOT / "egs" else shlex.quote(str(ROOT)),
        "PATH": str(source.path),
        "SOURCE": shlex.join(_options(source)),
        "CONTENTS": _contents(source),
        "HOURS": f"{hours:.3g}",
        "max_seconds": str(max_seconds),
        **{kind.upper(): " ".join(names[kind]) for kind in names},
        **{f"{kind.upper()}_LIST": ", ".join(names[kind]) for kind in names},
        "TEST_STRINGS": '", "'.join(names["test"]),
        **choose_sizes(hours),
        **choose_tokens(texts, hours),
        **choose_features(training),
    }
    values["max_duration"] = str(max(int(values["max_duration"]), max_seconds))
    too_long = sum(utterance.seconds > max_seconds for utterance in training)
    told = [
        f"model: {values['num_layers']} layers of width {values['dim']}, {values['num_epochs']} epochs, some "
        f"{values['updates']} updates of {values['max_duration']} s",
        f"tokens: {values['tokens_reason']}",
        f"features: {values['num_mel_bins']} mel bins at {values['sample_rate']} Hz: {values['rate_reason']}",
    ]
    if too_long:
        told.append(
            f"Warning: {too_long} training utterances are longer than {max_seconds} s and will not be trained on: "
            "segment them (columns start and duration), or raise data.max_seconds and data.max_duration"
        )
    return values, told


def _options(source: CorpusSource) -> list[str]:
    """The command line of local/prepare_table.py that names the corpus."""
    option = "--table" if source.table else "--kaldi-dir" if source.kaldi_dir else "--lhotse-manifests"
    options = [option, str(source.path), "--audio-dir", str(source.audio_dir), "--text", source.text]
    return options if source.channel is None else [*options, "--channel", str(source.channel)]


def _contents(source: CorpusSource) -> str:
    """A shell command that prints what the corpus is made of."""
    path = shlex.quote(str(source.path))
    if source.table:
        audio_dir = shlex.quote(str(source.audio_dir))
        return f"cat {path}; find -L {audio_dir} -type f -printf '%P %s %T@\\n' | sort"
    if source.kaldi_dir:
        return f"cat {path}/{{,*/}}{{wav.scp,segments,text,utt2spk,utt2lang}}"
    return f"cat {path}/*.jsonl*"


def _write(template: Path, path: Path, values: dict[str, str]) -> None:
    text = re.sub(r"@(\w+)@", lambda match: values[match[1]], template.read_text(encoding="utf-8"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    if path.suffix in (".sh", ".py"):
        path.chmod(0o755)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", metavar="NAME", help="of the corpus and the recipe")
    add_source_options(parser)
    parser.add_argument("--egs-dir", type=Path, default=ROOT / "egs", metavar="DIR", help="folder of the recipes")
    parser.add_argument("--nj", type=int, default=4, help="audio files to open at a time")
    args = parser.parse_args()
    with clear_errors("new_recipe.py"):
        egs_dir = Path(os.path.relpath(args.egs_dir))
        lines = new_recipe(args.name, source_of(args), egs_dir, args.nj)
    recipe = egs_dir / args.name / "ASR"
    print(*lines, f"{recipe} is ready. Next: {recipe}/run.sh", sep="\n")


if __name__ == "__main__":
    main()
