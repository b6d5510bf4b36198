"""How fast images are looked at, data made and the network trained, on the machine this runs on.

    python3 tests/benchmark.py [--in_path FOLDER_OF_PHOTOS] [--comp_type jpeg_paper]
    python3 tests/benchmark.py --parts automatic folder --folder_images 2000

Prints one table, a row as soon as it is measured. Things that are compared run in turns, and
the median is what counts. Ten minutes or less on two cores that have nothing else to do. Times "of
one core" are processor time, user and system, of all threads.
"""
import argparse
import os
import platform

os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')  # as in predict_cls.py; before NumPy is loaded

from conftest import SAMPLES  # also puts the repository on the path

import benchmark_folder
import benchmark_images
import benchmark_training
from benchmark_table import SIZE
from classifier.environment import cores

PARTS = {'start': benchmark_images.start, 'network': benchmark_images.network,
         'automatic': benchmark_images.automatic, 'recover': benchmark_images.recovery,
         'folder': benchmark_folder.folders, 'quantized': benchmark_images.quantized,
         'data': benchmark_training.data, 'training': benchmark_training.training}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--in_path', default=SAMPLES, help='photos (default: sample_image)')
    parser.add_argument('--comp_type', default='jpeg_paper')
    parser.add_argument('--num_samples', type=int, default=20000, metavar='N',
                        help='patches that gen_data.py makes for each quality (default: those of '
                        'batch_train_jpeg_paper.sh, %(default)s)')
    parser.add_argument('--folder_images', type=int, default=400, metavar='N',
                        help='files in a folder (default: %(default)s)')
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=list(PARTS),
                        help='default: all')
    args = parser.parse_args()
    print(f'{cores()} cores, {platform.machine()}, {args.comp_type}, '
          f'photos of {"x".join(map(str, SIZE))} px, '
          f'training batch {benchmark_training.BATCH}')
    for part in args.parts:
        PARTS[part](args)


if __name__ == '__main__':
    main()
