"""A recogniser with a tiny random model that emits tokens now and then, audio for it, and a scripted search."""

from dataclasses import replace

import torch
from talking_models import make_model
from torch import Tensor

from summarymix.blocks.mixing import MixingConfig
from summarymix.chunking import ChunkConfig
from summarymix.data.features import FbankExtractor, FbankOptions
from summarymix.data.tokens import Tokenizer
from summarymix.decoding.recognizer import Recognizer
from summarymix.decoding.search import Hypothesis, Search
from summarymix.decoding.words import Transcript
from summarymix.model import Transducer
from summarymix.state import State

NUM_BINS = 16
LETTERS = Tokenizer.train(["abcd efgh"], 20, "char")  # 11 tokens, as many as the model has


def make_audio(seconds: float, seed: int = 0, rate: int = 16000) -> Tensor:
    """Noise (n,) that is louder or softer every 0.3 s."""
    generator = torch.Generator().manual_seed(seed)
    noise = 0.05 * torch.randn(round(seconds * rate), generator=generator)
    levels = torch.randn(1 + int(seconds / 0.3), generator=generator).exp().repeat_interleave(int(0.3 * rate) + 1)
    return (noise * levels[: len(noise)]).clamp(-0.9, 0.9)


@torch.no_grad()
def talking_model(mixing: str = "merged") -> Transducer:
    model = make_model("stateless")
    if mixing != "merged":
        torch.manual_seed(3)
        model = Transducer(replace(model.config, mixing=MixingConfig(mixing))).eval()
    model.set_feature_stats(torch.full((NUM_BINS,), -6.0), torch.full((NUM_BINS,), 3.0))
    features = FbankExtractor(FbankOptions(num_mel_bins=NUM_BINS)).extract(make_audio(20))[None]  # (1, T, F)
    frames, _ = model.encoder(features, torch.tensor([features.size(1)]), ChunkConfig(16, 4))
    # Frames of an untrained encoder hardly vary around their mean, so the joiner gets the scaled deviation.
    projection = model.joiner.encoder_proj
    projection.weight.div_((frames @ projection.weight.T).std() / 3)
    projection.bias.copy_(-projection.weight @ frames.mean((0, 1)))
    model.joiner.predictor_proj.weight.mul_(0.5)
    torch.manual_seed(8)
    torch.nn.init.normal_(model.joiner.out.weight)
    model.joiner.out.bias[:3] = torch.tensor([2.5, 0.0, 1.0])
    return model


def make_recognizer(mixing: str = "merged", sample_rate: int = 16000) -> Recognizer:
    extractor = FbankExtractor(FbankOptions(sample_rate, NUM_BINS))
    return Recognizer(talking_model(mixing), LETTERS, extractor, left_chunks=2)


def emissions(*transcripts: Transcript) -> list[tuple[str, float]]:
    return [(token.token, round(token.start, 3)) for one in transcripts for token in one.tokens]


class Script(Search):
    """A search that emits given letters at given frames for any input. A reset moves it back by a chunk."""

    def __init__(self, model: Transducer, emissions: dict[int, str]) -> None:
        super().__init__(model)
        self.emissions = emissions
        self.heard = 0

    def init_state(self, batch_size: int, device: torch.device | str = "cpu") -> State:
        return {}

    def __call__(self, encoder_out: Tensor, lengths: Tensor, state: State, hypotheses: list[Hypothesis]) -> State:
        for hypothesis, length in zip(hypotheses, lengths.tolist(), strict=True):
            if hypothesis.num_frames == 0:
                self.heard = max(self.heard - length, 0)
            for t in range(length):
                for letter in self.emissions.get(self.heard, ""):
                    hypothesis.tokens.append(LETTERS.tokens.index(letter))
                    hypothesis.frames.append(hypothesis.num_frames + t)
                    hypothesis.log_probs.append(-0.5)
                self.heard += 1
            hypothesis.num_frames += length
        return state
