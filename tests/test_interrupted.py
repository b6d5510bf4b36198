"""Scripts that are killed, out of disk space or without permission: nothing half-done is taken
for whole, and started again they end as if nothing had happened.

Each script is killed again and again, at a random moment (SIGKILL, or Ctrl-C's SIGINT) or right
before a random one of its file operations (SIGKILL): twice by default, more often with -m long,
and very often with `KILLS=1000`.
"""
import ast
import contextlib
import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from classifier.checkpoints import (LIKELIHOOD_FILE, MODEL_FILE, THRESHOLD_FILE, VAL_LOSS_FILE,
                                    weights_digest)
from classifier.runtime import model_description
from conftest import CLASSIFIER, PRISTINE, REPOSITORY, SAMPLES

KILLS = int(os.environ.get('KILLS', 60)) // 5  # of each script
SEED = int(os.environ.get('KILLS_SEED', 0))

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


@pytest.fixture(scope='module')
def server():
    one = {f'{name}_NUM_{kind}': '1' for name, kind in (
        ('TF', 'INTRAOP_THREADS'), ('TF', 'INTEROP_THREADS'), ('OMP', 'THREADS'))}
    with subprocess.Popen([sys.executable, '-c', SERVER], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True, env=os.environ | one) as process:
        yield process
        process.stdin.close()


def has_changed(folder, since):
    """Whether anything in a folder was written, made or removed after that time (ns)."""
    for path in (folder, *folder.rglob('*')):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime_ns > since:
                return True
    return False


def wait_for_work(run, folder, since):
    """Return when a run begins to write, or is over."""
    while not run.is_over() and not has_changed(folder, since):
        time.sleep(0.002)


def killed(start, folder, rng, span, operations):
    """Kill one run of a script; returns its exit status, 0 if it was done before.

    start: a function stop_at -> `Run`. It works in `folder`, for about `span` seconds and
    that many file operations.
    """
    if rng.random() < 0.5:
        run = start(int(rng.integers(1, operations + 1)))
    else:
        began = time.time_ns()
        run = start(0)
        wait_for_work(run, folder, began)
        time.sleep(rng.uniform(0, span))
        with contextlib.suppress(ProcessLookupError):
            if not run.is_over():
                os.kill(run.pid, [signal.SIGKILL, signal.SIGINT][rng.integers(2)])
    status = run.status()
    # The interpreter, when it ends, gives SIGINT back its own meaning.
    assert status in (0, -signal.SIGKILL, -signal.SIGINT, 130), run.errors()
    if status == 130:
        # Cython itself reports an interrupt that comes while h5py frees an object.
        assert 'Traceback' not in run.errors() or 'ObjectID.__dealloc__' in run.errors()
    return status


@pytest.fixture(params=[2, pytest.param(KILLS, marks=pytest.mark.long)])
def kills(request):
    """How often a script is killed."""
    return request.param


def kill_often(start, folder, check, compare, operations, number):
    """Kill a script so often, let it end, and begin again where it ended.

    check, compare: called after each kill, and when a run came to its end.
    """
    rng = np.random.default_rng((SEED, operations))
    folder.mkdir()
    began = time.time_ns()
    run = start(0)
    wait_for_work(run, folder, began)
    began = time.monotonic()
    assert run.status() == 0, run.errors()
    span = time.monotonic() - began
    compare()
    shutil.rmtree(folder)
    folder.mkdir()
    kills = 0
    for _ in range(10 * number):
        if killed(start, folder, rng, span, operations):
            kills += 1
            check()
        else:
            compare()
            shutil.rmtree(folder)
            folder.mkdir()
        if kills == number:
            break
    assert kills == number
    run = start(0)
    assert run.status() == 0, run.errors()
    compare()


# ---------------------------------------------------------------- killed

# As files are called that are not for the user.
UNFINISHED = ('.part', '.unfinished', '.run', '.part-wal', '.unfinished-wal')


def contents(folder):
    """{name: bytes} of a folder's files but unfinished ones; without measured seconds."""
    found = {}
    for path in folder.iterdir():
        if path.suffix == '.csv':
            with path.open(newline='') as file:
                found[path.name] = [{**row, 'seconds': None} for row in csv.DictReader(file)]
        elif path.suffix == '.json':
            found[path.name] = json.loads(path.read_text())
            del found[path.name]['made_with']['command']  # which names the folder
        elif path.suffix not in UNFINISHED:
            found[path.name] = path.read_bytes()
    return found


