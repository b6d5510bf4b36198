"""How patches answer at each quality, counted on training photos: the likelihood of a network."""
import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from classifier.checkpoints import LIKELIHOOD_FILE, refuse_shipped
from classifier.files import check_writable, save_arrays
from classifier.images import compress, draw_chroma
from classifier.likelihood import (
    CONFIDENCE_EDGES, augmented_patches, count_answers, fit_log_likelihood)
from classifier.predictor import Predictor
from classifier.studies.common import over_photos


def network_outputs(predictor: Predictor, paths: Iterable[Path], qualities: Sequence[int],
                    chroma: str = '4:2:0') -> Iterator[tuple[int, np.ndarray]]:
    """The network's output for photos compressed at each quality, at random grid phases.

    Parameters
    ----------
    predictor : Predictor
    paths : iterable of Path
    qualities : sequence of int
    chroma : str
        One of images.CHROMA.

    Yields
    ------
    quality : int
    output : float32 array, shape (n, 2)
        Confidence and quality of each patch, 0..100.
    """
    rng = np.random.default_rng(0)
    pairs = [(path, (q, rng.integers(0, 8, 2), draw_chroma(chroma, rng)))
             for path in paths for q in qualities]

    def patches(image, case):
        quality, (dy, dx), drawn = case
        return augmented_patches(compress(image, quality, drawn)[dy:, dx:], predictor.type)

    for _, (quality, *_), cut in over_photos(patches, pairs):
        yield quality, predictor.run_network(cut)


def fit_likelihood(args: argparse.Namespace, paths: list[Path]) -> dict:
    """count on TRAINING photos how patches answer at each quality; store it in --out_path"""
    refuse_shipped(args.out_path)
    path = args.out_path / LIKELIHOOD_FILE
    check_writable(path)
    predictor = Predictor(args.comp_type, args.weights, fusion='median', runtime=args.runtime)
    counts = np.zeros((100, len(CONFIDENCE_EDGES) + 1, 101), int)
    for quality, output in network_outputs(predictor, paths, range(1, 101), 'mixed'):
        counts[quality - 1] += count_answers(output)
    save_arrays(path, compress=True, log_likelihood=fit_log_likelihood(counts).astype(np.float16))
    print(f'{counts.sum()} patches of {len(paths)} photos at 100 qualities; stored in {path}')
    return {'images': len(paths), 'patches': int(counts.sum())}
