"""What is installed: requirements.txt and its lock file, and env.sh, which installs it."""
import base64
import csv
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import packaging
import pytest
from packaging.requirements import Requirement

from conftest import REPOSITORY

SHELLS = [pytest.param(shell, marks=pytest.mark.skipif(not shutil.which(shell),
                                                       reason=f'{shell} is not installed'))
          for shell in ('sh', 'dash', 'bash', 'zsh')]
PACKAGES = {'alpha-1.0': '', 'alpha-2.0': '', 'beta-1.0': 'alpha', 'gamma-1.0': 'alpha>=2'}


# ---------------------------------------------------------------- what is installed

def required():
    """What requirements.txt names."""
    lines = (REPOSITORY / 'requirements.txt').read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith('#')]


@pytest.mark.parametrize('python', ['3.10', '3.11', '3.12', '3.13'])
@pytest.mark.parametrize('system, machine', [
    ('linux', 'x86_64'), ('linux', 'aarch64'), ('darwin', 'arm64'), ('darwin', 'x86_64'),
    ('win32', 'AMD64')])
def test_lock_file_has_the_required_versions_and_their_hashes(python, system, machine):
    environment = {'python_version': python, 'python_full_version': f'{python}.4',
                   'sys_platform': system, 'platform_machine': machine}

    def wanted(pins):
        return {(pin.name, str(pin.specifier)) for pin in pins
                if pin.marker is None or pin.marker.evaluate(environment)}

    lock = (REPOSITORY / '.ci' / 'requirements.lock').read_text().replace('\\\n', '')
    lines = [line for line in lock.splitlines() if line and line[0] not in '#-']
    assert all('--hash=sha256:' in line for line in lines)
    locked = wanted(Requirement(line.split('--hash')[0]) for line in lines)
    assert wanted(required()) <= locked
    assert len({name for name, _ in locked}) == len(locked) > len(wanted(required()))


def test_requirements_pin_each_package_to_one_version_and_the_lock_names_no_place():
    assert all(re.fullmatch(r'==[\d.]+', str(pin.specifier)) for pin in required())
    lock = (REPOSITORY / '.ci' / 'requirements.lock').read_text()
    assert not re.search('://|index-url|find-links|@ ', lock)


# ---------------------------------------------------------------- env.sh

def make_wheel(folder, package, needs):
    """A wheel of an empty package."""
    name, version = package.split('-')
    info = f'{name}-{version}.dist-info'
    files = {f'{name}.py': f'VERSION = {version!r}\n',
             f'{info}/METADATA': f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n'
             + (f'Requires-Dist: {needs}\n' if needs else ''),
             f'{info}/WHEEL': 'Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n'
             'Tag: py3-none-any\n'}
    record = io.StringIO()
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
        csv.writer(record).writerow([path, f'sha256={digest.decode().rstrip("=")}', len(text)])
    csv.writer(record).writerow([f'{info}/RECORD', '', ''])
    path = folder / f'{name}-{version}-py3-none-any.whl'
    with zipfile.ZipFile(path, 'w') as wheel:
        for file, text in {**files, f'{info}/RECORD': record.getvalue()}.items():
            wheel.writestr(file, text)
    return path


@pytest.fixture(scope='module')
def wheels(tmp_path_factory):
    """A folder with the wheels of PACKAGES, all that pip is allowed to see."""
    folder = tmp_path_factory.mktemp('wheels')
    for package, needs in PACKAGES.items():
        make_wheel(folder, package, needs)
    return folder


@pytest.fixture(scope='module')
def empty_environment(tmp_path_factory):
    """A virtual environment with pip alone; tests take copies."""
    folder = tmp_path_factory.mktemp('environments') / 'empty'
    venv.create(folder, with_pip=True, symlinks=True)
    return folder


@pytest.fixture
def foreign(empty_environment, wheels, tmp_path):
    """Make an environment of the user's own that holds the packages named."""
    def make(*packages, folder=tmp_path / 'mine'):
        shutil.copytree(empty_environment, folder, symlinks=True)
        for package in packages:
            with zipfile.ZipFile(next(wheels.glob(f'{package}-py3*'))) as wheel:
                wheel.extractall(site_packages(folder))
        return folder
    return make


