"""The arithmetic of tiny encoders, counted by machine and by hand."""

import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from summarymix.blocks.mixing import MixingConfig
from summarymix.chunking import ChunkConfig
from summarymix.encoder.conformer import ConformerConfig
from summarymix.model import ModelConfig, Transducer

PROGRAM = Path(__file__).parents[2] / "tools" / "count_flops.py"

F, C1, C2, D, H, KERNEL, P, LAYERS = 10, 2, 3, 8, 12, 5, 6, 2


def config(mixing: str) -> ModelConfig:
    sizes = ConformerConfig((C1, C2), LAYERS, D, H, KERNEL, summary_dim=P, num_heads=2)
    return ModelConfig(feature_dim=F, conformer=sizes, vocab_size=7, mixing=MixingConfig(mixing))


@pytest.mark.parametrize("mixing", ["merged", "local", "attention"])
@pytest.mark.parametrize("chunk", [ChunkConfig(), ChunkConfig(4)], ids=["offline", "chunked"])
def test_multiply_adds_by_hand(mixing: str, chunk: ChunkConfig) -> None:
    features = 43
    t1, f1 = 21, 5
    t2, f2 = 10, 3
    frontend = t1 * f1 * C1 * 9 + t2 * f2 * C2 * 9 * C1 + t2 * f2 * C2 * D
    chunks, size = (1, t2) if chunk.chunk_size is None else (3, 4)
    frames = chunks * size  # the last chunk is computed whole
    if mixing == "merged":
        mixer = frames * D * 2 * P + frames * P * D + chunks * P * D
    elif mixing == "local":
        mixer = frames * D * P + frames * P * D
    else:
        distances = frames + size
        mixer = frames * D * 3 * D + distances * D * D + frames * D * (2 * frames + distances) + frames * D * D
    layer = 2 * frames * 2 * D * H + mixer + frames * D * 2 * D + frames * D * KERNEL + frames * D * D

    tool = runpy.run_path(str(PROGRAM))
    counted = tool["encoder_flops"](Transducer(config(mixing)).eval().encoder, F, features, chunk)
    assert counted == 2 * (frontend + LAYERS * layer)


def test_fused_attention_is_counted() -> None:
    class Attention(torch.nn.Module):
        def forward(self, features: torch.Tensor, lengths: torch.Tensor, chunk: ChunkConfig) -> torch.Tensor:
            return torch.nn.functional.scaled_dot_product_attention(features, features, features)

    tool = runpy.run_path(str(PROGRAM))
    assert tool["encoder_flops"](Attention(), 16, 20, ChunkConfig()) == 2 * 2 * 20 * 20 * 16


def test_a_row_for_each_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    sizes = {"frontend_channels": [C1, C2], "num_layers": LAYERS, "dim": D, "feedforward_dim": H}
    sizes |= {"kernel_size": KERNEL, "summary_dim": P}
    base, overlay = tmp_path / "base.yaml", tmp_path / "local.yaml"
    base.write_text(yaml.safe_dump({"model": {"conformer": sizes}, "data": {"num_mel_bins": F}}))
    overlay.write_text("model:\n  mixing:\n    mode: local\n")
    monkeypatch.setattr(sys, "argv", ["count_flops.py", "--config", str(base), "--config", str(base), str(overlay)])
    runpy.run_path(str(PROGRAM), run_name="__main__")
    out = capsys.readouterr().out
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines()[:7]]
    assert header[1:] == ["encoder M", "rest M", "total M", "GFLOPs/s offline", "GFLOPs/s 640 ms"]
    names = ["base", "base + local", *(f"icefall Zipformer-{size}" for size in "SML")]
    assert [row[0] for row in rows] == names
    # The local control has no summary half of projection and combiner.
    parameters = sum(p.numel() for p in Transducer(replace(config("local"), vocab_size=500)).parameters())
    assert rows[1][3] == f"{parameters / 1e6:.2f}"
    assert rows[2][1:] == ["21.99", "1.30", "23.29", "1.355", "1.358"]
