"""Work in processes of their own."""
import os
import signal
import subprocess
import sys
import time

import pytest

from classifier import batch, workers
from classifier.errors import InputError
from classifier.workers import Workers
from collection import folder, predict, whole, without_seconds  # noqa: F401, fixtures
from conftest import REPOSITORY


def test_processes_give_the_same_rows_as_threads(folder, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(batch, 'FEWEST_APART', 1)
    assert predict(folder, tmp_path / 'a.csv') == 0
    assert without_seconds(tmp_path / 'a.csv') == whole


def test_few_images_and_tensorflow_stay_in_this_process():
    network = (None, None, None, None, 'litert', 'enough', '{}')
    assert batch.worth_processes(network, batch.FEWEST_APART)
    assert not batch.worth_processes(network, batch.FEWEST_APART - 1)
    assert not batch.worth_processes(None, 1000)
    assert not batch.worth_processes((*network[:4], 'tensorflow', *network[5:]), 1000)


def test_a_thread_has_a_process_that_it_keeps():
    with batch.parallel_map(apart=True) as run:
        own = set(run(os.getpgid, [0] * 50))
    assert os.getpgid(0) not in own and len(own) <= batch.cores()
    with pytest.raises(ProcessLookupError):  # it has ended
        os.kill(own.pop(), 0)


def test_a_lost_process_costs_one_item():
    with Workers() as some:
        first = some.call(os.getpgid, 0)
        lost = some.call(os._exit, 3)
        assert isinstance(lost, InputError) and 'was lost (exit status 3)' in str(lost)
        assert isinstance(some.call(os.kill, some.call(os.getpgid, 0), signal.SIGKILL), InputError)
        assert some.call(os.getpgid, 0) != first


def test_what_the_work_raises_is_raised():
    with Workers() as some:
        with pytest.raises(ValueError, match="'seven'"):
            some.call(int, 'seven')
        assert some.call(int, '7') == 7
        assert some.call(int, '7', 8) == 7 and some.call(int, '11', 2) == 3


def test_a_process_that_does_not_start_is_told(monkeypatch):
    monkeypatch.setattr(workers, '__file__', str(REPOSITORY / 'missing.py'))
    with Workers() as some, pytest.raises(InputError, match='cannot be started'):
        some.call(int, '7')


def test_no_process_outlives_a_killed_program():
    program = ('import os, sys; from classifier.workers import Workers\n'
               'print(Workers().call(os.getpgid, 0), flush=True); os.kill(os.getpid(), 9)')
    done = subprocess.run([sys.executable, '-c', program], stdout=subprocess.PIPE, text=True,
                          env={**os.environ, 'PYTHONPATH': str(REPOSITORY)}, timeout=60)
    process = int(done.stdout)
    for _ in range(100):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail(f'process {process} is still there')


def test_an_interrupted_run_interrupts_its_processes():
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), batch.parallel_map(apart=True) as run:
        for _ in run(time.sleep, [0, 60, 60]):
            raise KeyboardInterrupt
    assert time.monotonic() - began < 30
