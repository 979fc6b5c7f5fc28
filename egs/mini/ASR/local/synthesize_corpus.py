#!/usr/bin/env python3
"""Synthesise a corpus of connected digits and short commands with espeak-ng (package espeakng-loader).

Writes 16 kHz FLAC files and OUT_DIR/table.tsv (audio, text, id, speaker, split). A speaker is a voice variant of
espeak-ng and belongs to one split. Each utterance has its own accent, speed, pitch, pauses, level and noise.
The same options give the same files, byte for byte. Run the same command again to continue after an interruption.
"""

import argparse
import ctypes
import hashlib
import multiprocessing
import re
import sys
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

import espeakng_loader
import numpy as np
import soundfile
import torch
import torchaudio
from tqdm import tqdm

from summarymix.cli import above_zero, clear_errors
from summarymix.files import atomic_write, remove_own

PROGRAM = "synthesize_corpus.py"

SAMPLE_RATE = 16000

ACCENTS = (
    "gmw/en-US", "gmw/en-US-nyc", "gmw/en", "gmw/en-GB-x-rp", "gmw/en-GB-scotland",
    "gmw/en-GB-x-gbclan", "gmw/en-GB-x-gbcwmd", "gmw/en-029",
)  # fmt: skip

# Unintelligible variants, echoing robots, and fast (an alias of the plain voice) are left out.
# Many variants are near copies of each other: similar ones stay in one split.
VOICES = {
    "train": (
        "Alex", "Andrea", "Andy", "AnxiousAndy", "Diogo", "michel", "miguel", "Gene", "Gene2", "Henrique", "Hugo",
        "Michael", "gustave", "Mike", "Mr serious", "Storm", "Tweaky", "adam", "klatt6", "anika", "antonio", "aunty",
        "linda", "benjamin", "edward", "edward2", "mike2", "croak", "f2", "f5", "grandma", "grandpa", "max", "ian",
        "iven", "iven2", "iven3", "iven4", "john", "m6", "klatt", "klatt2", "klatt3", "klatt4", "m3", "m5", "m7",
        "pablo", "rob", "robert", "quincy", "steph", "steph2", "steph3", "travis", "whisper", "whisperf",
    ),
    "dev": ("m2", "f3", "Annie", "sandro", "Reed", "Nguyen", "boris", "victor"),
    "test": (
        "m1", "m4", "m8", "f1", "f4", "belinda", "ed", "marcelo", "Mario", "paul", "caleb", "Denis", "Jacky", "pedro",
    ),
}  # fmt: skip

DIGITS = ("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE")

# No words that sound like a digit (to, for, at).
COMMANDS = (
    "TURN ON THE LIGHT", "TURN OFF THE LIGHT", "TURN ON THE RADIO", "TURN OFF THE RADIO", "TURN LEFT", "TURN RIGHT",
    "OPEN THE DOOR", "CLOSE THE DOOR", "OPEN THE WINDOW", "CLOSE THE WINDOW", "VOLUME UP", "VOLUME DOWN", "CALL HOME",
    "CALL MY OFFICE", "PLAY SOME MUSIC", "NEXT TRACK", "PREVIOUS TRACK", "STOP THE MUSIC", "PAUSE THE MUSIC", "GO BACK",
    "GO FORWARD", "WHAT TIME IS IT", "SHOW MY MESSAGES", "SEND A MESSAGE", "CANCEL THE TIMER", "GOOD MORNING",
    "REPEAT THAT PLEASE", "HELP ME PLEASE", "STOP", "START",
)  # fmt: skip
COMMANDS_WITH_DIGITS = ("CALL {}", "DIAL {}", "CHANNEL {}", "PLAY TRACK {}", "OPEN ROOM {}", "WAKE ME IN {} MINUTES")


