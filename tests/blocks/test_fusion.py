"""Fused formulas: the numbers of unfused ones, a limited number of compilations, and machines without a compiler."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch._inductor import config as inductor
from training_toy import SMALL_ZIP, run, toy_config

from summarymix.blocks.fusion import check_fusion, set_fusion
from summarymix.blocks.mixing import MixingConfig
from summarymix.blocks.regularizers import Balancer
from summarymix.chunking import ChunkConfig
from summarymix.encoder.zipformer import Zipformer
from summarymix.training.schedule import OptimConfig

FIRST = [((90, 70), ChunkConfig(8, 2)), ((61,), ChunkConfig())]
LATER = [
    ((131, 131, 131), ChunkConfig(4, -1)),
    ((99, 50, 88), ChunkConfig(6, 1)),
    ((77,), ChunkConfig(8, 0)),
    ((200, 100), ChunkConfig(16, 2, 4)),
    ((55, 33, 44, 44), ChunkConfig()),
]


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    """A test begins without compiled functions, and fusion is off after it."""
    torch.compiler.reset()
    counters.clear()
    yield
    set_fusion(False)


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++, which torch.compile calls for a CPU")
def test_fused_encoder_has_the_same_gradients_and_compiles_in_the_first_batches_only() -> None:
    torch.manual_seed(0)
    encoder = Zipformer(SMALL_ZIP, MixingConfig(), 20, dropout=0.0).train()
    for module in encoder.modules():
        if isinstance(module, Balancer):
            module.prob = 1.0

    def frames_and_gradient(fuse: bool, lengths: tuple[int, ...], chunk: ChunkConfig) -> Tensor:
        set_fusion(fuse)
        torch.manual_seed(1)
        encoder.zero_grad()
        out, _ = encoder(torch.randn(len(lengths), max(lengths), 20), torch.tensor(lengths), chunk)
        out.square().sum().backward()
        return torch.cat([out.detach().flatten()] + [p.grad.flatten() for p in encoder.parameters()])

    for batches, stance in ((FIRST, "default"), (LATER, "fail_on_recompile")):
        for batch in batches:
            with torch.compiler.set_stance(stance), inductor.patch(compile_threads=1):
                fused = frames_and_gradient(True, *batch)
            plain = frames_and_gradient(False, *batch)
            assert ((fused - plain).norm() / plain.norm()).item() < 1e-5
    assert counters["stats"]["unique_graphs"] > 5


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++, which torch.compile calls for a CPU")
def test_training_compiles_if_it_is_told_to(tmp_path: Path) -> None:
    toy = toy_config(tmp_path)
    sizes = replace(toy.model, encoder="zipformer", zipformer=replace(SMALL_ZIP, frontend_channels=(4, 4, 4)))
    config = replace(toy, model=sizes, num_epochs=1, max_steps=1, compile=True, optim=OptimConfig())
    with inductor.patch(compile_threads=1):
        run(config)
    assert counters["stats"]["unique_graphs"] > 5


def test_a_machine_without_compiler_is_refused() -> None:
    with (
        inductor.patch({"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}),
        pytest.raises(
            ValueError, match=r"--compile needs a C\+\+ compiler such as g\+\+: install what is missing, or leave"
        ),
    ):
        check_fusion(torch.device("cpu"))
