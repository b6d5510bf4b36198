"""How patches answer at each level, counted on training images: the likelihood of a network."""
import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from classifier.checkpoints import LIKELIHOOD_FILE, refuse_shipped
from classifier.files import check_writable, save_arrays
from classifier.images import draw_chroma
from classifier.likelihood import (
    CONFIDENCE_EDGES, augmented_patches, count_answers, fit_log_likelihood)
from classifier.posterior import LEVELS
from classifier.predictor import Predictor
from classifier.studies.common import at_level, over_photos

NEVER_PHASES = 8  # crops of an uncompressed image, each at a phase of its own


def network_outputs(predictor: Predictor, cases: Iterable[tuple[Path, int]],
                    chroma: str = '4:2:0') -> Iterator[tuple[int, np.ndarray]]:
    """The network's output for photos at given levels, cropped to random grid phases.

    Parameters
    ----------
    predictor : Predictor
    cases : iterable of (Path, int)
        Photos and levels of `posterior.py`; those of a photo stand together.
    chroma : str
        One of images.CHROMA.

    Yields
    ------
    level : int
    output : float32 array, shape (n, 2)
        Confidence and quality of each patch, 0..100.
    """
    rng = np.random.default_rng(0)
    pairs = [(path, (level, rng.integers(0, 8, 2), draw_chroma(chroma, rng)))
             for path, level in cases]

    def patches(image, case):
        level, (dy, dx), drawn = case
        return augmented_patches(at_level(image, level, drawn)[dy:, dx:], predictor.type)

    for _, (level, *_), cut in over_photos(patches, pairs):
        yield level, predictor.run_network(cut)


def fit_likelihood(args: argparse.Namespace, paths: list[Path]) -> dict:
    """count on TRAINING photos how patches answer at each quality; store it in --out_path"""
    refuse_shipped(args.out_path)
    path = args.out_path / LIKELIHOOD_FILE
    check_writable(path)
    predictor = Predictor(args.comp_type, args.weights, fusion='median', runtime=args.runtime)
    # The same images at every level: else what differs between images would tell levels apart.
    cases = [(path, level) for path in paths
             for level in (*range(1, LEVELS), *NEVER_PHASES * [LEVELS])]
    counts = np.zeros((LEVELS, len(CONFIDENCE_EDGES) + 1, 101), int)
    for level, output in network_outputs(predictor, cases, 'mixed'):
        counts[level - 1] += count_answers(output)
    save_arrays(path, compress=True, log_likelihood=fit_log_likelihood(counts).astype(np.float16))
    print(f'{counts.sum()} patches of {len(paths)} photos, each at 100 qualities and as it is; '
          f'stored in {path}')
    return {'images': len(paths), 'patches': int(counts.sum())}
