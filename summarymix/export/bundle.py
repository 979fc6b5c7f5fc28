"""Folder of an exported model: everything that another program needs to recognise speech with it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from summarymix.chunking import ChunkConfig
from summarymix.data.features import FbankOptions
from summarymix.data.tokens import Tokenizer
from summarymix.export.check import ExportCheck, Graphs
from summarymix.export.graphs import Graph, StreamingEncoder, offline_graphs, streaming_graphs
from summarymix.export.onnx import QUANTIZED, check_file, load_onnx, quantize, write_onnx
from summarymix.export.readme import describe
from summarymix.export.torchscript import load_torchscript, write_torchscript
from summarymix.files import atomic_write, new_folder
from summarymix.model import Transducer

Format = Literal["onnx-streaming", "onnx", "torchscript"]


@dataclass(frozen=True)
class Export:
    """A model and the settings of its export.

    Args:
        model: in evaluation mode, on the CPU.
        tokenizer: the model's tokenizer.
        fbank: the training features.
        recipe: recipe of the run.
        epoch: last averaged epoch.
        avg: number of averaged epochs.
        format: onnx-streaming and onnx for sherpa-onnx; torchscript for libtorch, streaming.
        chunk: chunk size and left context; full context for onnx.
        int8: also write ONNX files with int8 weights.
        rnnt_type: lattice that the model was trained with.

    Raises:
        ValueError: options exclude each other.
    """

    model: Transducer
    tokenizer: Tokenizer
    fbank: FbankOptions
    recipe: str
    epoch: int
    avg: int
    format: Format
    chunk: ChunkConfig
    int8: bool = False
    rnnt_type: str = "regular"

    def __post_init__(self) -> None:
        if self.int8 and self.format == "torchscript":
            raise ValueError("--int8 only applies to ONNX: choose --format onnx or onnx-streaming")
        if (self.chunk.chunk_size is None) != (self.format == "onnx"):
            raise ValueError(
                f"--format {self.format} does not allow {self.chunk}: onnx has full context, other formats have chunks"
            )
        if self.tokenizer.vocab_size != self.model.config.vocab_size:
            raise ValueError(
                f"the checkpoint is damaged: its tokenizer has {self.tokenizer.vocab_size} tokens, "
                f"its model {self.model.config.vocab_size}"
            )

    @property
    def name(self) -> str:
        """Recipe, epoch and number of averaged epochs, for display."""
        return f"{self.recipe}, epoch {self.epoch}, avg {self.avg}"

    def write(self, out: Path) -> list[str]:
        """Write the folder, completely or not at all.

        Args:
            out: the folder; must not exist yet.

        Returns:
            Warnings to print.

        Raises:
            ValueError: the model cannot be exported.
            ImportError: a package is missing; the message names it.
            FileExistsError: the folder exists.
            RuntimeError: the files do not compute what the model computes.
        """
        graphs = self.graphs()
        with new_folder(out) as folder:
            for graph in graphs:
                if self.format == "torchscript":
                    write_torchscript(graph, folder / f"{graph.name}.pt")
                else:
                    write_onnx(graph, folder / f"{graph.name}.onnx")
                    if self.int8:
                        names = f"{graph.name}.onnx", f"{graph.name}.int8.onnx"
                        quantize(folder / names[0], folder / names[1], QUANTIZED[graph.name])
            self.tokenizer.write(folder)
            with atomic_write(folder / "README.md") as file:
                file.write(describe(self.name, self.format, self.chunk, self.fbank, self.int8))
            self.check(folder, graphs)
        return [BYTES_WARNING] if taken_for_bytes(self.tokenizer.tokens) else []

    def graphs(self) -> list[Graph]:
        """Graphs of encoder, decoder and joiner."""
        about = {
            "version": "1",
            "model_author": "summarymix",
            "comment": f"SummaryMixing transducer, {self.name}",
            "recipe": self.recipe,
            "epoch": str(self.epoch),
            "avg": str(self.avg),
            "sample_rate": str(self.fbank.sample_rate),
            "feature_dim": str(self.fbank.num_mel_bins),
            "rnnt_type": self.rnnt_type,
        }
        if self.format == "onnx":
            return offline_graphs(self.model, about)
        return streaming_graphs(self.model, self.chunk, about)

    def check(self, folder: Path, graphs: list[Graph]) -> None:
        """Check the written files.

        Raises:
            RuntimeError: a file is wrong; the message names the defect.
        """
        lines = (folder / "tokens.txt").read_text(encoding="utf-8").splitlines()
        if [line.rsplit(" ", 1)[1] for line in lines] != [str(i) for i in range(self.model.config.vocab_size)]:
            raise RuntimeError(f"tokens.txt does not list the model's {self.model.config.vocab_size} tokens")
        if self.format == "torchscript":
            self.compare(graphs, {graph.name: load_torchscript(folder / f"{graph.name}.pt") for graph in graphs})
            return
        for ending in (".onnx", ".int8.onnx") if self.int8 else (".onnx",):
            paths = {graph.name: folder / (graph.name + ending) for graph in graphs}
            for graph in graphs:
                check_file(graph, paths[graph.name])
            self.compare(graphs, {name: load_onnx(path) for name, path in paths.items()}, is_exact=ending == ".onnx")

    def compare(self, graphs: list[Graph], functions: Graphs, is_exact: bool = True) -> None:
        """Compare the outputs of the files with the model's; only their shapes unless ``is_exact``."""
        comparison = ExportCheck(self.model, functions, **({} if is_exact else {"tolerance": float("inf")}))
        encoder = graphs[0].module
        if isinstance(encoder, StreamingEncoder):
            comparison.streaming(self.chunk, (encoder.summary_size, encoder.convolution_size))
        else:
            comparison.offline()


BYTES_WARNING = (
    "warning: sherpa-onnx will take these tokens for byte-level BPE and print garbage, because their highest byte is "
    "0xC6. Remove the letters U+0180 to U+01BF from the transcripts"
)


def taken_for_bytes(tokens: list[str]) -> bool:
    """True if sherpa-onnx (2.0) mistakes the tokens for byte-level BPE. It guesses from the tokens alone."""
    text = "".join(token.removeprefix("\u2581") for token in tokens)
    return max(text.encode(), default=0) == 0xC6
