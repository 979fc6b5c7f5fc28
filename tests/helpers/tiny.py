"""Configuration of tiny transducers with either encoder."""

from typing import Any

from summarymix.configs import upgraded
from summarymix.model import ModelConfig


def tiny_config(encoder: str = "conformer", **changes: Any) -> ModelConfig:
    """Make the configuration. Its zip-style encoder takes chunks of any size.

    ``changes`` are names of options before they were nested: fields of the model, or fields of the Conformer whose
    names the model does not have.
    """
    zipformer = {
        "downsampling": (1, 2),
        "num_layers": (1, 1),
        "dims": (12, 16),
        "feedforward_dims": (16, 24),
        "kernel_sizes": (7, 5),
        "summary_dims": (8, 12),
        "num_heads": (1, 1),
        "frontend_channels": (2, 3, 4),
    }
    sizes: dict[str, Any] = {
        "encoder": encoder,
        "zipformer": zipformer,
        "feature_dim": 16,
        "frontend_channels": (4, 4),
        "num_layers": 2,
        "dim": 16,
        "feedforward_dim": 24,
        "kernel_size": 7,
        "summary_dim": 16,
        "predictor_dim": 8,
        "joiner_dim": 12,
        "vocab_size": 11,
    }
    return ModelConfig.from_plain(upgraded({"model": sizes | changes})["model"])
