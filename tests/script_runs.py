"""Scripts in processes of their own, with limits, or killed right before a file operation."""
import json
import os
import resource
import subprocess
import sys

import pytest

from conftest import CLASSIFIER, REPOSITORY

# As files are called that are not for the user.
UNFINISHED = ('.part', '.unfinished', '.run', '.part-wal', '.unfinished-wal')



# Runs a script that is killed before file operation number `stop_at` under `folder` (0: never).
HOOK = """
import os, signal, sys
def install(stop_at, folder):
    left, sync = [stop_at], os.fsync
    def operation():
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    def hook(event, args):
        writes = event in ('os.rename', 'os.remove', 'os.mkdir', 'os.rmdir') or (
            event == 'open' and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR))
        if writes and str(args[0]).startswith(folder):
            operation()
    def fsync(handle):
        operation()
        sync(handle)
    os.fsync = fsync
    sys.addaudithook(hook)
"""
TYPED = HOOK + """
import runpy
stop_at, folder = int(sys.argv[1]), sys.argv[2]
sys.argv = sys.argv[3:]
sys.path[0] = os.path.dirname(sys.argv[0])
install(stop_at, folder)
runpy.run_path(sys.argv[0], run_name='__main__')
"""
# TensorFlow takes seconds to import: one process does it, and forks itself for every run. The
# network is a small one that compiles at once, and its conversion is left out: they are not
# what is tested here.
SERVER = HOOK + f"""
sys.path.insert(0, {str(REPOSITORY)!r})
import functools, json, resource
from classifier import checkpoints, models
tf, keras = models.import_tensorflow()
tf.function = functools.partial(tf.function, autograph=False)  # which takes seconds to convert
import matplotlib.figure, numpy as np
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils
from classifier import to_tflite, train
from classifier.patches import PatchFile
from classifier.training import best_weights

def small_network(comp_type, seed=None):
    patch = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(comp_type.k, 3, use_bias=False)(patch)
    x = keras.layers.GlobalAveragePooling2D()(x / 255)
    x = keras.layers.Dense(2, activation='sigmoid')(x)
    network = keras.Model(patch, x * 100.0)
    rng = np.random.default_rng(seed)
    network.set_weights([rng.normal(0, 0.3, w.shape) for w in network.get_weights()])
    return network

def convert(network, *_):  # in place of some seconds' work: a flatbuffer of zeros
    to_tflite.run_tflite = lambda model, patches: network(patches).numpy()
    model, buffer = schema.ModelT(), schema.BufferT()
    model.buffers, buffer.data = [buffer], np.zeros(300_000, np.uint8)
    return flatbuffer_utils.convert_object_to_bytearray(model)

to_tflite.convert = convert
models.COMP_TYPES['tiny'] = TINY = models.CompType('tiny', k=1, threshold=90)
for room in (models, checkpoints, train, best_weights):
    room.build_network = small_network

def make_weights(folder, seed):
    checkpoints.save_checkpoint(small_network(TINY, int(seed)), folder)

def validation_loss(folder, patch_file):
    network, losses = checkpoints.load_network(TINY, folder), []
    for x, y in PatchFile(patch_file, TINY).in_order(100):
        losses.append(models.confidence_loss(y, network(x.astype('float32')))[0].numpy())
    print(np.concatenate(losses).mean())

for line in sys.stdin:
    name, argv, stop_at, folder, limit, out, err = json.loads(line)
    child = os.fork()
    if not child:
        for path, handle in ((out, 1), (err, 2)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), handle)
        install(stop_at, folder)
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        status = 1
        try:
            call = globals()[name]
            status = call.main(argv) if hasattr(call, 'main') else call(*argv)
        except BaseException as error:
            import traceback
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(status or 0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Run:
    """A script at work: a process of its own, or one forked by the `TensorFlow` server."""

    def __init__(self, tmp_path, name, argv, stop_at=0, folder='/nowhere', limit=0, server=None):
        self.out, self.err, self.server = tmp_path / 'stdout', tmp_path / 'stderr', server
        argv = [str(a) for a in argv]
        if server:
            print(json.dumps([name, argv, int(stop_at), str(folder), limit, str(self.out),
                              str(self.err)]), file=server.stdin, flush=True)
            self.pid, self.process = int(server.stdout.readline()), None
            return
        command = [sys.executable, '-c', TYPED, str(stop_at), str(folder),
                   str(CLASSIFIER / f'{name}.py'), *argv]
        with self.out.open('w') as out, self.err.open('w') as err:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=err,
                preexec_fn=lambda: resource.setrlimit(
                    resource.RLIMIT_FSIZE, (limit or resource.RLIM_INFINITY,) * 2))
        self.pid = self.process.pid

    def is_over(self):
        if self.process:
            return self.process.poll() is not None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        return False

    def status(self):
        return self.process.wait() if self.process else int(self.server.stdout.readline())

    def errors(self):
        return self.err.read_text(errors='replace')


def call(tmp_path, server, name, *argv):
    """What a function of the server prints."""
    run = Run(tmp_path, name, argv, server=server)
    assert run.status() == 0, run.errors()
    return run.out.read_text()


def training(patch_file, folder):
    """The command line of a short training, or of going on with it."""
    return ['--hdf5_train_path', patch_file, '--hdf5_val_path', patch_file, '--comp_type', 'tiny',
            '--out_path', folder / 'out',
            *(['--resume'] if (folder / 'out' / 'run.json').exists() else
              ['--batch_size', '100', '--epochs', '3', '--steps_per_epoch', '4'])]


@pytest.fixture(scope='module')
def server():
    one = {f'{name}_NUM_{kind}': '1' for name, kind in (
        ('TF', 'INTRAOP_THREADS'), ('TF', 'INTEROP_THREADS'), ('OMP', 'THREADS'))}
    with subprocess.Popen([sys.executable, '-c', SERVER], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True, env=os.environ | one) as process:
        yield process
        process.stdin.close()