@pytest.mark.parametrize('name, options, operations', [
    ('predict_cls', ['--in_path', SAMPLES, '--csv', '{}/q.csv'], 12),
    ('evaluate_cls', ['--in_path', '{photos}', '--qualities', '20,50,80', '--out_path', '{}'], 14),
    ('gen_data', ['--in_path', '{photos}', '--num_samples', '40', '--hdf5_name', 'p.h5',
                  '--out_path', '{}'], 14)])
def test_a_killed_script_leaves_whole_files_or_none_and_ends_the_same(
        photo_folder, tmp_path, name, options, operations, kills):
    pytest.importorskip('ai_edge_litert', reason='TensorFlow would take minutes to start so often')

    def argv(folder):
        return ['--comp_type', 'jpeg_paper',
                *(str(o).format(folder, photos=photo_folder) for o in options),
                *(['--resume'] if (folder / 'q.csv.unfinished').exists() else [])]

    (tmp_path / 'whole').mkdir()
    run = Run(tmp_path, name, argv(tmp_path / 'whole'))
    assert run.status() == 0, run.errors()
    whole, folder = contents(tmp_path / 'whole'), tmp_path / 'killed'
    assert whole

    def check():
        assert contents(folder).items() <= whole.items()

    def compare():
        assert contents(folder) == whole

    kill_often(lambda stop_at: Run(tmp_path, name, argv(folder), stop_at, folder),
               folder, check, compare, operations, kills)


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


def history(folder):
    """Its numbers but the measured seconds and the training loss, a mean since the last resume."""
    with (folder / 'out' / 'history_cls.csv').open(newline='') as file:
        return [[float(v) for k, v in row.items() if k not in ('seconds', 'loss', 'quality_mae')]
                for row in csv.DictReader(file)]


def best_of(folder):
    """Where the best weights lie, between two renames under their old name; None without any."""
    for name in ('best', 'best.old'):
        if (folder / 'out' / name).exists():
            return folder / 'out' / name
    return None


def test_a_killed_training_keeps_the_best_weights_and_goes_on_to_the_same_end(
        patch_file, tmp_path, server, kills):
    whole, folder = tmp_path / 'whole', tmp_path / 'killed'
    whole.mkdir()
    run = Run(tmp_path, 'train', training(patch_file, whole), server=server)
    assert run.status() == 0, run.errors()
    had_best = []

    def check():
        best = best_of(folder)
        assert best or not had_best
        if best:
            had_best.append(best)
            found = float(call(tmp_path, server, 'validation_loss', best, patch_file))
            assert found == pytest.approx(float((best / VAL_LOSS_FILE).read_text()),
                                          abs=1e-3)

    def compare():
        check()
        had_best.clear()
        assert {p.name for p in (folder / 'out').iterdir() if p.suffix not in UNFINISHED} == {
            'best', 'run.json', 'state.npz', 'history_cls.csv', 'history_cls.png'}
        assert history(folder) == [pytest.approx(row, rel=1e-3) for row in history(whole)]
        for name in ('out/run.json', 'out/best/val_loss.txt'):
            assert (folder / name).read_text() == (whole / name).read_text()

    kill_often(lambda stop_at: Run(tmp_path, 'train', training(patch_file, folder), stop_at, folder,
                                   server=server), folder, check, compare, 40, kills)


def test_a_killed_export_leaves_no_model_beside_what_belongs_to_another(tmp_path, server, kills):
    """Two sets of weights go to one folder in turn; only the first has a likelihood."""
    weights = [tmp_path / 'first', tmp_path / 'second']
    for seed, path in enumerate(weights):
        path.mkdir()
        call(tmp_path, server, 'make_weights', path, str(seed))
        (path / THRESHOLD_FILE).write_text(f'9{seed}\n')
    (weights[0] / LIKELIHOOD_FILE).write_bytes(bytes(300_000))
    folder, turn = tmp_path / 'killed', []

    def start(stop_at):
        turn.append(weights[len(turn) % 2])
        return Run(tmp_path, 'to_tflite', ['--comp_type', 'tiny', '--weights', turn[-1],
                                           '--out_path', folder], stop_at, folder, server=server)

    def check():
        if not (folder / MODEL_FILE).exists():
            return
        metadata = model_description((folder / MODEL_FILE).read_bytes())
        source, = (path for path in weights
                   if weights_digest(path) == metadata['weights_sha256'])
        for name in (THRESHOLD_FILE, LIKELIHOOD_FILE):
            assert (folder / name).exists() == (source / name).exists()
            assert not (source / name).exists() or (
                (folder / name).read_bytes() == (source / name).read_bytes())

    def compare():
        check()
        metadata = model_description((folder / MODEL_FILE).read_bytes())
        assert metadata['weights_sha256'] == weights_digest(turn[-1])

    kill_often(start, folder, check, compare, 16, kills)