class Espeak:
    """The espeak-ng library. It keeps state between utterances, which cannot be reset."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._blocks: list[bytes] = []

        def collect(samples: int | None, count: int, events: int | None) -> int:
            if samples and count > 0:
                self._blocks.append(ctypes.string_at(samples, 2 * count))
            return 0

        callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
        self._collect = callback(collect)  # a reference, or Python would free the callback
        data_path = espeakng_loader.get_data_path().encode()
        # 2: the audio is handed to the callback before the call returns
        self.sample_rate: int = self._library.espeak_Initialize(2, 0, data_path, 0)
        if self.sample_rate <= 0:
            raise RuntimeError(
                f"espeak-ng does not start with the data in {data_path.decode()}: reinstall espeakng-loader"
            )
        self._library.espeak_SetSynthCallback(self._collect)
        # The default seed is the time.
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))

    def speak(self, text: str, voice: str, rate: int, pitch: int, pitch_range: int, word_gap: int) -> np.ndarray:
        """Synthesise samples (n,) int16. Rate in words per minute, pitch and range 0 … 100, ``word_gap`` in 10 ms."""
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice!r}")
        for parameter, value in ((1, rate), (3, pitch), (4, pitch_range), (7, word_gap)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._blocks.clear()
        data = text.encode() + b"\0"
        # from the first character on; 1: the text is UTF-8
        status = self._library.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, 1, 0, 1, None, None)
        if status != 0 or not self._blocks:
            raise RuntimeError(f"espeak-ng gives no audio for {text!r} with voice {voice!r} (status {status})")
        return np.frombuffer(b"".join(self._blocks), np.int16)


@dataclass(frozen=True)
class Task:
    """All utterances of one speaker."""

    split: str
    speaker: str
    seconds: float
    seed: int
    out_dir: Path

    @property
    def id(self) -> str:
        return self.speaker.replace(" ", "_")

    @property
    def folder(self) -> Path:
        return self.out_dir / self.split / self.id

    @property
    def table(self) -> Path:
        """The speaker's rows of the table, written last. The file name depends on the settings."""
        settings = f"{self.seconds} {self.seed} {hashlib.sha256(Path(__file__).read_bytes()).hexdigest()}"
        return self.folder / f"rows-{hashlib.sha256(settings.encode()).hexdigest()[:16]}.tsv"


def draw_text(rng: np.random.Generator) -> str:
    """Draw a transcript: 60 % digit strings, 25 % commands, 15 % commands with digits."""

    def digits(low: int, high: int) -> str:
        return " ".join(rng.choice(DIGITS, rng.integers(low, high + 1)))

    kind = rng.random()
    if kind < 0.6:
        return digits(2, 8)
    if kind < 0.85:
        return str(rng.choice(COMMANDS))
    return str(rng.choice(COMMANDS_WITH_DIGITS)).format(digits(1, 4))


def with_pauses(text: str, rng: np.random.Generator) -> str:
    """Add random commas between digits and a random final mark, which espeak-ng reads as pauses and intonation."""
    words = text.split()
    spoken = [
        word.lower() + ("," if word in DIGITS and following in DIGITS and rng.random() < 0.15 else "")
        for word, following in zip(words, [*words[1:], ""], strict=True)
    ]
    return " ".join(spoken) + str(rng.choice(["", ".", "?", "!"]))


