#!/usr/bin/env python3
"""Train the patch network, on files made by gen_data.py or on photos.

    python3 classifier/train.py --comp_type jpeg_paper --hdf5_train_path out/train.h5 \\
        --hdf5_val_path out/val.h5 --epochs 50 --out_path out
    python3 classifier/train.py --comp_type jpeg_paper --in_path DIV2K_train_HR \\
        --val_path DIV2K_valid_HR --framework pytorch --out_path out

The best weights are kept in out_path/best. Ctrl-C, or a file `stop_training` in the out_path,
stops it cleanly; `--resume` goes on at the same step and learning rate, also after a kill, with
either framework. For fresh data between slices of one schedule, stop with `--until_epoch` and
resume with another file. Finished weights, with what is stored beside them, replace the shipped
ones with

    python3 classifier/train.py --comp_type jpeg_paper --install out/best

PyTorch keeps photos at every quality in the memory of the GPU (300 bytes a pixel), draws patches
there and, with `--edits`, edits them there. On photos the default is 40 epochs of 1,000 steps of
4,096 patches. With `--strategy mirrored` every batch is shared out among the GPUs of this machine,
with `multi_worker` among the machines in TF_CONFIG; the training stays the same.

Adam; the learning rate warms up, then falls to 0 along a cosine. What is validated and kept is an
exponential moving average (EMA) of the weights.
"""
import sys
if __name__ == '__main__':  # from here on Ctrl-C leaves no traceback
    sys.excepthook = lambda *error: error[0] is KeyboardInterrupt or sys.__excepthook__(*error)
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import contextlib
import json
from functools import partial
from types import ModuleType

from classifier.cli import begin, command, script_parser
from classifier.edits import EDITED_SHARE
from classifier.environment import import_tensorflow
from classifier.errors import InputError
from classifier.images import CHROMA
from classifier.models import COMP_TYPES, build_network, confidence_loss, get_comp_type
from classifier.patches import PatchFile
from classifier.training.best_weights import (BestWeights, has_tensorflow, install, load_base,
                                               save_weights)
from classifier.training.distribute import STRATEGIES, lost_workers_named, open_strategy
from classifier.training.keras_step import KerasStep
from classifier.training.loop import run_training
from classifier.training.photo_source import PhotoSource
from classifier.training.schedule import (PHOTO_SCHEDULE, SCHEDULE, SHARE, add_photo_options,
                                          add_training_options, resolve_schedule)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """The options, checked; without `argv` those of the command line."""
    parser = script_parser(__doc__, usage='%(prog)s --comp_type NAME [options]')
    given, network = (parser.add_argument_group(name) for name in ('input', 'network'))
    schedule, scale = (parser.add_argument_group(name)
                       for name in ('schedule and output', 'scale'))
    network.add_argument('--comp_type', metavar='NAME', required=True,
                          help=', '.join(COMP_TYPES))
    given.add_argument('--hdf5_train_path', metavar='FILE', help='patches to train on')
    given.add_argument('--hdf5_val_path', metavar='FILE', help='patches to validate on')
    add_photo_options(given)
    given.add_argument('--chroma', choices=CHROMA, help='as in gen_data.py, of the photos to '
                        f'train on (default: {PHOTO_SCHEDULE["chroma"]})')
    given.add_argument('--edits', action='store_true', default=None, help='with photos: edit '
                        f'{100 * EDITED_SHARE:g} %% of the patches after compression, those to '
                        'validate on, too: resize, blur, recolour, turn ...')
    given.add_argument('--uncompressed', type=SHARE, metavar='SHARE', help='with photos: this '
                        'share of the patches (0..1), those to validate on, too, is of the photos '
                        f'as they are, labelled 100 (default: {PHOTO_SCHEDULE["uncompressed"]})')
    network.add_argument('--base_weights', metavar='PATH', help='start from these weights, a '
                        'checkpoint folder or a weights.npz, instead of random ones')
    network.add_argument('--base_type', metavar='TYPE', help='compression type of --base_weights, '
                        'if its network is narrower: it is widened (default: the same type)')
    add_training_options(schedule, SCHEDULE, 'out')
    scale.add_argument('--strategy', choices=STRATEGIES, default='default',
                        help='share every batch out: mirrored, among the GPUs of this machine; '
                        'multi_worker, among the machines in TF_CONFIG (default: do not)')
    scale.add_argument('--framework', choices=('tensorflow', 'pytorch'), default='tensorflow',
                        help='what does the steps; may change at a --resume (default: tensorflow)')
    schedule.add_argument('--verbose', action='store_true', help='describe the network and the run')
    schedule.add_argument('--install', type=Path, metavar='DIR', help='train nothing, but replace '
                        'the shipped weights by those in DIR')
    args = parser.parse_args(argv)
    hdf5, photos = (args.hdf5_train_path, args.hdf5_val_path), (args.in_path, args.val_path)
    if not args.install and not all(hdf5) + all(photos) == any(hdf5) + any(photos) == 1:
        parser.error('name --hdf5_train_path and --hdf5_val_path, or --in_path and --val_path')
    if any(hdf5) and (args.edits or args.uncompressed is not None):
        parser.error('--edits and --uncompressed are for --in_path; for HDF5 files give them to '
                     'gen_data.py')
    if args.epochs == 0 and not args.base_weights:
        parser.error('--epochs 0 validates --base_weights: name them')
    if args.base_type and not args.base_weights:
        parser.error('--base_type is the type of --base_weights: name them')
    if args.framework == 'pytorch' and args.strategy != 'default':
        parser.error(f'--strategy {args.strategy} is for --framework tensorflow')
    return args


