"""Training of RNN language models, called by ``local/train_rnn_lm.py``."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from summarymix.cli import progress_bar, say
from summarymix.configs import config_differences
from summarymix.data.tokens import Tokenizer
from summarymix.lm.rnn import RnnLM, RnnLMConfig, read_rnn_lm, save_rnn_lm
from summarymix.lm.text import Sentences
from summarymix.seeding import reseed
from summarymix.training.optim import make_optimizer
from summarymix.training.schedule import OptimConfig, cosine_factor


@dataclass(frozen=True)
class RnnLMTraining:
    """Configuration of an RNN language model and of its training.

    Args:
        dim: width of the embeddings and of the LSTM.
        num_layers: LSTM layers.
        dropout: dropout probability.
        num_epochs: passes over the text.
        batch_tokens: maximum tokens in a batch, padding included.
        lr: peak learning rate of AdamW.
        warmup_steps: steps until the learning rate reaches its peak.
        seed: seed of weights, batches and dropout.
    """

    dim: int
    num_layers: int
    dropout: float
    num_epochs: int
    batch_tokens: int
    lr: float
    warmup_steps: int
    seed: int


class RnnLMRun:
    """A training run, from the state of its file to the last epoch.

    Args:
        path: file of the language model. It is written after each epoch, with the weights of the best epoch so far and
            everything that the next epoch needs; training resumes from an existing file.
        config: configuration of model and training.
        tokenizer: the transducer's tokenizer.
        data: training text.
        dev: text that selects the best epoch.
        sources: names of the texts, by option. Training does not resume from a file with other sources.
        device: device to train on.

    Raises:
        ValueError: the file belongs to another run, or is not a language model.
    """

    def __init__(
        self,
        path: Path,
        config: RnnLMTraining,
        tokenizer: Tokenizer,
        data: Sentences,
        dev: Sentences,
        sources: dict[str, str],
        device: torch.device,
    ) -> None:
        self.path = path
        self.config = config
        self.tokenizer = tokenizer
        self.data = data
        self.dev = dev
        reseed(config.seed)
        self.lm = RnnLM(RnnLMConfig(config.dim, config.num_layers, config.dropout, tokenizer.vocab_size)).to(device)
        self.optim = OptimConfig("adamw", lr=config.lr, warmup_steps=config.warmup_steps, clip_norm=1.0)
        self.optimizer = make_optimizer(self.lm, self.optim)
        sizes = {"sentences": len(data), "words": data.num_words, "tokens": data.num_tokens}
        self.options = sources | asdict(config) | sizes | {"text_checksum": data.checksum, "dev_checksum": dev.checksum}
        self.step = 0
        self.perplexities: list[float] = []  # dev perplexity of each epoch
        self.best: dict[str, Any] = {}  # weights of the best epoch
        text = ", ".join(f"{count} {name}" for name, count in sizes.items())
        parameters = sum(parameter.numel() for parameter in self.lm.parameters())
        say(f"{text}; {len(dev)} dev sentences; {parameters / 1e6:.1f} M parameters")
        if path.exists():
            self._resume()

    def train(self) -> None:
        """Train the remaining epochs.

        Raises:
            ValueError: the loss is not finite.
            OSError: the file cannot be written.
        """
        for epoch in range(len(self.perplexities) + 1, self.config.num_epochs + 1):
            by_token, by_word = perplexity(self._train_epoch(epoch), self.data)
            dev_loss = self._dev_loss()
            if not math.isfinite(dev_loss):
                raise ValueError("the loss is not finite: lower --lr and train again with another --out")
            dev_by_token, dev_by_word = perplexity(dev_loss, self.dev)
            say(
                f"epoch {epoch}: perplexity per token {by_token:.3f}, dev {dev_by_token:.3f}; "
                f"per word {by_word:.1f}, dev {dev_by_word:.1f}"
            )
            self._save(dev_by_token)
        say(f"Epoch {self.perplexities.index(min(self.perplexities)) + 1} is the best")

    def _train_epoch(self, epoch: int) -> float:
        """Train one epoch, and return the sum of all sentences' losses."""
        config = self.config
        reseed(config.seed, epoch)
        self.lm.train()
        total = torch.zeros((), dtype=torch.float64, device=self.lm.bias.device)
        batches = self.data.batches(config.batch_tokens, torch.Generator().manual_seed(config.seed + epoch))
        for i, numbers in enumerate(progress_bar(batches, f"epoch {epoch}/{config.num_epochs}")):
            sentences = self.data.select(numbers)
            loss = -self.lm.sentence_log_probs(sentences).sum()
            (loss / sum(len(sentence) + 1 for sentence in sentences)).backward()
            torch.nn.utils.clip_grad_norm_(self.lm.parameters(), self.optim.clip_norm)
            progress = (epoch - 1 + i / len(batches)) / config.num_epochs
            for group in self.optimizer.param_groups:
                group["lr"] = self.optim.lr * cosine_factor(self.step, progress, self.optim)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.step += 1
            total += loss.detach()
        return total.item()

    @torch.inference_mode()
    def _dev_loss(self) -> float:
        """Return the sum of the dev sentences' losses."""
        self.lm.eval()
        batches = self.dev.batches(self.config.batch_tokens)
        return -sum(float(self.lm.sentence_log_probs(self.dev.select(numbers)).sum()) for numbers in batches)

    def _save(self, dev_perplexity: float) -> None:
        """Write the file at the end of an epoch."""
        weights = {name: tensor.cpu().clone() for name, tensor in self.lm.state_dict().items()}
        if dev_perplexity < min(self.perplexities, default=math.inf):
            self.best = weights
        self.perplexities.append(dev_perplexity)
        run = {"options": self.options, "perplexities": self.perplexities, "step": self.step}
        if len(self.perplexities) < self.config.num_epochs:
            run |= {"model": weights, "optimizer": self.optimizer.state_dict()}
        save_rnn_lm(self.path, self.lm.config, self.best, self.tokenizer, run=run)

    def _resume(self) -> None:
        """Resume from the file that :meth:`_save` has written."""
        content = read_rnn_lm(self.path)
        if "run" not in content:
            raise ValueError(f"{self.path} has no record of its training, so it cannot be continued: change --out")
        run = content["run"]
        changed = config_differences(run["options"], self.options)
        changed += ["its tokens differ from --lang-dir"] * (content["tokens"] != self.tokenizer.state())
        if changed:
            raise ValueError(
                f"{self.path} belongs to another run: {', '.join(changed)}. Change --out, or remove the file"
            )
        self.best, self.perplexities, self.step = content["rnn_lm"], run["perplexities"], run["step"]
        if "model" in run:
            self.lm.load_state_dict(run["model"])
            self.optimizer.load_state_dict(run["optimizer"])
        say(f"Resuming from {self.path}: {len(self.perplexities)} of {self.config.num_epochs} epochs are done")


def perplexity(loss: float, sentences: Sentences) -> tuple[float, float]:
    """Return the perplexity per token and per word. The end of a sentence counts as one of each, as in SRILM."""
    by_token, by_word = (loss / (n + len(sentences)) for n in (sentences.num_tokens, sentences.num_words))
    return math.exp(min(by_token, 700)), math.exp(min(by_word, 700))  # exp overflows above 709
