"""Tiny corpora in the published layouts of corpora that lhotse has recipes for."""

import itertools
import json
from pathlib import Path

import numpy as np
import soundfile

WORDS = ["Hello,", "we", "aren't", "there", "yet."]


def noise(path: Path, seconds: float = 0.8, rate: int = 16000) -> Path:
    """Write noise; the suffix chooses the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(len(path.stem)).uniform(-0.1, 0.1, int(rate * seconds))
    if path.suffix == ".opus":
        soundfile.write(path, samples, rate, format="OGG", subtype="OPUS")
    elif path.suffix == ".sph":
        soundfile.write(path, samples, rate, format="NIST", subtype="PCM_16")
    else:
        soundfile.write(path, samples, rate)
    return path


def lines(path: Path, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


def text(number: int) -> str:
    return " ".join(WORDS[(number + i) % len(WORDS)] for i in range(3))


def yesno(folder: Path) -> Path:
    """60 files, whose names are the transcripts."""
    for answers in itertools.islice(itertools.product("01", repeat=8), 60):
        noise(folder / f"{'_'.join(answers)}.wav", 2, rate=8000)
    return folder


def commonvoice(folder: Path, languages: tuple[str, ...] = ("en", "cs")) -> Path:
    """Languages with tables of splits; cs lacks a clip of dev, and en has one that no table names."""
    header = ["client_id", "path", "sentence", "up_votes", "down_votes", "age", "gender", "accents", "variant"]
    for language in languages:
        for split, count in (("train", 8), ("dev", 3), ("test", 3)):
            rows = ["\t".join([*header, "locale", "segment"])]
            for i in range(count):
                name = f"common_voice_{language}_{split}{i}.mp3"
                speaker, sentence = f"{language}-{split}-{i % 4}", f'"{text(i)}' if i == 1 else text(i)
                rows.append("\t".join([speaker, name, sentence, "2", "0", "", "", "", "", language, ""]))
                if (language, split, i) != ("cs", "dev", 2):
                    noise(folder / language / "clips" / name, rate=32000)
            lines(folder / language / f"{split}.tsv", *rows)
    noise(folder / "en" / "clips" / "common_voice_en_spare.mp3", rate=32000)
    return folder


def tedlium(folder: Path) -> Path:
    """Talks with time-marked segments, one of which is not to be scored."""
    for split in ("train", "dev", "test"):
        for i in range(2):
            talk = f"{split.capitalize()}Speaker_{i}"
            noise(folder / "legacy" / split / "sph" / f"{talk}.sph", 4)
            rows = [f"{talk} 1 {talk} {j}.00 {j}.90 <o,f0,male> {text(j).lower()} <unk>" for j in range(3)]
            rows.append(f"{talk} 1 {talk} 3.00 3.90 <o,f0,male> ignore_time_segment_in_scoring")
            lines(folder / "legacy" / split / "stm" / f"{talk}.stm", *rows)
    return folder


def aishell(folder: Path) -> Path:
    """Mandarin; one file has no transcript."""
    rows = []
    for number, split in enumerate(("train", "dev", "test")):
        for i in range(3):
            id_ = f"BAC009S000{number}W012{i}"
            noise(folder / "data_aishell" / "wav" / split / f"S000{number}" / f"{id_}.wav")
            rows.append(f"{id_} 而 对 楼市 成交 {'抑制' if i else '作用'}")
    lines(folder / "data_aishell" / "transcript" / "aishell_transcript_v0.8.txt", *rows[:-1])
    return folder


def aishell3(folder: Path) -> Path:
    """Mandarin with pinyin; no dev split."""
    lines(
        folder / "spk-info.txt",
        "# speaker\tage\tgender\taccent",
        *(f"SSB00{i}\tB\tfemale\tnorth" for i in range(20, 26)),
    )
    lines(folder / "train" / "label_train-set.txt", "# labels", "SSB00200001|guang3 zhou1|guang % zhou $")
    for split, speakers in (("train", range(20, 28)), ("test", range(30, 32))):
        rows = []
        for speaker in speakers:
            id_ = f"SSB00{speaker}0001"
            noise(folder / split / "wav" / f"SSB00{speaker}" / f"{id_}.wav", rate=44100)
            rows.append(f"{id_}.wav\t广 guang3 州 zhou1")
        lines(folder / split / "content.txt", *rows)
    return folder


def fleurs(folder: Path, languages: tuple[str, ...] = ("en_us", "th_th")) -> Path:
    """Languages with a folder of tables beside theirs; prompts and their numbers are common to all."""
    for language in languages:
        for split in ("train", "dev", "test"):
            rows = []
            for i in range(3):
                name = f"{abs(hash_of(language, split, i))}.wav"
                noise(folder / language / split / name)
                sentence = "ผมรักภาษาไทย" if language == "th_th" else text(i).lower()
                rows.append("\t".join([str(i), name, sentence, sentence, "x |", "12800", "MALE"]))
            lines(folder / "metadata" / language / f"{split}.tsv", *rows)
    return folder


def hash_of(language: str, split: str, number: int) -> int:
    return int.from_bytes(f"{language}{split}{number}".encode()) % 10**18


def mls(folder: Path) -> Path:
    """Audiobooks in Opus, one folder per language."""
    for split in ("train", "dev", "test"):
        rows = []
        for i in range(3):
            id_ = f"{i}_{len(split)}_00000{i}"
            noise(folder / "mls_polish_opus" / split / "audio" / str(i) / str(len(split)) / f"{id_}.opus", rate=48000)
            rows.append(f"{id_}\tzażółć gęślą jaźń")
        lines(folder / "mls_polish_opus" / split / "transcripts.txt", *rows)
    lines(folder / "mls_polish_opus" / "metainfo.txt", *(f"{i} | F | train | 1 | t | 1" for i in range(3)))
    return folder


def ljspeech(folder: Path) -> Path:
    """One speaker without splits; one row has no audio."""
    for i in range(12):
        noise(folder / "wavs" / f"LJ001-{i:04}.wav", rate=22050)
    lines(folder / "metadata.csv", *(f"LJ001-{i:04}|{text(i)}|{text(i)}" for i in range(13)))
    return folder


def hifitts(folder: Path) -> Path:
    """Partitions named by reader and quality first."""
    for split in ("train", "dev", "test"):
        rows = []
        for i in range(2):
            name = f"audio/92_clean/{split}{i}.flac"
            noise(folder / name, rate=44100)
            rows.append(json.dumps({"audio_filepath": name, "text": "one two", "text_normalized": "One, two."}))
        lines(folder / f"92_manifest_clean_{split}.json", *rows)
    return folder


def wenet_speech(folder: Path) -> Path:
    """Sizes of the training data as names of splits."""
    audios = []
    for i, subsets in enumerate((["L", "M"], ["L"], ["L"], ["DEV"], ["TEST_NET"])):
        noise(folder / "audio" / f"Y{i}.opus", 3)
        segments = [
            {
                "sid": f"Y{i}_S{j}",
                "begin_time": j,
                "end_time": j + 0.9,
                "text": "你好",
                "subsets": subsets,
                "confidence": 1,
            }
            for j in range(3)
        ]
        audios.append(
            {"aid": f"Y{i}", "path": f"audio/Y{i}.opus", "segments": segments, "duration": 3.0, "url": "", "md5": ""}
        )
    lines(folder / "WenetSpeech.json", json.dumps({"audios": audios}))
    return folder


def emilia(folder: Path) -> Path:
    """One language, whose recipe gives cuts without splits."""
    rows = []
    for i in range(12):
        name = f"EN_B00000/EN_B00000_S{i:05}/mp3/EN_B00000_S{i:05}_W000000.mp3"
        noise(folder / "raw" / "EN" / name, rate=24000)
        rows.append(json.dumps({"wav": name, "text": f" {text(i)}", "speaker": f"S{i}", "language": "en", "dnsmos": 3}))
    lines(folder / "raw" / "EN" / "EN_B00000.jsonl", *rows)
    return folder


def musan(folder: Path) -> Path:
    """Noise, without transcripts."""
    for kind in ("music", "speech", "noise"):
        noise(folder / kind / "free" / f"{kind}.wav")
    lines(folder / "music" / "free" / "ANNOTATIONS", "music jazz N someone")
    return folder
