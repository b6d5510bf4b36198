# Sets this shell up for the project; source it from sh, dash, bash or zsh:
#
#     . ./env.sh && python3 -m pytest
#
# The first time it makes .venv with Python 3.10 to 3.13 ($PYTHON, if that is set) and
# installs into it what .ci/requirements.lock names, no file of another hash; later it only
# looks whether that changed. With a virtual or conda environment active, it installs what
# is missing of requirements.txt into that one, whatever it holds besides.

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
    # file extends the PATH it inherits.
    case $PATH in
        ("$_q1net_env/bin:"*) ;;
        (*) export PATH="$_q1net_env/bin:$PATH" ;;
    esac
    case :${PYTHONPATH-}: in
        (*":$_q1net_root:"*) ;;
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
python=$env/bin/python3
stamp=$env/.q1net-requirements
lock=$root/.ci/requirements.lock  # made of requirements.txt, with the hashes of all files
wanted=$root/requirements.txt hashes=
[ "$env" != "$own" ] || wanted=$lock hashes=--require-hashes

# -I and -S: nothing from the current folder or PYTHON* variables, and a quick start.
# Only a Python that runs can answer: a pyenv shim may be there and fail.
suits() {
    version=$("$1" -I -S -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
    case $version in (3.10|3.11|3.12|3.13) ;; (*) false ;; esac
}

# What a finished environment's stamp says. A folder that was moved or copied, or a
# Python that was replaced, shows in the first line.
stamp_text() { printf '%s\n' "$env $version"; cat "$wanted"; }

if ! { suits "$python" && stamp_text | cmp -s - "$stamp"; }; then
    made=
    [ ! -f "$stamp" ] || read -r made <"$stamp"
    if [ "$env" != "$own" ] && [ ! -d "$env" ]; then
        fail "the active environment $env no longer exists: run 'deactivate' or 'unset VIRTUAL_ENV CONDA_PREFIX'"
    elif [ "$env" != "$own" ] || { [ -e "$python" ] && [ ! -e "$stamp" ]; }; then
        # Not made here, so never removed.
        suits "$python" || fail "$env has no Python 3.10 to 3.13: deactivate or remove it, and source env.sh again"
        echo "env.sh: installing what is missing of requirements.txt into $env; this can take some minutes"
        rm -f "$stamp"
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
        echo "env.sh: making .venv with Python $version and installing what $wanted names; this takes some minutes"
        # Until all is in, the stamp matches nothing: even after a power cut, the next
        # run starts afresh.
        trap 'trap "" HUP INT TERM; rm -rf "$own"' EXIT
        trap 'exit 130' HUP INT TERM
        mkdir "$own" && echo "being made by $$" >"$stamp" && "$base" -I -m venv "$own" || fail "could not make $own"
    fi
    "$python" -I -m pip --version >/dev/null 2>&1 || fail "$env has no pip; this may bring it: $python -m ensurepip"
    PIP_USER=0 "$python" -I -m pip install -q --disable-pip-version-check $hashes -r "$wanted" ||
        fail "pip could not install what $wanted names (it says why above); source env.sh again when that is mended"
    stamp_text >"$stamp.new" && mv -f "$stamp.new" "$stamp"
    trap - EXIT
fi
quoted() { printf %s "$1" | sed "s/'/'\\\\''/g"; }
root=$(quoted "$root") && env=$(quoted "$env") &&
    printf "_q1net_root='%s' _q1net_env='%s'\n" "$root" "$env" >&3
