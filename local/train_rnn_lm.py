#!/usr/bin/env python3
"""Train an RNN language model of tokens, for decode.py --rnn-lm: from the transcripts in lhotse supervisions, from text
with a sentence on each line (perhaps compressed with gzip), or from both. The epoch with the lowest perplexity of the
dev texts is kept. The same command continues a run that was stopped, from its last whole epoch.
"""

import argparse
import math
from pathlib import Path
from typing import Any

import torch

from summarymix.cli import clear_errors, progress_bar, say
from summarymix.configs import differences
from summarymix.data.tokens import Tokenizer
from summarymix.lm.rnn import RnnLM, RnnLMConfig, read_rnn_lm, save_rnn_lm
from summarymix.lm.text import Sentences, read_texts
from summarymix.training.optim import make_optimizer
from summarymix.training.schedule import OptimConfig, cosine_factor
from summarymix.training.seeding import reseed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    option = parser.add_argument
    option("--lang-dir", type=Path, required=True, help="of the tokens, those of the transducer")
    option("--supervisions", type=Path, nargs="+", default=[], help="manifests of the training splits")
    option("--text", type=Path, nargs="+", default=[], help="files written as the transcripts are")
    option("--dev-supervisions", type=Path, nargs="+", default=[], help="manifests of the dev splits")
    option("--dev-text", type=Path, nargs="+", default=[], help="files written as the transcripts are")
    option("--dim", type=int, default=512, help="width of embeddings and LSTM (512; for much text 1024 or 2048)")
    option("--num-layers", type=int, default=2, help="of the LSTM (2)")
    option("--dropout", type=float, default=0.1, help="more for little text (0.1)")
    option("--num-epochs", type=int, default=10, help="passes over the text (10)")
    option("--batch-tokens", type=int, default=4000, help="tokens in a batch, padding included (4000)")
    option("--lr", type=float, default=2e-3, help="peak learning rate of AdamW (0.002)")
    option("--warmup-steps", type=int, default=100, help="of the learning rate (100)")
    option("--seed", type=int, default=42, help="of weights, batches and dropout (42)")
    option("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(a GPU if there is one)")
    option("--out", type=Path, required=True, help="file to write")
    args = parser.parse_args()
    if not (args.dev_supervisions or args.dev_text):
        parser.error("the best epoch is chosen on dev texts: give --dev-supervisions or --dev-text")
    with clear_errors("train_rnn_lm.py"):
        train(args)
    print(args.out)


def train(args: argparse.Namespace) -> None:
    """Train as the command line says.

    Raises:
        ValueError: there is no text, the run in ``args.out`` is another one, or the loss is not finite.
        FileNotFoundError: a file is missing.
    """
    tokenizer = Tokenizer.from_lang_dir(args.lang_dir)
    data = Sentences(read_texts(args.supervisions, args.text), tokenizer)
    dev = Sentences(read_texts(args.dev_supervisions, args.dev_text), tokenizer)
    reseed(args.seed)
    config = RnnLMConfig(args.dim, args.num_layers, args.dropout, tokenizer.vocab_size)
    lm = RnnLM(config).to(args.device)
    optim = OptimConfig("adamw", lr=args.lr, warmup_steps=args.warmup_steps, clip_norm=1.0)
    optimizer = make_optimizer(lm, optim)
    options = {
        name: " ".join(map(str, value)) if isinstance(value, list) else value
        for name, value in vars(args).items()
        if name not in ("lang_dir", "device", "out")
    }
    sizes = {"sentences": len(data), "words": data.num_words, "tokens": data.num_tokens}
    best: dict[str, Any] = {}  # weights
    # All that is needed to go on behind the epochs whose dev perplexities are there.
    run: dict[str, Any] = {"options": options | sizes, "perplexities": [], "step": 0}
    if args.out.exists():
        content = read_rnn_lm(args.out)
        changed = differences(content["run"]["options"], run["options"])
        changed += ["its tokens are not those of --lang-dir"] * (content["tokens"] != tokenizer.state())
        if changed:
            raise ValueError(f"{args.out} is of another run: {', '.join(changed)}. Give another --out, or remove it")
        best, run = content["rnn_lm"], content["run"]
        if "model" in run:
            lm.load_state_dict(run["model"])
            optimizer.load_state_dict(run["optimizer"])
        say(f"{args.out} is there, with {len(run['perplexities'])} of {args.num_epochs} epochs")
    perplexities = run["perplexities"]
    text = ", ".join(f"{count} {name}" for name, count in sizes.items())
    say(f"{text}; {len(dev)} sentences to choose on; {sum(p.numel() for p in lm.parameters()) / 1e6:.1f} M parameters")

    for epoch in range(len(perplexities) + 1, args.num_epochs + 1):
        reseed(args.seed, epoch)
        lm.train()
        total = torch.zeros((), dtype=torch.float64, device=args.device)
        batches = data.batches(args.batch_tokens, torch.Generator().manual_seed(args.seed + epoch))
        for i, numbers in enumerate(progress_bar(batches, f"epoch {epoch}/{args.num_epochs}")):
            sentences = data.select(numbers)
            loss = -lm.sentence_log_probs(sentences).sum()
            (loss / sum(len(sentence) + 1 for sentence in sentences)).backward()
            torch.nn.utils.clip_grad_norm_(lm.parameters(), optim.clip_norm)
            progress = (epoch - 1 + i / len(batches)) / args.num_epochs
            for group in optimizer.param_groups:
                group["lr"] = optim.lr * cosine_factor(run["step"], progress, optim)
            optimizer.step()
            optimizer.zero_grad()
            run["step"] += 1
            total += loss.detach()
        by_token, by_word = perplexity(total.item(), data)
        dev_by_token, dev_by_word = perplexity(dev_loss(lm, dev, args.batch_tokens), dev)
        say(
            f"epoch {epoch}: perplexity per token {by_token:.3f}, dev {dev_by_token:.3f}; "
            f"per word {by_word:.1f}, dev {dev_by_word:.1f}"
        )
        if not math.isfinite(dev_by_token):
            raise ValueError("the loss is not finite: lower --lr and train anew, with another --out")
        run["model"] = {name: tensor.cpu().clone() for name, tensor in lm.state_dict().items()}
        run["optimizer"] = optimizer.state_dict()
        if dev_by_token < min(perplexities, default=math.inf):
            best = run["model"]
        perplexities.append(dev_by_token)
        if epoch == args.num_epochs:
            del run["model"], run["optimizer"]
        save_rnn_lm(args.out, config, best, tokenizer, run=run)
    say(f"Epoch {perplexities.index(min(perplexities)) + 1} is the best")


@torch.inference_mode()
def dev_loss(lm: RnnLM, dev: Sentences, batch_tokens: int) -> float:
    """Sum of minus the log-probabilities of all sentences."""
    lm.eval()
    return -sum(float(lm.sentence_log_probs(dev.select(numbers)).sum()) for numbers in dev.batches(batch_tokens))


def perplexity(loss: float, sentences: Sentences) -> tuple[float, float]:
    """Of each token and of each word; the end of a sentence counts as one, as in SRILM."""
    by_token, by_word = (loss / (n + len(sentences)) for n in (sentences.num_tokens, sentences.num_words))
    return math.exp(min(by_token, 700)), math.exp(min(by_word, 700))  # of more, there is no float


if __name__ == "__main__":
    main()
