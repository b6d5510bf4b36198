"""Make tests/data/tiny: a checkpoint of the network with K = 1 and random weights, with
patches and its outputs for them, with which later versions are compared.

    python3 tests/make_tiny.py
"""
from conftest import SAMPLES, TINY, TINY_WEIGHTS  # also puts the repository on the path

import cv2
import numpy as np

from classifier.models import COMP_TYPES, build_network, extract_patches

rng = np.random.default_rng(0)
network = build_network(TINY)
network.set_weights([rng.uniform(0.5, 1.5, w.shape) if w.ndim == 1 else rng.normal(0, 0.5, w.shape)
                     for w in network.get_weights()])
TINY_WEIGHTS.mkdir(parents=True, exist_ok=True)
network.save_weights(f'{TINY_WEIGHTS}/', save_format='tf')
x = extract_patches(cv2.imread(str(SAMPLES / 'raccoon.png')), COMP_TYPES['jpeg_paper'])[::16]
np.savez_compressed(TINY_WEIGHTS / 'io.npz', x=x, y=network(x.astype(np.float32)).numpy())
