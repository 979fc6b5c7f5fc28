"""Opening of a corpus's audio: the true length of every file, and copies of files that training cannot read.

lhotse reads training audio with libsndfile. A file that libsndfile does not read to its true end, or whose sample rate
lhotse cannot resample, is converted once, here: to FLAC, or to WAV of floats if samples exceed full scale, which FLAC
would clip.
"""

import errno
import hashlib
import itertools
import math
import os
import re
import secrets
import shlex
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, field, fields
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import torch
from lhotse import AudioSource, Recording

from summarymix.data.audio import Resampler, has_small_filter
from summarymix.data.audio_file import AudioFile, open_audio
from summarymix.data.corpus.commands import TIMEOUT, run_command
from summarymix.data.corpus.measured import Measured, write_measured
from summarymix.data.corpus.on_disk import DiskDict, DiskSet
from summarymix.data.ffmpeg import REMEDY
from summarymix.data.lines import run_in_order
from summarymix.data.skipped import Skipped
from summarymix.files import atomic_write, check_disk_space

# lhotse opens these with other programs or packages, by their names.
_SUFFIXES_BEYOND_LIBSNDFILE = (".sph", ".mp4", ".m4a", ".m4b", ".raw")
_AUDIO_SUFFIXES = {
    ".wav",
    ".flac",
    ".mp3",
    ".ogg",
    ".oga",
    ".opus",
    ".aiff",
    ".au",
    ".sph",
    ".m4a",
    ".mp4",
    ".aac",
    ".wma",
}
# Names of copies, and of those whose writing was interrupted
_COPY = re.compile(r"[0-9a-f]{24}\.(flac|wav)|\.[0-9a-f]{24}\.(flac|wav)\.[0-9a-f]{8}\.part")
_FULL_SCALE = 1.0
# Files that wait for each job, or for a slow one before them
_FILES_AHEAD = 100
_USUAL_RATES = (8000, 16000, 22050, 24000, 32000, 44100, 48000)
# Rates of features, and speeds of perturbed copies
_FEATURE_RATES, _SPEEDS = (8000, 16000), (0.9, 1.1)


@dataclass(frozen=True)
class Converted:
    """A file of which training reads a copy."""

    file: str
    copy: str
    declared_seconds: str
    """What its header promises; empty if it promises nothing usable."""
    true_seconds: str
    reason: str


@dataclass
class AudioFindings:
    """Findings about the audio of a corpus, and the folder of its converted copies, which belongs to it alone."""

    folder: Path
    converted: list[Converted] = field(default_factory=list)
    truncated: dict[str, float] = field(default_factory=dict)
    """Seconds that the header promises, by path or command, of audio that ends before."""
    measured: DiskDict[Measured] = field(default_factory=DiskDict)
    """Files of the corpus, also lists that were noted, and copies that training reads, by path."""

    @property
    def originals(self) -> dict[str, str]:
        """The converted files, by copy."""
        return {item.copy: item.file for item in self.converted}

    def note(self, path: Path | str) -> None:
        """Note size and time of a file of the corpus, which may be missing, before it is read."""
        self.measured[str(path)] = Measured.unread(str(path))

    def truncation(self, source: str, recording: Recording) -> str | None:
        """True and promised seconds of a recording, by path or command, if it is truncated; None if not."""
        promised = self.truncated.get(source)
        return None if promised is None else f"{recording.duration:.2f} of {promised:.2f} s"

    def write(self, path: Path) -> None:
        """Write the table of converted files, or remove it if there are none, and the list of all files.

        Copies of earlier audio are removed.
        """
        write_measured(self.folder, self.measured)
        copies = {Path(item.copy).name for item in self.converted}
        for old in self.folder.iterdir() if self.folder.is_dir() else ():
            if old.name not in copies and _COPY.fullmatch(old.name):
                old.unlink()
        if not self.converted:
            path.unlink(missing_ok=True)
            return
        with atomic_write(path) as file:
            print(*(column.name for column in fields(Converted)), sep="\t", file=file)
            for item in self.converted:
                print(*(" ".join(value.split()) for value in astuple(item)), sep="\t", file=file)


@dataclass
class _Opened:
    """One recording or its problem, and what was found about it."""

    recording: Recording | Skipped
    converted: Converted | None = None
    truncated: float | None = None
    measured: dict[str, Measured] = field(default_factory=dict)


def open_files(paths: Mapping[str, str], findings: AudioFindings, num_jobs: int = 1) -> DiskDict[Recording | Skipped]:
    """Open audio files and measure them; return each file's recording, or its problem, by path.

    Args:
        paths: recording names by path.
        findings: gets what is found about the files.
        num_jobs: files to open at a time.
    """
    return _open_all(paths, _open_file, num_jobs, findings)


