"""The machine and its libraries: a quiet stderr, whatever became of it; cores."""
import os
import subprocess
import sys

import pytest

from classifier import environment
from conftest import CLASSIFIER, REPOSITORY, SAMPLES


def in_python(code, **options):
    """Run code in a Python of its own, with the repository on its path."""
    return subprocess.run([sys.executable, '-c', f'import sys; sys.path.insert(0, '
                           f'{str(REPOSITORY)!r})\n{code}'], capture_output=True, text=True,
                          **options)


def test_native_code_is_silenced_and_everything_else_is_not():
    found = in_python('import os\nfrom classifier.environment import quiet\n'
                      'with quiet():\n    os.write(2, b"native")\n'
                      'print("python", file=sys.stderr)')
    assert (found.returncode, found.stderr) == (0, 'python\n')


def test_the_log_level_asks_for_what_native_code_says():
    found = in_python('import os\nfrom classifier.environment import quiet\n'
                      'with quiet():\n    os.write(2, b"native")',
                      env=os.environ | {'TF_CPP_MIN_LOG_LEVEL': '0'})
    assert found.stderr == 'native'


def test_a_closed_or_missing_stderr_is_no_obstacle():
    for close in ('os.close(2)', 'sys.stderr = None', 'os.close(2); sys.stderr = None',
                  'sys.stderr.close()'):
        found = in_python(f'import os\nfrom classifier.environment import quiet\n{close}\n'
                          'with quiet():\n    print("done")')
        assert (found.returncode, found.stdout) == (0, 'done\n'), close


def test_a_prediction_needs_no_stderr():
    script = f'{sys.executable} {CLASSIFIER / "predict_cls.py"} --comp_type jpeg_paper ' \
        f'--in_path {SAMPLES / "coffee_jpeg_q20.png"} 2>&-'
    found = subprocess.run(['sh', '-c', script], capture_output=True, text=True)
    assert found.returncode == 0 and found.stdout.startswith('predicted quality 20.00')


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: {0, 3, 5}, raising=False)
    assert environment.cores() == 3


def test_a_script_says_first_that_it_loads_tensorflow_and_a_library_is_silent(monkeypatch):
    said = []
    monkeypatch.delitem(sys.modules, 'tensorflow', raising=False)
    monkeypatch.setattr(environment.importlib.util, 'find_spec', lambda name: True)
    monkeypatch.setattr(environment, 'quiet', stop)
    for announce in (said.append, None):
        monkeypatch.setattr(environment, 'announce', announce)
        with pytest.raises(KeyboardInterrupt):
            environment.import_tensorflow()
        assert said == ['loading TensorFlow']


def stop():
    """In the place of what comes next."""
    raise KeyboardInterrupt
