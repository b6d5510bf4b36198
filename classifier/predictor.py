"""A trained network, ready to look at images.

    from classifier.predictor import Predictor
    predictor = Predictor()                          # automatic; loads the weights once
    prediction = predictor.predict('photo.jpg')
    print(prediction.quality, prediction.quality_low, prediction.quality_high, prediction.method)
    print(prediction.verdict)                        # on the header of a JPEG file
    print(predictor.predict(pixels, order='rgb'))    # a uint8 array
"""
import functools
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from classifier.checkpoints import (best_folder, stored_likelihood, stored_posterior,
                                    stored_threshold)
from classifier.early_stopping import interleaved_subsets, rounds, stop_early
from classifier.errors import InputError
from classifier.forensics.blocks import without_repetition
from classifier.forensics.earlier_save import find_earlier_save
from classifier.forensics.header import JpegHeader, known_header
from classifier.forensics.recompression import find_earlier
from classifier.forensics.search import find_lattice
from classifier.forensics.tables import nearest_quality
from classifier.images import read_image
from classifier.likelihood import (FEWEST_PATCHES, augmented_patches, likelihood_posterior,
                                   patch_log_likelihood, patch_weights, uncertainty_exponent)
from classifier.models import extract_patches, get_comp_type, median_fusion
from classifier.patterns import is_pattern
from classifier.pixels import as_bgr
from classifier.prediction import CONTRADICTION, Prediction
from classifier.runtime import RUNTIMES, open_features, open_runner
from classifier.seen_lattice import narrowed
from classifier.stored_again import with_codec

AUTOMATIC = 'jpeg_robust'  # the network of the automatic mode
FUSIONS = ('posterior', 'likelihood', 'median')
PATCHES = ('enough', 'all')  # of an image that are looked at
# Where a header of at least this quality is confirmed and no earlier compression is found, the
# network is asked, too: it sees traces of one that was edited before the last. Of 366 photos and
# drawings edited and saved again, it contradicts 141 headers, and none of them after a quarter of
# the patches; of 183 saved once it looks at no more in 92 %.
ASKED_FROM = 85
WIDEST = 40        # levels; a wider credible interval is no answer of the automatic mode
FLAT = 1.5         # standard deviation of a patch's pixels, in gray levels, below which it is flat
FEWEST_TEXTURED = 0.02  # share of an image's patches that must not be flat, for the posterior
# Of fewer different blocks that are not flat, the network is often wrong about whether there was a
# JPEG, unless it is sure: a probability in this range is no answer (chosen on 300 gradients, waves
# and blurs, and on photos and graphics to train on).
FEW_BLOCKS, UNDECIDED = 100, (0.3, 0.8)
LITTLE_TEXTURE = 'too little texture'
A_PATTERN = 'its texture is a pattern that repeats'
REPEATED = 'each pixel is repeated, and taken once they show no clear sign of a JPEG'
TOO_UNSURE = 'what its pixels show fits too many qualities'