def site_packages(environment):
    """Where an environment's packages lie."""
    return next(environment.glob('lib/python3*/site-packages'))


def installed(environment):
    """An environment's packages but pip and setuptools, as 'name-version'."""
    return {path.name[:-len('.dist-info')]
            for path in site_packages(environment).glob('*.dist-info')
            if not path.name.startswith(('pip-', 'setuptools-'))}


def make_clone(folder, wheels, *packages):
    """A repository of env.sh alone, whose lock file and requirements are these packages."""
    (folder / '.ci').mkdir(parents=True)
    shutil.copy(REPOSITORY / 'env.sh', folder)
    pins = {path: '=='.join(path.name.split('-')[:2]) for path in wheels.iterdir()
            if path.name.startswith(packages)}
    (folder / 'requirements.txt').write_text(
        '# pins\n\n' + ''.join(f'{pin}; python_version >= "3"\n' for pin in pins.values())
        + 'nowhere==1.0; python_version < "3"\n')
    (folder / '.ci' / 'requirements.lock').write_text(''.join(
        f'{pin} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n'
        for path, pin in pins.items()))
    return folder


@pytest.fixture(scope='module')
def source(wheels):
    """Source env.sh in a repository: its result, with what a command prints after it."""
    def run(clone, *, shell='sh', options='-euc', command='command -v python3', first='', **more):
        environment = {'PATH': '/usr/bin:/bin', 'HOME': str(clone), 'PYTHON': sys.executable,
                       'PIP_CONFIG_FILE': os.devnull, 'PIP_NO_INDEX': '1',
                       'PIP_FIND_LINKS': str(wheels), **{k: str(v) for k, v in more.items()}}
        return subprocess.run([shell, options, f'{first}\n. ./env.sh\n{command}'], cwd=clone,
                              env=environment, capture_output=True, text=True)
    return run


@pytest.fixture(scope='module')
def two_clones(source, wheels, empty_environment, tmp_path_factory):
    """A clone with its .venv, a second that was set up while that one was active, and what
    env.sh printed."""
    folder = tmp_path_factory.mktemp('clones')
    first = make_clone(folder / 'first', wheels, 'alpha-1.0')
    second = make_clone(folder / 'second', wheels, 'alpha-2.0', 'beta')
    shutil.copytree(empty_environment, first / '.venv', symlinks=True)
    version = f'{sys.version_info[0]}.{sys.version_info[1]}'
    (first / '.venv' / '.q1net-requirements').write_text(
        f'{first}/.venv {version}\n' + (first / '.ci' / 'requirements.lock').read_text())
    result = source(second, VIRTUAL_ENV=first / '.venv', PYTHON='',
                    PATH=f'{first}/.venv/bin:/usr/bin:/bin')
    return first, second, result


def test_a_second_clone_makes_its_own_environment_and_leaves_the_active_one_alone(two_clones):
    first, second, result = two_clones
    assert result.returncode == 0, result.stderr
    assert result.stdout == f'{second}/.venv/bin/python3\n'
    assert installed(second / '.venv') == {'alpha-2.0', 'beta-1.0'}
    assert installed(first / '.venv') == set()
    stamp = (first / '.venv' / '.q1net-requirements').read_text()
    assert stamp.startswith(f'{first}/.venv ') and 'alpha==1.0' in stamp
    assert f"the active {first}/.venv is another copy's" in result.stderr
    assert '2.5 GB' in result.stderr and 'minutes' in result.stderr


@pytest.mark.parametrize('shell', SHELLS)
def test_env_sh_sets_up_any_shell_and_says_nothing_the_second_time(two_clones, source, shell):
    first, second, _ = two_clones
    result = source(second, shell=shell, PYTHONPATH=f'{first}:{second}', command='''
        python3 -c "import sys, alpha; print(sys.prefix, alpha.VERSION, sys.path[1])"
        echo "$TF_USE_LEGACY_KERAS ${VIRTUAL_ENV-} $-"''')
    assert result.returncode == 0 and result.stderr == ''
    assert result.stdout.splitlines()[0] == f'{second}/.venv 2.0 {second}'
    assert result.stdout.splitlines()[1].startswith(f'1 {second}/.venv ')
    assert {*'eu'} <= {*result.stdout.split()[-1]}