def import_pytorch() -> tuple[ModuleType, ModuleType]:
    """The modules that need PyTorch."""
    try:
        from classifier.training import coded_photos, torch_step
    except ImportError:
        raise InputError('--framework pytorch needs PyTorch: pip install torch') from None
    if has_tensorflow():  # it writes the checkpoints; the GPU is PyTorch's
        with contextlib.suppress(RuntimeError):
            import_tensorflow()[0].config.set_visible_devices([], 'GPU')
    return coded_photos, torch_step


@command
def main(argv: list[str] | None = None) -> int | None:
    args = parse_args(argv)
    comp_type, pytorch = get_comp_type(args.comp_type), args.framework == 'pytorch'
    if args.install:
        return install(comp_type, args.install)
    schedule = resolve_schedule(args, PHOTO_SCHEDULE if args.in_path else SCHEDULE)
    seed, errors_named = schedule['seed'], contextlib.nullcontext
    if pytorch:
        coded_photos, torch_step = import_pytorch()
        errors_named = torch_step.small_memory_named
    elif args.strategy == 'multi_worker':
        errors_named = lost_workers_named
    begin('loading what to train on, and the network')
    with errors_named():
        if args.in_path:
            open_photos = partial(
                partial(coded_photos.CodedPhotos, seed=seed) if pytorch else PhotoSource,
                side=comp_type.patch, recursive=args.recursive, edits=schedule['edits'],
                uncompressed=schedule['uncompressed'])
            val = open_photos(args.val_path).fixed()
            train = open_photos(args.in_path, chroma=schedule['chroma'])
        else:
            train, val = (PatchFile(path, comp_type) for path in (args.hdf5_train_path,
                                                                  args.hdf5_val_path))
            per_pass = train.batches_per_pass(schedule['batch_size'])
            schedule['steps_per_epoch'] = schedule['steps_per_epoch'] or per_pass
        backend = (torch_step.TorchStep(comp_type, seed) if pytorch else
                   KerasStep(partial(build_network, comp_type, seed), confidence_loss,
                             schedule['batch_size'], open_strategy(args.strategy)))
        load = partial(load_base, comp_type=comp_type, random=backend.weights())
        base = args.base_weights and load(args.base_weights, base_type=args.base_type and
                                          get_comp_type(args.base_type))
        if args.verbose and backend.is_chief:
            print(backend, json.dumps(schedule), f'{len(train)} training '
                  f'{"photos" if args.in_path else "patches"}, {len(val)} validation patches',
                  sep='\n')
        best = BestWeights(args.out_path / 'best', load, partial(save_weights, comp_type),
                           args.base_weights)
        return run_training(args, schedule, backend, best, train, val, base)


if __name__ == '__main__':
    sys.exit(main())
