"""Compare a feature backend with lhotse: ``python -m summarymix.data.check_features kaldifeat``."""

import argparse
import sys
from typing import get_args

import torch
from torch import Tensor

from summarymix.data.features import FbankExtractor, FbankOptions, FeatureBackend

TOLERANCE = 2e-3
SETTINGS = ((16000, 80), (16000, 23), (8000, 80), (8000, 40), (8000, 23))  # (sample rate, mel bins)


def generated_audio(seconds: float, sample_rate: int) -> Tensor:
    """Generate audio (n,) in [-1, 1]: syllables of noise and a gliding tone, faint and loud, separated by silence."""
    generator = torch.Generator().manual_seed(0)
    n = int(seconds * sample_rate)
    time = torch.arange(n, dtype=torch.float64) / sample_rate
    noise = torch.rand(n, generator=generator) * 2 - 1
    tone = torch.sin(2 * torch.pi * (200 * time + 60 * torch.sin(3 * time)))
    syllables = torch.sin(2 * torch.pi * 2 * time).clamp(min=0)
    loudness = 10 ** (-2 + 2 * torch.sin(time))  # -80 to 0 dB
    return (0.5 * syllables * loudness * (noise + tone)).float()


def difference_to_lhotse(samples: Tensor, options: FbankOptions) -> float:
    """Largest absolute difference of the features (natural logarithm), for the whole recording and for a stream."""
    expected = FbankExtractor(FbankOptions(options.sample_rate, options.num_mel_bins)).extract(samples)
    extractor = FbankExtractor(options)
    stream = extractor.online()
    blocks = [stream.accept(block) for block in samples.split(1001)]
    found = (extractor.extract(samples), torch.cat([*blocks, stream.finish()]))
    return max((features - expected).abs().max().item() for features in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("backend", choices=get_args(FeatureBackend))
    backend: FeatureBackend = parser.parse_args().backend
    for sample_rate, num_mel_bins in SETTINGS:
        try:
            options = FbankOptions(sample_rate, num_mel_bins, backend)
            difference = difference_to_lhotse(generated_audio(20, sample_rate), options)
        except ImportError as error:
            sys.exit(str(error))
        print(f"{backend}, {sample_rate} Hz, {num_mel_bins} bins: largest difference to lhotse {difference:.1e}")
        if not difference <= TOLERANCE:
            sys.exit(f"{backend} is wrong: differences must be at most {TOLERANCE}. Use the backend lhotse")


if __name__ == "__main__":
    main()
