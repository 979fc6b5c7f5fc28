"""Pruned RNN-T loss: the six functions of k2. k2 computes the losses if installed, PyTorch the pruning."""

from summarymix.loss.interface import (
    do_rnnt_pruning,
    get_rnnt_prune_ranges,
    loss_backend,
    rnnt_loss,
    rnnt_loss_pruned,
    rnnt_loss_simple,
    rnnt_loss_smoothed,
)

__all__ = [
    "do_rnnt_pruning",
    "get_rnnt_prune_ranges",
    "loss_backend",
    "rnnt_loss",
    "rnnt_loss_pruned",
    "rnnt_loss_simple",
    "rnnt_loss_smoothed",
]
