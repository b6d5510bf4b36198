# Sets this shell up for the project; source it from sh, dash, bash or zsh:
#
#     . ./env.sh && python3 -m pytest
#
# The first time it makes .venv with Python 3.10 to 3.13 ($PYTHON, if that is set) and
# installs into it what .ci/requirements.lock names, no file of another hash: 2.5 GB, which can
# take some minutes. Later it only looks whether that changed.
#
# With a virtual or conda environment of yours active, it uses that one. It adds the packages
# of requirements.txt that are missing there and changes no version of the others, unless
# Q1NET_INSTALL=1 is set: then it installs what requirements.txt names.

if [ "${1-}" != --q1net-prepare ]; then
    (return 0 2>/dev/null) || { echo "env.sh: to be sourced: . ./env.sh" >&2; exit 1; }  # bash env.sh

    # The work is done by a child, an sh that runs the second half of this file: the
    # user's options, aliases and traps stay out of it, and an interrupt leaves nothing
    # behind in the user's shell. It prints two assignments, _q1net_root and _q1net_env.
    eval "$(
        file=${BASH_SOURCE:-./env.sh}
        [ -z "${ZSH_VERSION-}" ] || eval 'file=${(%):-%x}'
        if ! command grep -qs q1net-prepare "$file"; then
            echo "env.sh: not found from here; source it in the repository's folder" >&2
            echo return 1
        else
            PYTHON=${PYTHON-} Q1NET_INSTALL=${Q1NET_INSTALL-} \
                command sh "$file" --q1net-prepare || echo return 1
        fi
    )"
    if [ "$_q1net_env" = "$_q1net_root/.venv" ]; then
        case $- in
            (*u*) set +u; . "$_q1net_env/bin/activate"; set -u ;;  # Python 3.12's, in dash
            (*) . "$_q1net_env/bin/activate" ;;
        esac
    fi
    # An environment can be active and yet not come first, as in a shell whose startup
    # file extends the PATH it inherits; so can the repository, where there are two copies.
    case $PATH in
        ("$_q1net_env/bin:"*) ;;
        (*) export PATH="$_q1net_env/bin:$PATH" ;;
    esac
    case ${PYTHONPATH-}: in
        ("$_q1net_root:"*) ;;
        (*) export PYTHONPATH="$_q1net_root${PYTHONPATH:+:$PYTHONPATH}" ;;
    esac
    export TF_USE_LEGACY_KERAS=1  # tf.keras is then tf-keras, whose checkpoints ours are
    unset _q1net_root _q1net_env
    return 0
fi

exec 3>&1 >&2  # stdout is for the answer alone
fail() { printf 'env.sh: %s\n' "$*"; exit 1; }

root=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd -P) || exit 1
own=$root/.venv
env=${VIRTUAL_ENV:-${CONDA_PREFIX:-$own}}
case $env in ("$own") ;; (*/.venv)
    if grep -qs q1net-prepare "${env%/.venv}/env.sh"; then
        [ "$env" -ef "$own" ] || echo "env.sh: the active $env is another copy's of this repository; using $own"
        env=$own
    fi ;;
esac
python=$env/bin/python3
stamp=$env/.q1net-requirements
lock=$root/.ci/requirements.lock  # made of requirements.txt, with the hashes of all files
wanted=$root/requirements.txt change=${Q1NET_INSTALL-}
[ "$env" != "$own" ] || wanted=$lock change=