def draw_audio(espeak: Espeak, text: str, speaker: str, rng: np.random.Generator) -> np.ndarray:
    """Synthesise ``text`` with random settings: samples (n,) in [-1, 1] at 16 kHz, with noise, and silence around."""
    spoken = espeak.speak(
        with_pauses(text, rng),
        voice=f"{rng.choice(ACCENTS)}+{speaker}",
        rate=int(rng.integers(125, 205)),
        pitch=int(rng.integers(30, 71)),
        pitch_range=int(rng.integers(30, 71)),
        word_gap=int(rng.integers(0, 9)),
    )
    speech = torchaudio.functional.resample(
        torch.from_numpy(spoken.astype(np.float32)), espeak.sample_rate, SAMPLE_RATE
    ).numpy()  # (n,)
    before, after = rng.integers(SAMPLE_RATE // 20, SAMPLE_RATE * 2 // 5, 2)
    audio = np.pad(speech, (before, after))
    audio *= 10 ** (rng.uniform(-26, -1) / 20) / np.abs(audio).max()
    # Noise between white and brown, 15 to 45 dB below the speech.
    noise = rng.standard_normal(len(audio)).astype(np.float32)
    smoothing = int(rng.integers(1, 9))
    noise = np.convolve(noise, np.ones(smoothing, np.float32) / np.sqrt(smoothing), "same")
    speech_level = np.sqrt(np.mean(audio[before : before + len(speech)] ** 2))
    return audio + noise * speech_level * 10 ** (-rng.uniform(15, 45) / 20)


@clear_errors(PROGRAM)
def synthesize(task: Task) -> None:
    """Write all files of one speaker, then the rows of the table."""
    # Seeded by the name: Python's hash() differs between runs.
    rng = np.random.default_rng([task.seed, *f"{task.split}/{task.speaker}".encode()])
    torch.set_num_threads(1)
    espeak = Espeak()
    remove_own(
        task.folder,
        rf"{re.escape(f'{task.split}-{task.id}')}-\d{{4,}}\.flac|\.?rows-[0-9a-f]{{16}}\.tsv(\.[0-9a-f]+\.part)?",
    )
    task.folder.mkdir(parents=True)
    rows = []
    seconds = 0.0
    while seconds < task.seconds:
        text = draw_text(rng)
        audio = draw_audio(espeak, text, task.speaker, rng)
        name = f"{task.split}-{task.id}-{len(rows):04d}"
        path = task.folder / f"{name}.flac"
        soundfile.write(path, np.clip(np.rint(audio * 32768), -32768, 32767).astype(np.int16), SAMPLE_RATE)
        rows.append(f"{path.relative_to(task.out_dir)}\t{text}\t{name}\t{task.id}\t{task.split}\n")
        seconds += len(audio) / SAMPLE_RATE
    with atomic_write(task.table) as file:
        file.writelines(rows)


def run(tasks: list[Task], num_jobs: int) -> None:
    """Run each task in its own process, because the audio of espeak-ng depends on all its earlier utterances."""
    # Forked, so that torch is not loaded eighty times.
    context = multiprocessing.get_context("fork")
    waiting = [task for task in tasks if not task.table.exists()]
    running: dict[int, tuple[multiprocessing.process.BaseProcess, Task]] = {}
    with tqdm(total=len(tasks), initial=len(tasks) - len(waiting), desc="voices", disable=None) as progress:
        while waiting or running:
            while waiting and len(running) < num_jobs:
                task = waiting.pop(0)
                process = context.Process(target=synthesize, args=(task,))
                process.start()
                running[process.sentinel] = (process, task)
            for sentinel in wait(list(running)):
                process, task = running.pop(sentinel)
                process.join()
                if process.exitcode != 0:
                    for other, _ in running.values():
                        other.terminate()
                    sys.exit(f"Voice {task.speaker!r} failed with exit code {process.exitcode}")
                progress.update()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out-dir", type=Path, required=True)
    parser.add_argument("--train-hours", type=float, default=3.0)
    parser.add_argument("--dev-hours", type=float, default=0.2)
    parser.add_argument("--test-hours", type=float, default=0.33)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nj", type=above_zero(int), default=2, help="processes")
    args = parser.parse_args()

    hours = {"train": args.train_hours, "dev": args.dev_hours, "test": args.test_hours}
    tasks = [
        Task(split, voice, 3600 * hours[split] / len(voices), args.seed, args.out_dir)
        for split, voices in VOICES.items()
        for voice in voices
    ]
    run(tasks, args.nj)
    rows = [row for task in tasks for row in task.table.read_text(encoding="utf-8").splitlines()]
    with atomic_write(args.out_dir / "table.tsv") as file:
        print("audio", "text", "id", "speaker", "split", sep="\t", file=file)
        print(*rows, sep="\n", file=file)
    print(f"{args.out_dir}/table.tsv: {len(rows)} utterances by {len(tasks)} voices")


if __name__ == "__main__":
    with clear_errors(PROGRAM):
        main()