# ---------------------------------------------------------------- no space, no permission

def command_line(name, photo_folder, patch_file, weights, folder):
    """What to type for each script, and which file it then writes."""
    photos, typed = ['--in_path', photo_folder], ['--comp_type', 'jpeg_paper']
    return {
        'predict_cls': (['--in_path', SAMPLES, *typed, '--csv', folder / 'q.csv'], 'q.csv'),
        'evaluate_cls': ([*photos, *typed, '--qualities', '20', '--limit', '1', '--out_path',
                          folder], 'evaluation_'),
        'gen_data': ([*photos, *typed, '--num_samples', '3', '--hdf5_name', 'p.h5',
                      '--out_path', folder], 'p.h5'),
        'train': (training(patch_file, folder), 'state'),
        'to_tflite': (['--comp_type', 'tiny', '--weights', weights, '--out_path', folder],
                      'comp_cls.tflite')}[name]


NAMES = ['predict_cls', 'evaluate_cls', 'gen_data', 'train', 'to_tflite']


@pytest.fixture
def weights(tmp_path, server):
    (tmp_path / 'weights').mkdir()
    call(tmp_path, server, 'make_weights', tmp_path / 'weights', '0')
    return tmp_path / 'weights'


def refused(tmp_path, name, argv, written, reason, server, limit=0):
    """Run a script that must end with status 2 and one line with the file's name and the reason."""
    run = Run(tmp_path, name, argv, limit=limit,
              server=server if name in ('train', 'to_tflite') else None)
    assert run.status() == 2, run.errors()
    errors = [line for line in run.errors().splitlines() if 'error: ' in line]
    assert len(errors) == 1 and 'Traceback' not in run.errors()
    assert written in errors[0] and reason in errors[0]


@pytest.mark.parametrize('name', NAMES)
def test_past_a_limit_on_file_size_one_line_names_the_file(
        name, photo_folder, patch_file, weights, tmp_path, server):
    """Such a limit is how a full disk or a quota looks from inside, on any system."""
    folder = tmp_path / 'out'
    best = folder / 'out' / 'best'
    shutil.copytree(weights, best)
    before = {path.name: path.read_bytes() for path in best.iterdir()}
    argv, written = command_line(name, photo_folder, patch_file, weights, folder)
    limit = 300 if name == 'evaluate_cls' else 700  # less than is written, more than is printed
    reason = 'disk I/O error' if name in ('predict_cls', 'evaluate_cls') else 'File too large'
    refused(tmp_path, name, argv, written, reason, server, limit)
    assert {path.name: path.read_bytes() for path in best.iterdir()} == before
    left = {p.name for p in folder.iterdir() if p.suffix not in UNFINISHED} - {'out'}
    assert not left, left


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KB, for those who may mount one."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=256k', 'none', folder],
                             capture_output=True).returncode == 0
    if not mounted:
        pytest.skip('only root may mount a file system')
    yield folder
    subprocess.run(['umount', folder], check=True)


@pytest.mark.parametrize('name', NAMES)
def test_on_a_full_disk_one_line_names_the_file(
        name, photo_folder, patch_file, weights, tmp_path, server, small_disk):
    out = small_disk / 'out'
    out.mkdir()
    argv, written = command_line(name, photo_folder, patch_file, weights, out)
    with (small_disk / 'filling').open('wb') as file, contextlib.suppress(OSError):
        while True:
            os.write(file.fileno(), bytes(1024))
    reason = 'GB are free' if name == 'gen_data' else 'No space left on device'
    refused(tmp_path, name, argv, 'disk' if name == 'gen_data' else written, reason, server)
    (small_disk / 'filling').unlink()
    assert not any(p.is_file() and p.suffix not in UNFINISHED and 'state' not in p.parts
                   for p in out.rglob('*'))
    if name == 'evaluate_cls':  # and once there is room, it works
        run = Run(tmp_path, name, argv)
        assert run.status() == 0, run.errors()