def test_env_sh_leaves_one_clones_environment_for_the_others_when_both_are_sourced(
        two_clones, source):
    first, second, _ = two_clones
    result = source(second, command=f'cd {first} && . ./env.sh && command -v python3; echo $PATH')
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0] == f'{first}/.venv/bin/python3'
    assert str(second) not in result.stdout


@pytest.mark.parametrize('variable', ['VIRTUAL_ENV', 'CONDA_PREFIX'])
def test_env_sh_adds_what_is_missing_to_a_foreign_environment_and_changes_no_version(
        foreign, source, wheels, tmp_path, variable):
    clone, mine = make_clone(tmp_path / 'clone', wheels, 'alpha-2', 'beta'), foreign('alpha-1.0')
    result = source(clone, **{variable: mine})
    assert result.returncode == 0, result.stderr
    assert result.stdout == f'{mine}/bin/python3\n'
    assert installed(mine) == {'alpha-1.0', 'beta-1.0'}
    assert 'keeps its own versions' in result.stderr and 'alpha 1.0' in result.stderr
    assert 'beta==1.0' in result.stderr and 'alpha==2.0' not in result.stderr
    assert not (clone / '.venv').exists()
    assert source(clone, **{variable: mine}).stderr == ''


def test_env_sh_runs_no_pip_where_nothing_is_missing(foreign, source, wheels, tmp_path):
    clone = make_clone(tmp_path / 'clone', wheels, 'alpha-2', 'beta')
    shutil.copy(REPOSITORY / 'requirements.txt', clone)
    same, other = foreign(), tmp_path / 'other'
    for info in site_packages(same).glob('setuptools-*'):  # came with Python 3.11 and earlier
        shutil.rmtree(info)
    for pin in required():
        if pin.marker is None or pin.marker.evaluate():
            info = site_packages(same) / f'{pin.name}-{next(iter(pin.specifier)).version}.dist-info'
            info.mkdir()
            (info / 'METADATA').write_text('Metadata-Version: 2.1\nName: {}\nVersion: {}\n'.format(
                *info.stem.rsplit('-', 1)))
    (site_packages(same) / 'pip' / '__main__.py').write_text('raise SystemExit("pip was run")')
    shutil.copytree(same, other, symlinks=True)
    shutil.copytree(Path(packaging.__file__).parent, site_packages(other) / 'packaging')
    info, = site_packages(other).glob('pillow-*')
    (info / 'METADATA').write_text('Metadata-Version: 2.1\nName: Pillow\nVersion: 1.2+local\n')
    before = installed(other)
    assert source(clone, VIRTUAL_ENV=same).stderr == ''  # read with pip's copy of packaging
    result = source(clone, VIRTUAL_ENV=other)            # and with packaging itself
    assert result.returncode == 0 and len(result.stderr.splitlines()) == 1
    assert result.stderr.endswith(': pillow 1.2+local\n') and installed(other) == before


def test_env_sh_changes_versions_of_a_foreign_environment_only_when_it_is_told_to(
        foreign, source, wheels, tmp_path):
    clone, mine = make_clone(tmp_path / 'clone', wheels, 'alpha-2', 'gamma'), foreign('alpha-1.0')
    refused = source(clone, VIRTUAL_ENV=mine)  # gamma cannot be there without alpha 2
    assert refused.returncode == 1 and refused.stdout == ''
    assert installed(mine) == {'alpha-1.0'}
    last = refused.stderr.splitlines()[-1]
    assert "'deactivate'" in last and "'Q1NET_INSTALL=1'" in last
    allowed = source(clone, VIRTUAL_ENV=mine, Q1NET_INSTALL=1)
    assert allowed.returncode == 0, allowed.stderr
    assert installed(mine) == {'alpha-2.0', 'gamma-1.0'}
    assert source(clone, VIRTUAL_ENV=mine, Q1NET_INSTALL=1).stderr == ''


