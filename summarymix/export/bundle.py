"""Folder of an exported model: everything that another program needs to recognise speech with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

from summarymix.chunking import ChunkConfig
from summarymix.cli import progress_bar
from summarymix.data.features import FbankOptions, trained_on
from summarymix.data.tokens import Tokenizer
from summarymix.export.check import ExportCheck, Graphs
from summarymix.export.graphs import Graph, OfflineEncoder, StreamingEncoder, offline_graphs, streaming_graphs
from summarymix.export.onnx import ENDINGS, Precision, check_file, convert, load_onnx, write_onnx
from summarymix.export.readme import About, EncoderFile, describe
from summarymix.export.torchscript import load_torchscript, write_torchscript
from summarymix.files import atomic_write, new_folder
from summarymix.model import Transducer
from summarymix.runs import model_digest

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
        chunks: chunk sizes and look-aheads with one left context, an encoder for each; full context for onnx.
        precisions: precisions of ONNX files besides fp32.
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
    chunks: Sequence[ChunkConfig]
    precisions: Sequence[Precision] = ()
    rnnt_type: str = "regular"

    def __post_init__(self) -> None:
        if self.precisions and self.format == "torchscript":
            raise ValueError(f"--{self.precisions[0]} only applies to ONNX: choose --format onnx or onnx-streaming")
        for chunk in self.chunks:
            if (chunk.chunk_size is None) != (self.format == "onnx"):
                raise ValueError(
                    f"--format {self.format} does not allow {chunk}: onnx has full context, other formats have chunks"
                )
            if chunk.chunk_size is not None and chunk.left_chunks < 0 and "fp16" in self.precisions:
                raise ValueError(
                    "--fp16 needs a limited left context, such as --left-chunks 4: the sums of a long stream exceed "
                    "float16"
                )
        if len(set(self.chunks)) < len(self.chunks):
            raise ValueError("--chunk-ms or --lookahead-ms has a value twice: give each once")
        if self.tokenizer.vocab_size != self.model.config.vocab_size:
            raise ValueError(
                f"the checkpoint is damaged: its tokenizer has {self.tokenizer.vocab_size} tokens, "
                f"its model {self.model.config.vocab_size}"
            )

    @classmethod
    def of_run(
        cls,
        model: Transducer,
        tokenizer: Tokenizer,
        info: dict[str, Any],
        format: Format,
        chunks: Sequence[ChunkConfig],
        precisions: Sequence[Precision] = (),
    ) -> "Export":
        """Make the export of a model that :func:`summarymix.runs.load_model` has loaded; the other values are options.

        Raises:
            ValueError: options exclude each other.
        """
        data, rnnt_type = info["config"]["data"], info["config"]["loss"]["rnnt_type"]
        run = info["recipe"], info["epoch"], info["avg"]
        return cls(model, tokenizer, trained_on(data), *run, format, chunks, precisions, rnnt_type)

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
            for graph in progress_bar(graphs, desc="export", bar_format="{desc} {n}/{total} |{bar:20}| {elapsed}"):
                if self.format == "torchscript":
                    write_torchscript(graph, folder / f"{graph.name}.pt")
                else:
                    source = folder / f"{graph.name}.onnx"
                    write_onnx(graph, source)
                    for precision in self.precisions:
                        convert(graph, source, folder / (graph.name + ENDINGS[precision]), precision)
            self.tokenizer.write(folder)
            with atomic_write(folder / "README.md") as file:
                file.write(describe(self.about(graphs)))
            self.check(folder, graphs)
        return [BYTES_WARNING] if taken_for_bytes(self.tokenizer.tokens) else []

    def graphs(self) -> list[Graph]:
        """Graphs of encoders, decoder and joiner."""
        about = {
            "version": "1",
            "model_author": "summarymix",
            "comment": f"SummaryMixing transducer, {self.name}",
            "recipe": self.recipe,
            "epoch": str(self.epoch),
            "avg": str(self.avg),
            "sample_rate": str(self.fbank.sample_rate),
            "feature_dim": str(self.fbank.num_mel_bins),
            "tail_frames": str(self.fbank.tail_frames),
            "rnnt_type": self.rnnt_type,
            "model_digest": model_digest(self.model, self.tokenizer),
        }
        if self.format == "onnx":
            return offline_graphs(self.model, about)
        return streaming_graphs(self.model, self.chunks, about)

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
        for precision in ("fp32", *self.precisions):
            paths = {graph.name: folder / (graph.name + ENDINGS[precision]) for graph in graphs}
            for graph in graphs:
                check_file(graph, paths[graph.name])
            self.compare(graphs, {name: load_onnx(path) for name, path in paths.items()}, precision)

    def compare(self, graphs: list[Graph], functions: Graphs, precision: Precision = "fp32") -> None:
        """Compare the outputs of the files with the model's."""
        comparison = ExportCheck(self.model, functions, precision)
        for graph in graphs:
            encoder = graph.module
            if isinstance(encoder, StreamingEncoder):
                comparison.streaming(graph.name, encoder.chunk, (encoder.summary_size, encoder.convolution_size))
            elif isinstance(encoder, OfflineEncoder):
                comparison.offline(graph.name)
        comparison.tokens()

    def about(self, graphs: list[Graph]) -> About:
        """Contents of the README."""
        files = []
        precisions: tuple[Precision, ...] = ("fp32", *self.precisions)
        for graph, precision in product(graphs, precisions):
            if isinstance(graph.module, StreamingEncoder):
                files.append(EncoderFile(graph.name, precision, graph.module.chunk, graph.module.state_bytes))
            elif isinstance(graph.module, OfflineEncoder):
                files.append(EncoderFile(graph.name, precision, ChunkConfig(), None))
        return About(self.name, self.format, files, self.fbank)


BYTES_WARNING = (
    "warning: sherpa-onnx will take these tokens for byte-level BPE and print garbage, because their highest byte is "
    "0xC6. Remove the letters U+0180 to U+01BF from the transcripts"
)


def taken_for_bytes(tokens: list[str]) -> bool:
    """True if sherpa-onnx (2.0) mistakes the tokens for byte-level BPE. It guesses from the tokens alone."""
    text = "".join(token.removeprefix("\u2581") for token in tokens)
    return max(text.encode(), default=0) == 0xC6