@pytest.mark.parametrize('name', NAMES)
def test_a_read_only_folder_is_named_before_the_work(
        name, photo_folder, patch_file, weights, tmp_path, server, small_disk):
    argv, _ = command_line(name, photo_folder, patch_file, weights, small_disk)
    subprocess.run(['mount', '-o', 'remount,ro', small_disk], check=True)
    refused(tmp_path, name, argv, str(small_disk), 'Read-only file system', server)
    assert not list(small_disk.iterdir())


@pytest.mark.parametrize('options', [['--in_path', SAMPLES], ['--in_path', PRISTINE[0]]])
def test_output_that_cannot_be_printed_is_one_line(tmp_path, options):
    if not os.path.exists('/dev/full'):
        pytest.skip('no /dev/full here')
    with open('/dev/full', 'w') as full:
        result = subprocess.run(
            [sys.executable, CLASSIFIER / 'predict_cls.py', *options, '--comp_type', 'jpeg_paper'],
            stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1:] == [
        'predict_cls.py: error: standard output: No space left on device']


# ---------------------------------------------------------------- safe by default

def test_no_script_evaluates_text_or_starts_programs():
    modules = {'pickle', 'marshal', 'shelve', 'subprocess', 'socket', 'urllib', 'http', 'requests',
               'ctypes', 'pty', 'code'}
    calls = {'eval', 'exec', 'compile', '__import__', 'system', 'popen', 'execv', 'posix_spawn'}
    paths = sorted(CLASSIFIER.rglob('*.py'))
    assert len(paths) > 40
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [a.name for a in node.names] + [getattr(node, 'module', None) or '']
                assert not modules & {name.partition('.')[0] for name in names}, path
            elif isinstance(node, ast.Call):
                called = getattr(node.func, 'id', getattr(node.func, 'attr', None))
                owner = getattr(getattr(node.func, 'value', None), 'id', None)
                assert called not in calls or (owner, called) in (
                    ('re', 'compile'), ('torch', 'compile')), path
                if (owner, called) == ('np', 'load'):
                    assert [k.value.value for k in node.keywords if k.arg == 'allow_pickle'] == [
                        False], path


SEALED = """
import runpy, sys
EVENTS = ('socket.', 'subprocess.', 'os.system', 'os.exec', 'os.posix_spawn', 'os.fork', 'pickle.',
          'urllib.', 'ftplib.', 'http.')
def hook(event, args):
    if event.startswith(EVENTS) and args[0] != 'uname':  # Python's platform module asks it
        print('sealed:', event, args, file=sys.stderr)
        raise PermissionError(event)
sys.addaudithook(hook)
sys.argv = sys.argv[1:]
sys.path[0] = sys.argv[0].rpartition('/')[0]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


@pytest.mark.parametrize('name', ['predict_cls', 'evaluate_cls', 'gen_data'])
def test_nothing_is_sent_unpickled_or_started(name, photo_folder, patch_file, tmp_path):
    argv, _ = command_line(name, photo_folder, patch_file, None, tmp_path)
    result = subprocess.run([sys.executable, '-c', SEALED, CLASSIFIER / f'{name}.py', *argv],
                            capture_output=True, text=True)
    assert result.returncode == 0 and 'sealed' not in result.stderr, result.stderr


def test_a_link_in_the_place_of_an_unfinished_file_is_not_followed(photo_folder, tmp_path):
    """Whoever made the folder may have laid it there."""
    (tmp_path / 'precious').write_text('mine')
    for name in ('predict_cls', 'evaluate_cls', 'gen_data'):
        folder = tmp_path / name
        folder.mkdir()
        argv, written = command_line(name, photo_folder, None, None, folder)
        (folder / f'{written}.part').symlink_to('../precious')
        run = Run(tmp_path, name, argv)
        assert run.status() == 0, run.errors()
        assert (tmp_path / 'precious').read_text() == 'mine'
    (tmp_path / 'predict_cls' / 'r.csv.unfinished').symlink_to('../precious')
    run = Run(tmp_path, 'predict_cls', ['--in_path', SAMPLES, '--comp_type', 'jpeg_paper', '--csv',
                                        tmp_path / 'predict_cls' / 'r.csv'])
    assert run.status() == 2 and 'not the rows of a run' in run.errors()
    assert (tmp_path / 'precious').read_text() == 'mine'