class Predictor:
    """A trained network, ready to look at images; one thread at a time may use it.

    Parameters
    ----------
    comp_type : str, optional
        A name from `models.COMP_TYPES`. Without one it is automatic: the quantization lattice
        answers where there is one, else the network of `jpeg_robust`, unless its credible interval
        is wider than WIDEST levels.
    weights : path-like, optional
        A checkpoint folder; by default the shipped one.
    threshold : float, optional
        Confidence threshold in 0..100; by default as stored with the weights.
    fusion : {'posterior', 'likelihood', 'median'}, optional
        How patches become an answer; 'median' is the paper's. By default the first of these that
        the weights come with, and the median if a threshold is given.
    runtime : {'litert', 'tensorflow'}, optional
        What runs the model file beside the weights, by default LiteRT where it is installed.
        Without a model file TensorFlow runs the checkpoint.
    patches : {'enough', 'all'}
        'enough' stops early once the likelihood has decided; the others always take all.
    threads : int, optional
        That a model file is run with, by default one for each core.

    Raises
    ------
    InputError
        The weights are missing or unusable, or an argument is not one of these.
    """

    def __init__(self, comp_type: str | None = None, weights: str | os.PathLike | None = None,
                 threshold: float | None = None, fusion: str | None = None,
                 runtime: str | None = None, patches: str = 'enough',
                 threads: int | None = None):
        for name, value, known in (('fusion', fusion or FUSIONS[0], FUSIONS),
                                   ('runtime', runtime or RUNTIMES[0], RUNTIMES),
                                   ('patches', patches, PATCHES)):
            if value not in known:
                raise InputError(f'{name} {value!r}: choose one of {", ".join(known)}')
        if threshold is not None and not 0 <= threshold <= 100:
            raise InputError(f'threshold {threshold}: must be in 0..100')
        self.automatic = comp_type is None
        if self.automatic and (fusion is not None or threshold is not None):
            raise InputError('fusion and threshold are for a compression type: name a comp_type')
        self.type = get_comp_type(comp_type or AUTOMATIC)
        folder = Path(weights) if weights else best_folder(self.type)
        self._runner = open_runner(self.type, folder, runtime, threads)
        self._open_features = functools.partial(open_features, self.type, folder, runtime, threads,
                                                self.model)
        self.threshold = stored_threshold(self.type, folder) if threshold is None else threshold
        self.image_posterior = self.log_likelihood = None
        by_default = fusion is None and threshold is None
        if fusion == 'posterior' or by_default:
            self.image_posterior = stored_posterior(folder, required=not by_default)
        if fusion == 'likelihood' or by_default and self.image_posterior is None:
            self.log_likelihood = stored_likelihood(folder, required=not by_default)
        self.stops_early = patches == 'enough' and self.log_likelihood is not None

    @property
    def fusion(self) -> str:
        """How patches become an answer: one of FUSIONS."""
        if self.image_posterior is not None:
            return 'posterior'
        return 'median' if self.log_likelihood is None else 'likelihood'

    @property
    def name(self) -> str:
        """The compression type's, or 'automatic'."""
        return 'automatic' if self.automatic else self.type.name

    @property
    def runtime(self) -> str:
        """What runs the network: one of `runtime.RUNTIMES`."""
        return self._runner.runtime

    @property
    def model(self) -> bytes | None:
        """The model file that it runs; None if it runs the checkpoint."""
        return self._runner.model

    def run_network(self, patches: np.ndarray) -> np.ndarray:
        """Confidence and quality, float32 (n, 2), of uint8 patches (n, 16, 16, 3)."""
        return self._runner(patches)

    def features(self, image: Any, order: str = 'bgr') -> np.ndarray:
        """What the network sees in each patch of an image, before its last layer.

        They come from the checkpoint, in float32, or from the model file of `to_tflite.py
        --features`, if that lies beside the weights.

        Parameters
        ----------
        image : path-like, PIL.Image.Image or uint8 array
            As `predict` takes it, each side at least 16 px.
        order : {'bgr', 'rgb'}
            Of the channels of an array.

        Returns
        -------
        float32 array, shape (patches, K)
            K pooled features, not negative, of each patch that `extract` gives; K is `type.k`.

        Raises
        ------
        InputError
            It is no such image, or the weights are there as a model file of the answers alone.
        """
        pixels = read_image(image) if _is_path(image) else as_bgr(image, order)
        return self._features_runner(self.extract(pixels))

    @functools.cached_property
    def _features_runner(self):
        """What runs the network up to its features; made when it is first asked for."""
        return self._open_features()

    def run_together(self, several: list[np.ndarray]) -> list[np.ndarray]:
        """`run_network` for several arrays of patches in shared batches."""
        ends = np.cumsum([len(patches) for patches in several])
        return np.split(self.run_network(np.concatenate(several)), ends[:-1]) if several else []

    def extract(self, image: np.ndarray) -> np.ndarray:
        """An image's patches as the network gets them: augmented but for the median."""
        if self.fusion == 'median':
            return extract_patches(image, self.type)
        return augmented_patches(image, self.type)

    def fuse(self, output: np.ndarray, size: Sequence[int],
             log_likelihood: np.ndarray | None = None, share: float = 1.0) -> Prediction:
        """The `Prediction` from the network's output on an image's patches, or on some of them.

        Parameters
        ----------
        output : float array, shape (n, 2)
            Confidence and quality of each patch, 0..100.
        size : (height, width, ...)
            Of the image, in px.
        log_likelihood : float array, shape (101, n), optional
            The patches' `likelihood.patch_log_likelihood`, if it is known already.
        share : float
            Of the image's patches, 0..1, that these are.
        """
        found = {'confident_patches': int((output[:, 0] > self.threshold).sum()),
                 'patches': len(output)}
        if self.image_posterior is not None:
            posterior, edited = self.image_posterior(output, size)
            return Prediction(posterior.quality, **found, posterior=posterior, edited=edited)
        if self.log_likelihood is None:
            quality = median_fusion(output, self.threshold, self.type.max_quality)
            return Prediction(quality, **found)
        if patch_weights(output).sum() < min(FEWEST_PATCHES, len(output) / 2):
            return Prediction(None, **found, reason=LITTLE_TEXTURE)
        if log_likelihood is None:
            log_likelihood = patch_log_likelihood(output, self.log_likelihood)
        posterior = likelihood_posterior(log_likelihood, uncertainty_exponent(size, share))
        return Prediction(posterior.quality, **found, posterior=posterior)

    def predict_all(self, images: Iterable, refine: bool = False,
                    table: Sequence[int] | None = None, order: str = 'bgr') -> list[Prediction]:
        """A `Prediction` for each image; where all patches are looked at, they share batches.

        Parameters
        ----------
        images : iterable of path-like, PIL.Image.Image or uint8 array
            Image files; or pixels as `pixels.as_bgr` takes them, (h, w, 3), (h, w, 4) or (h, w),
            each side at least 16 px. Of a JPEG file, the header is compared with the pixels.
        refine : bool
            Look for the quantization lattice of the pixels as well, whose answer, an exact
            integer, takes precedence over the network's. Automatically this is always done, and
            the network is asked only where there is none.
        table : sequence of int, length 64, optional
            The luma table, row by row, of the JPEG header that came with the pixels, of all of the
            arrays: where they prove it, there is no search.
        order : {'bgr', 'rgb'}
            Of the channels of arrays. In the wrong order, there is no lattice.

        Raises
        ------
        InputError
            Something that is no such image.
        """
        images = list(images)
        arrays = [as_bgr(image, order) for image in images if not _is_path(image)]
        found = iter(self._predict_arrays(arrays, refine, table))
        return [self._predict_file(image, refine) if _is_path(image) else next(found)
                for image in images]

    def predict(self, image: Any, refine: bool = False, table: Sequence[int] | None = None,
                order: str = 'bgr') -> Prediction:
        """The `Prediction` for one image, see `predict_all`."""
        return self.predict_all([image], refine, table, order)[0]

    def with_history(self, image: np.ndarray, prediction: Prediction,
                     header: JpegHeader | None) -> Prediction:
        """The prediction with the header of its JPEG file, if any, and the save before the last.

        Parameters
        ----------
        image : uint8 array, shape (h, w, 3)
            BGR pixels of that file.
        prediction : Prediction
            For these pixels.
        header : JpegHeader or None
            None for a file that has none: its earlier save is looked for where the lattice tells
            the last one.
        """
        earlier = None
        if header and header.luma_table:
            earlier = find_earlier(image, np.array(header.luma_table))
            if (self.automatic and prediction.confirms_header and earlier.quality is None
                    and header.quality >= ASKED_FROM):
                prediction = replace(self.ask_network(image, header.quality), reason=None,
                                     lattice=prediction.lattice, nearest=prediction.nearest)
        elif not header and prediction.is_refined:
            earlier = find_earlier_save(image, prediction.lattice)
        return replace(prediction, header=header, earlier=earlier)

    def _predict_file(self, path, refine):
        header = known_header(path)
        image = read_image(path, colours=header and header.colours)
        found, = self._predict_arrays([image], refine, header and header.luma_table)
        return self.with_history(image, found, header)

    def _predict_arrays(self, images, refine, table):
        if self.automatic:
            return [self._automatic(image, table) for image in images]
        if self.stops_early:
            predictions = [self._answer(image) for image in images]
        else:
            outputs = self.run_together([self.extract(image) for image in images])
            predictions = [self._fused(output, image) for image, output in zip(images, outputs)]
        if refine:
            predictions = [_with_lattice(p, find_lattice(image, p.network_quality, table),
                                         table) for p, image in zip(predictions, images)]
        return predictions

    def ask_network(self, image: np.ndarray, header_quality: int | None = None) -> Prediction:
        """The network's `Prediction` from the patches of an image, whatever its lattice says.

        Automatically there is no answer where the credible interval is wider than WIDEST.

        Parameters
        ----------
        image : uint8 array, shape (h, w, 3)
            BGR pixels.
        header_quality : int, optional
            Of the header that they prove, 1..100. Then a first quarter of the patches is enough if
            their interval is not below the header by more than a contradiction takes.
        """
        patches = self.extract(image)
        output = np.zeros((0, 2), np.float32)
        order = np.arange(len(patches))
        if header_quality is not None and len(patches) == self.type.samples ** 2:
            order = np.concatenate(interleaved_subsets(self.type))
            output = self.run_network(patches[order[:len(order) // 4]])
            found = self._fused(output, image)
            if found.reason == LITTLE_TEXTURE or (
                    found.posterior and found.posterior.low >= header_quality - CONTRADICTION):
                return found
        output = np.concatenate([output, self.run_network(patches[order[len(output):]])])
        found = self._fused(output[np.argsort(order)], image)
        seen = found.posterior
        if self.automatic and seen and seen.high - seen.low > WIDEST:
            return replace(found, network_quality=None, reason=TOO_UNSURE)
        return found

    def _automatic(self, image, table):
        """The lattice's `Prediction`, else the network's, if that is sure enough to help."""
        lattice = find_lattice(image, table=table)
        if lattice.quality is not None or lattice.from_header:
            return _with_lattice(Prediction(None, 0, 0), lattice, table)
        found = replace(self.ask_network(image), lattice=lattice)
        if reason := self._doubt(image, found):
            return replace(found, network_quality=None, reason=reason)
        return found if table is not None else with_codec(narrowed(found), image)

    def _doubt(self, image, found):
        """Why nothing should rest on what the network answers, if so."""
        if not found.posterior:
            return None
        compressed = found.posterior.compressed
        if found.lattice.blocks < FEW_BLOCKS and UNDECIDED[0] < compressed < UNDECIDED[1]:
            return LITTLE_TEXTURE
        if compressed < 0.5:
            return None
        if found.lattice.blocks < FEW_BLOCKS and is_pattern(self.extract(image)):
            return A_PATTERN
        if found.lattice.repeated > 1:
            _, once = without_repetition(image)
            seen = self.ask_network(once) if min(once.shape[:2]) >= self.type.patch else None
            if not seen or seen.quality is None or seen.compressed < UNDECIDED[1]:
                return REPEATED
        return None

    def _fused(self, output, image):
        """`fuse` for all patches of an image; none for one that is flat nearly all over."""
        found = self.fuse(output, image.shape)
        if self.fusion == 'posterior' and _is_flat(image):
            return replace(found, network_quality=None, posterior=None, edited=None,
                           reason=LITTLE_TEXTURE)
        return found

    def _answer(self, image):
        """The `Prediction` from as many patches as it takes, of a full grid; else from all."""
        patches = self.extract(image)
        total = self.type.samples ** 2
        if len(patches) < total:
            return self._fused(self.run_network(patches), image)
        looks = rounds(lambda numbers: self.run_network(patches[numbers]), self.type,
                       self.log_likelihood)
        return stop_early(looks, lambda output, found: self.fuse(
            output, image.shape, found, len(output) / total))


def _is_path(image):
    return isinstance(image, (str, os.PathLike))


def _with_lattice(prediction, lattice, table):
    """The prediction with what the lattice says; its table proved, if that is the header's."""
    nearest = None
    if lattice.from_header and lattice.quality is None:
        nearest, _ = nearest_quality(np.asarray(table))
    return replace(prediction, lattice=lattice, nearest=nearest)


def _is_flat(image):
    """Whether too few of an image's tiles of 16 px are textured: it ends where there are enough."""
    rows, columns = (side // 16 for side in image.shape[:2])
    textured = 0
    for row in range(rows):
        tiles = image[16 * row:16 * (row + 1), :16 * columns].astype(np.int32)
        tiles = tiles.reshape(16, columns, 16, 3)
        total, squares = (part.sum(axis=(0, 2)) for part in (tiles, tiles * tiles))
        spread = 256 * squares - total * total  # the variance of 256 pixels, times 65,536
        textured += int((spread.max(axis=1) > (256 * FLAT) ** 2).sum())
        if textured >= FEWEST_TEXTURED * rows * columns:
            return False
    return True