def open_commands(
    commands: Mapping[str, str],
    findings: AudioFindings,
    num_jobs: int = 1,
    timeout: float = TIMEOUT,
) -> DiskDict[Recording | Skipped]:
    """Run commands that output an audio file, such as ``sph2pipe -f wav -p -c 1 x.sph``, to measure its length.

    Args:
        commands: recording names by command.
        findings: gets what is found about the recordings.
        num_jobs: commands to run at a time.
        timeout: seconds that a command may take.
    """
    return _open_all(commands, partial(_open_command, timeout=timeout), num_jobs, findings)


def unnamed_audio(folder: Path, named: Iterable[str], findings: AudioFindings) -> list[Path]:
    """Audio files in a folder that the corpus does not name, and that are no copies of its audio.

    Args:
        folder: folder to search.
        named: paths in the corpus.
        findings: findings about its audio.
    """
    known = DiskSet(os.path.realpath(path) for path in named)
    copies = findings.folder.resolve()
    # Not kept as paths, each of which takes 2 kB
    entries = (os.path.join(parent, name) for parent, *names in os.walk(folder) for name in itertools.chain(*names))
    return sorted(
        Path(path)
        for path in entries
        if Path(path).suffix.lower() in _AUDIO_SUFFIXES
        and os.path.realpath(path) not in known
        and copies not in Path(path).resolve().parents
    )


def command_in(folder: Path, command: str) -> str:
    """The shell command that runs ``command`` in ``folder``."""
    return f"cd {shlex.quote(str(folder))} && {command}"


def _open_all(
    names: Mapping[str, str],
    open_one: Callable[[str, str, Path], _Opened],
    num_jobs: int,
    findings: AudioFindings,
) -> DiskDict[Recording | Skipped]:
    def open_(item: tuple[str, str]) -> _Opened:
        try:
            return open_one(*item, findings.folder)
        # A full disk stops the program; whatever else is wrong with one file is listed.
        except OSError as error:
            if error.filename == item[0]:
                return _Opened(Skipped(item[1], item[0], "unreadable audio", f"{error.strerror}", REMEDY))
            raise

    # Threads suffice: libraries and other programs do the work.
    recordings: DiskDict[Recording | Skipped] = DiskDict()
    with ThreadPoolExecutor(num_jobs) as executor:
        opened = run_in_order(executor, open_, names.items(), _FILES_AHEAD * num_jobs)
        for source, one in zip(names, opened, strict=True):
            recordings[source] = one.recording
            if one.converted:
                findings.converted.append(one.converted)
            if one.truncated is not None:
                findings.truncated[source] = one.truncated
            findings.measured.update(one.measured.items())
    return recordings


def _open_file(path: str, name: str, folder: Path) -> _Opened:
    # From before the file is read: if it changes meanwhile, it will not be taken for unchanged.
    before = Measured.unread(path)
    key = f"{os.path.abspath(path)} {before.size} {before.mtime_ns}"
    suffix = Path(path).suffix.lower()
    problem = f"lhotse does not read {suffix} with libsndfile" if suffix in _SUFFIXES_BEYOND_LIBSNDFILE else ""
    opened = _open(path, name, AudioSource("file", [], path), key, folder, problem)
    recording = opened.recording
    opened.measured[path] = before
    if isinstance(recording, Recording):
        rate, num_samples = recording.sampling_rate, recording.num_samples
        if opened.converted:
            opened.measured[opened.converted.copy] = Measured.of(opened.converted.copy, rate, num_samples)
        elif before.size >= 0:
            opened.measured[path] = before._replace(sample_rate=rate, num_samples=num_samples)
    return opened


def _open_command(command: str, name: str, folder: Path, timeout: float) -> _Opened:
    remedy = "run the command by hand to see what fails"
    try:
        output = run_command(command, timeout)
    except (OSError, ValueError) as error:
        return _Opened(Skipped(name, command, "unreadable audio", f"{error}", remedy))
    with tempfile.NamedTemporaryFile() as file:
        file.write(output)
        file.flush()
        key = f"{command} {hashlib.sha256(output).hexdigest()}"
        return _open(file.name, name, AudioSource("command", [], command), key, folder, "")