# -I and -S: nothing from the current folder or PYTHON* variables, and a quick start.
# Only a Python that runs can answer: a pyenv shim may be there and fail.
suits() {
    version=$("$1" -I -S -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
    case $version in (3.10|3.11|3.12|3.13) ;; (*) false ;; esac
}

# What a finished environment's stamp says. A folder that was moved or copied, or a
# Python that was replaced, shows in the first line.
stamp_text() { printf '%s\n' "$env $version"; cat "$wanted"; }

# Three answers about an environment that is not ours: on the first line what it lacks of
# requirements.txt, on the second what it has in another version, and then all that it has,
# as constraints for pip.
inspect() {
    "$python" -I - "$wanted" <<'END'
import re
import sys
from importlib import metadata, util
try:
    from packaging.requirements import InvalidRequirement, Requirement
except ImportError:  # pip has a copy
    from pip._vendor.packaging.requirements import InvalidRequirement, Requirement


def key(name):
    return re.sub('[-_.]+', '-', name).lower()


# Packages of another name can bring the same module: tensorflow-cpu, opencv-python.
MODULES = {'tensorflow': 'tensorflow', 'opencv-python-headless': 'cv2', 'pillow': 'PIL'}
present, missing, others, constraints = {}, [], [], []
for package in metadata.distributions():
    if package.metadata['Name'] and package.version:
        present.setdefault(key(package.metadata['Name']), package.version)
for name, version in present.items():
    try:
        constraints.append(str(Requirement(f'{name}=={version}')))
    except InvalidRequirement:  # a version that pip cannot read either
        pass
with open(sys.argv[1], encoding='utf-8') as lines:
    wanted = [Requirement(line.strip()) for line in lines if line.strip() and line[0] != '#']
for package in wanted:
    name = key(package.name)
    if package.marker and not package.marker.evaluate():
        continue
    if name in present:
        if str(package.specifier) != '==' + present[name].partition('+')[0]:
            others.append(f'{name} {present[name]}')
    elif name in MODULES and util.find_spec(MODULES[name]):
        constraints.append(f'{name}<0')
    else:
        missing.append(f'{name}{package.specifier}')
print(*missing)
print(*others, sep=', ')
print(*constraints, sep='\n')
END
}

if ! { [ "$change" != 1 ] && suits "$python" && stamp_text | cmp -s - "$stamp"; }; then
    made=
    [ ! -f "$stamp" ] || read -r made <"$stamp"
    set -- --require-hashes -r "$wanted"  # what pip is to do
    if [ "$env" != "$own" ]; then
        [ -d "$env" ] ||
            fail "the active environment $env no longer exists: run 'deactivate' or 'unset VIRTUAL_ENV CONDA_PREFIX'"
        suits "$python" || fail "$env has no Python 3.10 to 3.13: deactivate it, and source env.sh again"
        found=$(inspect 2>/dev/null) ||
            fail "cannot tell what $env holds; if it has no pip, this may bring it: $python -m ensurepip"
        { read -r missing; read -r others; constraints=$(cat); } <<END
$found
END
        set --
        if [ "$change" = 1 ]; then
            if [ -n "$missing$others" ]; then
                echo "env.sh: installing what requirements.txt names into $env; this can take some minutes"
                set -- --only-binary :all: -r "$wanted"
            fi
        else
            [ -z "$others" ] ||
                echo "env.sh: $env keeps its own versions where requirements.txt names others (Q1NET_INSTALL=1 changes them): $others"
            if [ -n "$missing" ]; then
                echo "env.sh: adding what is missing to $env, up to 2.5 GB, which can take some minutes: $missing"
                set -- --only-binary :all: -c /dev/stdin $missing
            fi
        fi
        [ $# = 0 ] || rm -f "$stamp"
    elif [ -e "$python" ] && [ ! -e "$stamp" ]; then
        # Not made here, so never removed.
        suits "$python" || fail "$env has no Python 3.10 to 3.13: remove it, and source env.sh again"
        echo "env.sh: installing what $wanted names into $env: 2.5 GB, which can take some minutes"
    elif [ "$made" = "$own $version" ]; then
        echo "env.sh: $wanted has changed; installing what is new into .venv; this can take some minutes"
        rm -f "$stamp"
    else
        case $made in (being\ made\ by\ *)
            ! kill -0 "${made##* }" 2>/dev/null || fail "process ${made##* } is making .venv at this moment: wait for it" ;;
        esac
        rm -rf "$own"
        if [ -n "${PYTHON-}" ]; then
            base=$PYTHON
            suits "$base" || fail "PYTHON=$PYTHON does not run or is not Python 3.10 to 3.13"
        else
            for base in python3 python3.12 python3.13 python3.11 python3.10 ''; do ! suits "$base" || break; done
            [ -n "$base" ] || fail "needs Python 3.10, 3.11, 3.12 or 3.13, and finds none: install one, or set PYTHON=/path/to/python3"
        fi
        "$base" -I -c 'import venv, ensurepip' 2>/dev/null ||
            fail "$base has no venv or ensurepip module; on Debian or Ubuntu: apt install python3-venv"
        echo "env.sh: making .venv with Python $version and installing what $wanted names: 2.5 GB, which can take some minutes"
        # Until all is in, the stamp matches nothing: even after a power cut, the next
        # run starts afresh.
        trap 'trap "" HUP INT TERM; rm -rf "$own"' EXIT
        trap 'exit 130' HUP INT TERM
        mkdir "$own" && echo "being made by $$" >"$stamp" && "$base" -I -m venv "$own" || fail "could not make $own"
    fi
    if [ $# -gt 0 ]; then
        "$python" -I -m pip --version >/dev/null 2>&1 || fail "$env has no pip; this may bring it: $python -m ensurepip"
        printf '%s\n' "${constraints-}" | PIP_USER=0 "$python" -I -m pip install -q --disable-pip-version-check "$@" || {
            [ "${3-}" != -c ] || fail "pip cannot add these to $env and change nothing there (it says why above): type 'deactivate' ('conda deactivate') to use .venv, or 'Q1NET_INSTALL=1' to let it change versions, and source env.sh again"
            fail "pip could not install what $wanted names (it says why above); source env.sh again when that is mended"
        }
    fi
    # Where the environment is not ours to write to, it is inspected again the next time.
    { stamp_text >"$stamp.new" && mv -f "$stamp.new" "$stamp"; } 2>/dev/null
    trap - EXIT
fi
quoted() { printf %s "$1" | sed "s/'/'\\\\''/g"; }
root=$(quoted "$root") && env=$(quoted "$env") &&
    printf "_q1net_root='%s' _q1net_env='%s'\n" "$root" "$env" >&3
