"""Parts of benchmark.py on training: patches made, and the step with and without its data."""
import argparse
import contextlib
import importlib.util
import statistics
import tempfile
from functools import partial
from pathlib import Path

from benchmark_table import ROUNDS, in_turns, rate, row, unheard

from classifier import gen_data
from classifier.models import COMP_TYPES, build_network, confidence_loss
from classifier.patches import PatchFile
from classifier.training.keras_step import KerasStep
from classifier.training.photo_source import PhotoSource

STEPS, BATCH = 10, 1024
SAMPLES_EACH = 2000  # for each quality: more patches than all rounds see
UNCOMPRESSED = 0.09


def data(args: argparse.Namespace) -> None:
    """gen_data.py: patches made and written."""
    with tempfile.TemporaryDirectory() as folder:
        made = rate(partial(make_patches, args, folder, args.num_samples), 100 * args.num_samples)
    row('gen_data.py', made, 'patches/s', f'{args.num_samples:,} for each quality')


def make_patches(args: argparse.Namespace, folder: str, number: int) -> Path:
    with unheard():
        gen_data.main(['--in_path', str(args.in_path), '--num_samples', str(number),
                       '--hdf5_name', 'a.h5', '--comp_type', args.comp_type, '--out_path', folder])
    return Path(folder) / 'a.h5'


def training(args: argparse.Namespace) -> None:
    """The training step on one resident batch, with its data, and in PyTorch, in turns."""
    comp_type = COMP_TYPES[args.comp_type]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        def batches(source):
            return stack.enter_context(contextlib.closing(source.batches(BATCH, 0)))

        path = make_patches(args, folder, SAMPLES_EACH)
        sources = {'HDF5': batches(PatchFile(path, comp_type))}
        for name, edits in (('photos', False), ('photos, with edits', True)):
            sources[name] = batches(PhotoSource(args.in_path, comp_type.patch, chroma='mixed',
                                                edits=edits, uncompressed=UNCOMPRESSED * edits))
        time_steps(comp_type, sources)


def time_steps(comp_type, sources):
    keras = KerasStep(partial(build_network, comp_type, 0), confidence_loss, BATCH)
    resident = next(sources['HDF5'])

    def steps(backend, batch):
        for _ in range(STEPS):
            backend.step(batch(), 1e-3, 0.999)
        backend.take_sums()

    ways = {'training step on a resident batch': partial(steps, keras, lambda: resident)}
    for name, batches in sources.items():
        ways[f'training from {name}'] = partial(steps, keras, partial(next, batches))
    if importlib.util.find_spec('torch'):
        from classifier.training.torch_step import TorchStep
        ways['training step in PyTorch'] = partial(steps, TorchStep(comp_type, 0),
                                                   lambda: resident)
    rates = in_turns(ways, lambda way: rate(way, STEPS * BATCH), ROUNDS)
    alone, *_ = rates.values()
    for name, found in rates.items():
        ratio = statistics.median(a / b for a, b in zip(found, alone))
        row(name, statistics.median(found), 'patches/s',
            '' if found is alone else f'{ratio:.2f} of the step alone')