def _open(path: str, name: str, source: AudioSource, key: str, folder: Path, problem: str) -> _Opened:
    """Measure a file; convert it if training cannot read it.

    Args:
        path: the audio.
        name: id of the recording.
        source: where lhotse finds the audio if it is not converted, without its channels.
        key: text that changes when the audio does.
        folder: folder of converted files.
        problem: why the file must be converted, if that is known; or empty.
    """
    origin = str(source.source)
    try:
        audio = open_audio(path)
        problem = audio.libsndfile_problem or problem or _rate_problem(audio.sample_rate)
        rate, num_samples = audio.sample_rate, None if problem else audio.libsndfile_samples()
        if not problem and num_samples is None:
            problem = "libsndfile cannot jump in it, or cannot read it to its end"
        converted = None
        if num_samples is None:
            copy, rate, num_samples = _convert(audio, folder / hashlib.sha256(key.encode()).hexdigest()[:24])
            declared = "" if audio.declared is None else f"{audio.declared / audio.sample_rate:.2f}"
            converted = Converted(origin, str(copy), declared, f"{num_samples / rate:.2f}", problem)
            source = AudioSource("file", [], str(copy))
    except FileNotFoundError:
        return _Opened(Skipped(name, origin, "missing audio", "", "restore the file, or correct its path"))
    except ValueError as error:
        detail = str(error).removeprefix(f"{path}: ").removesuffix(f": {REMEDY}")
        return _Opened(Skipped(name, origin, "unreadable audio", detail, REMEDY))
    if num_samples == 0:
        return _Opened(Skipped(name, origin, "unreadable audio", "no samples", "restore the file"))
    seconds = num_samples / rate
    recording = Recording(
        name, [AudioSource(source.type, list(range(audio.num_channels)), source.source)], rate, num_samples, seconds
    )
    truncated = audio.missing_seconds(round(seconds * audio.sample_rate)) > 0
    return _Opened(recording, converted, (audio.declared or 0) / audio.sample_rate if truncated else None)


def _rate_problem(rate: int) -> str:
    """Why lhotse cannot resample audio of a rate in Hz, or perturb its speed; empty if it can."""
    pairs = [(rate, target) for target in _FEATURE_RATES] + [(round(rate * speed), rate) for speed in _SPEEDS]
    return "" if all(has_small_filter(*pair) for pair in pairs) else f"{rate} Hz is no usual sample rate"


def _convert(audio: AudioFile, stem: Path) -> tuple[Path, int, int]:
    """Write a copy of a file, unless it is there; return its path, sample rate and number of samples.

    Args:
        audio: the file.
        stem: path of the copy without its suffix.

    Raises:
        ValueError: the audio is damaged, or FLAC cannot hold it.
    """
    rate = audio.sample_rate
    if _rate_problem(rate):
        rate = next((usual for usual in _USUAL_RATES if usual >= rate), _USUAL_RATES[-1])
    flac, wav = (stem.with_suffix(suffix) for suffix in (".flac", ".wav"))
    path = wav if wav.exists() else flac
    if not path.exists() and not _write_copy(audio, rate, path, "FLAC", f"PCM_{audio.bits}", _FULL_SCALE):
        path = wav
        _write_copy(audio, rate, path, "RF64", "FLOAT")
    return path, rate, soundfile.info(path).frames


def _write_copy(audio: AudioFile, rate: int, path: Path, format: str, subtype: str, largest: float = math.inf) -> bool:
    """Write a file in a format of libsndfile, unless a sample is larger than ``largest``; return True if written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with soundfile.SoundFile(partial, "w", rate, audio.num_channels, subtype, format=format) as sound:
            for samples in _resampled(audio, rate):
                if np.abs(samples).max(initial=0.0) > largest:
                    return False
                sound.write(samples)
            num_samples = sound.frames
        if num_samples == 0:
            raise ValueError("no samples")
        os.replace(partial, path)
        return True
    except AssertionError:  # soundfile's, for fewer samples written than given
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
    except RuntimeError as error:  # from libsndfile, for example for more than 8 channels
        check_disk_space(path.parent, 1 << 20, "A converted file")
        raise ValueError(f"cannot be converted to FLAC: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _resampled(audio: AudioFile, rate: int) -> Iterator[np.ndarray]:
    """Yield the samples of a file at another rate, in blocks (n, channels)."""
    resamplers = [Resampler(audio.sample_rate, rate) for _ in range(audio.num_channels)]
    for block in audio.blocks():  # (n, channels)
        channels = zip(resamplers, torch.from_numpy(np.ascontiguousarray(block.T)), strict=True)
        yield torch.stack([resampler.accept(one) for resampler, one in channels], 1).numpy()
    yield torch.stack([resampler.finish() for resampler in resamplers], 1).numpy()
