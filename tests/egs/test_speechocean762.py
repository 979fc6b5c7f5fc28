"""speechocean762's download and prepare.sh on a miniature tree in the published layout."""

import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from programs import run_program
from server import serve

from summarymix.data.manifests import read_cuts
from summarymix.data.tokens import Tokenizer

RECIPE = Path(__file__).parents[2] / "egs" / "speechocean762" / "ASR"


@pytest.fixture
def dl_dir(tmp_path: Path) -> Path:
    """Eight speakers of train and three of test, six utterances of noise each."""
    rng = np.random.default_rng(0)
    root = tmp_path / "download" / "speechocean762"
    for split, speakers in (("train", range(1, 9)), ("test", range(11, 14))):
        lines: dict[str, list[str]] = {"wav.scp": [], "text": [], "utt2spk": []}
        for speaker in speakers:
            for i in range(6):
                name = f"{speaker:05d}{i:04d}"
                wav = root / "WAVE" / f"SPEAKER{speaker:04d}" / f"{name}.WAV"
                wav.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(wav, rng.normal(0, 0.1, 20000).clip(-1, 1), 16000, format="WAV")
                lines["wav.scp"].append(f"{name}\t{wav.relative_to(root)}\n")
                lines["text"].append(f"{name}\tWE CALL IT BEAR {'AB'[i % 2]}\n")
                lines["utt2spk"].append(f"{name} {speaker:04d}\n")
        for name, rows in lines.items():
            (root / split).mkdir(exist_ok=True)
            (root / split / name).write_text("".join(rows))
    return root.parent


def test_prepare(fast_python: dict[str, str], dl_dir: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    command = [RECIPE / "prepare.sh", "--dl-dir", dl_dir, "--data-dir", data, "--nj", "1", "--speed-perturb", "0.9"]
    done = subprocess.run(command, capture_output=True, text=True, env=fast_python)
    assert done.returncode == 0, done.stderr
    assert "is there already" in done.stdout  # nothing is downloaded
    cuts = {s: list(read_cuts(data / "fbank" / f"speechocean762_cuts_{s}.jsonl.gz")) for s in ("train", "dev", "test")}
    speakers = {split: {cut.supervisions[0].speaker for cut in cuts[split]} for split in cuts}
    assert speakers["test"] == {"0011", "0012", "0013"}
    assert len(speakers["train"] | speakers["dev"]) == 8
    assert not speakers["train"] & speakers["dev"]
    assert len(cuts["train"]) == 12 * len(speakers["train"])  # at two speeds
    assert cuts["test"][0].supervisions[0].text.startswith("WE CALL IT BEAR")
    (dl_dir / "speechocean762/WAVE/SPEAKER0001/000010000.WAV").unlink()
    again = subprocess.run([*command, "--stop-stage", "1"], capture_output=True, text=True, env=fast_python)
    assert "000010000.WAV has changed since stage 1" in again.stdout
    assert "1 missing audio" in again.stdout
    with (dl_dir / "speechocean762/train/text").open("a") as file:
        file.write("000020000\tWE CALL IT BEAR C\n")
    again = subprocess.run([*command, "--stop-stage", "1"], capture_output=True, text=True, env=fast_python)
    assert "Stage 1: Manifests: done" in again.stdout
    again = subprocess.run([*command, "--stop-stage", "1"], capture_output=True, text=True, env=fast_python)
    assert "Stage 1: Manifests: already done" in again.stdout
    assert set("WECALITBR") <= set(Tokenizer.from_lang_dir(data / "lang_char").tokens)


def test_an_archive_that_is_not_the_published_one_is_refused(dl_dir: Path, tmp_path: Path) -> None:
    server_dir = tmp_path / "server" / "101"
    server_dir.mkdir(parents=True)
    with tarfile.open(server_dir / "speechocean762.tar.gz", "w:gz") as tar:
        tar.add(dl_dir / "speechocean762", "speechocean762")
    with serve(tmp_path / "server") as server:
        done = run_program(RECIPE / "local/download.py", "--dl-dir", tmp_path / "new", "--base-url", server.url)
    assert server.requests[0][0] == "/101/speechocean762.tar.gz"
    assert done.returncode == 1
    assert "instead of 520810923" in done.stderr
    assert not (tmp_path / "new" / "speechocean762").exists()
