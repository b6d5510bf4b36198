"""What evaluate_cls.py measures with --study, and fits with --fit: one line for each.

Such a function takes the script's parsed arguments and the paths of photos that can be read and
have 256 px on each side, prints what people want to see, and returns a dict for its JSON file.
"""
import importlib
from collections.abc import Callable
from typing import NamedTuple


class Study(NamedTuple):
    """A study or a fit: its line in --help, and the function, of a module beside this file."""
    line: str
    module: str | None = None  # None: evaluate_cls.py does it itself
    function: str | None = None
    uses: tuple[str, ...] = ()  # of --qualities, --crop and --sample; others are refused
    needs_type: bool = True     # False: --comp_type may be left out

    def open(self) -> Callable:
        """The function; its module is imported now, for some take long."""
        return getattr(importlib.import_module(f'classifier.studies.{self.module}'), self.function)


Q, C, N = 'qualities', 'crop', 'sample'
STUDIES = {
    'robustness': Study('errors with other coders, small, gray and twice compressed images, and '
                        'at every phase of the block grid', 'robustness', 'robustness', (Q,)),
    'wild': Study('errors and intervals on edited and on never compressed images', 'wild', 'wild',
                  (Q,), needs_type=False),
    'analysis': Study('what limits accuracy: fusion rule, quality, texture, confidence, number of '
                      'patches, photo size', 'analysis', 'analysis', (Q,)),
    'compare': Study('MobileNetV2, a JPEG-specific estimator and Q1Net side by side', 'compare',
                     'compare', (Q, C)),
    'stopping': Study('patches and errors of early stopping at several decision margins',
                      'stopping', 'stopping', (Q, C)),
    'recompression': Study('how often an earlier, coarser compression is found', 'recompression',
                           'recompression', needs_type=False),
    'earlier_tables': Study("how often an earlier compression by other encoders' tables is found",
                            'earlier_tables', 'earlier_tables', needs_type=False),
    'recovery': Study('how many images give back their JPEG file', 'recovery', 'recovery',
                      (Q, C, N), needs_type=False),
    'decoders': Study('how many images that other decoders made do', 'recovery', 'decoders',
                      (Q, C, N), needs_type=False),
    'edited': Study('how often the lattice abstains on edited and on never compressed images',
                    'edits', 'edited', needs_type=False),
    'small': Study('how often the lattice is exact on small crops', 'lattice', 'small',
                   needs_type=False),
    'inside': Study('how often a JPEG inside a larger picture is found, and where', 'hidden',
                    'inside', needs_type=False),
    'tones': Study('how often the lattice is found under changed tones', 'hidden', 'tones',
                   needs_type=False),
    'noise': Study("how often the quality is found of other decoders' pixels, and under noise",
                   'hidden', 'noise', needs_type=False),
    'tables': Study("how well other encoders' luma tables are read from pixels", 'lattice',
                    'tables', needs_type=False),
    'subsampling': Study('how often chroma subsampling and the chroma table are found', 'lattice',
                         'subsampling', needs_type=False)}

# What is fitted and stored in --out_path, to be put beside the weights.
FITS = {
    'likelihood': Study('on training photos, how patches answer at each quality: likelihood.npz',
                        'likelihood_fit', 'fit_likelihood'),
    'posterior': Study("on training photos, what an image's answers say of its quality, through an "
                       'edit: posterior.npz', 'posterior_fit', 'fit_posterior'),
    'threshold': Study("the confidence at which the paper's rule has its lowest MAE: "
                       'threshold.txt', uses=(Q, C))}
