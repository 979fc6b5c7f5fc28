"""The module of an encoder's layer through which frames see each other: SummaryMixing, or attention to compare with."""

from dataclasses import dataclass
from typing import Literal

from summarymix.blocks.attention import RelativeAttention
from summarymix.blocks.mixing import MixingMode, MixingOptions, SummaryMixing


@dataclass
class MixerConfig(MixingOptions):
    """What all encoders let one choose about how frames see each other: the variants of SummaryMixing, and

    Args:
        mixing: which SummaryMixing: merged, full, lite, or the control local. Or attention: self-attention with
            relative positions, to compare with.
    """

    mixing: Literal[MixingMode, "attention"] = "merged"


def make_mixer(
    config: MixerConfig, dim: int, summary_dim: int, num_heads: int, dropout: float
) -> SummaryMixing | RelativeAttention:
    """The mixer of a layer of width ``dim``.

    Args:
        config: which one.
        dim: D, features in and out.
        summary_dim: width of the local and of the summary branch; attention has none.
        num_heads: of attention; SummaryMixing has none.
        dropout: of attention's weights.

    Raises:
        ValueError: an option that this kind of mixing does not have.
    """
    if config.mixing == "attention":
        config.check(config.mixing)
        return RelativeAttention(dim, num_heads, dropout)
    return SummaryMixing(dim, summary_dim, config.mixing, options=config)