@pytest.mark.parametrize('shell', SHELLS)
def test_the_switch_can_be_typed_in_front_of_the_dot(foreign, source, wheels, tmp_path, shell):
    clone, mine = make_clone(tmp_path / 'clone', wheels, 'alpha-2'), foreign('alpha-1.0')
    result = source(clone, shell=shell, options='-c', first='Q1NET_INSTALL=1 \\',
                    VIRTUAL_ENV=mine)
    assert result.returncode == 0 and installed(mine) == {'alpha-2.0'}, result.stderr


def test_env_sh_does_not_install_over_a_module_that_came_under_another_name(
        foreign, source, wheels, tmp_path):
    clone, mine = make_clone(tmp_path / 'clone', wheels, 'alpha-2'), foreign('alpha-2.0')
    with open(clone / 'requirements.txt', 'a', encoding='utf-8') as file:
        file.write('opencv-python-headless==4.11.0.86\n')
    make_wheel(wheels, 'opencv_python_headless-4.11.0.86', '')
    result = source(clone, VIRTUAL_ENV=mine)
    assert 'opencv_python_headless-4.11.0.86' in installed(mine), result.stderr
    other = foreign('alpha-2.0', folder=tmp_path / 'other')
    (site_packages(other) / 'cv2.py').touch()  # opencv-python's
    result = source(clone, VIRTUAL_ENV=other)
    assert result.returncode == 0 and result.stderr == '' and installed(other) == {'alpha-2.0'}


def test_env_sh_refuses_in_one_line(source, foreign, wheels, tmp_path):
    clone = make_clone(tmp_path / 'clone', wheels, 'alpha-2')
    no_pip = tmp_path / 'no_pip'
    venv.create(no_pip, symlinks=True)
    busy = clone / '.venv'
    busy.mkdir()
    (busy / '.q1net-requirements').write_text(f'being made by {os.getpid()}\n')
    for environment, reason in [
            ({'VIRTUAL_ENV': no_pip}, '-m ensurepip'),
            ({'VIRTUAL_ENV': tmp_path / 'gone'}, 'no longer exists'),
            ({'VIRTUAL_ENV': wheels}, 'has no Python 3.10 to 3.13'),
            ({}, f'process {os.getpid()} is making .venv')]:
        result = source(clone, **environment)
        assert result.returncode == 1 and result.stdout == '', reason
        assert len(result.stderr.splitlines()) == 1 and reason in result.stderr
    result = subprocess.run(['bash', 'env.sh'], cwd=clone, capture_output=True, text=True)
    assert result.returncode == 1 and 'to be sourced' in result.stderr


@pytest.mark.long
def test_env_sh_makes_an_environment_anew_that_it_did_not_finish_or_that_was_moved(
        source, wheels, tmp_path):
    clone = make_clone(tmp_path / 'clone', wheels, 'alpha-2')
    stamp = clone / '.venv' / '.q1net-requirements'
    stamp.parent.mkdir()
    stamp.write_text('being made by 99999999\n')
    assert source(clone).returncode == 0 and installed(clone / '.venv') == {'alpha-2.0'}
    assert stamp.read_text().startswith(f'{clone}/.venv ')
    moved = clone.rename(tmp_path / 'moved')
    result = source(moved)
    assert result.returncode == 0 and 'making .venv' in result.stderr
    make_clone(tmp_path / 'later', wheels, 'alpha-2', 'beta')
    shutil.copy(tmp_path / 'later' / '.ci' / 'requirements.lock', moved / '.ci')
    result = source(moved)
    assert 'has changed' in result.stderr
    assert installed(moved / '.venv') == {'alpha-2.0', 'beta-1.0'}
    (moved / '.ci' / 'requirements.lock').write_text(f'gamma==1.0 --hash=sha256:{0:064}\n')
    result = source(moved)
    assert result.returncode == 1 and 'pip could not install' in result.stderr
    assert installed(moved / '.venv') == {'alpha-2.0', 'beta-1.0'}
