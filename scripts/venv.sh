# Sourced by the other scripts: a .venv in the repository root that holds this project.
#
#   set_up_venv [EXTRA]   afterwards "$venv/bin" has everything; does nothing when that is so already
#
# The stamp inside .venv says for which path, pyproject.toml and extra the last install was finished; one
# that was interrupted has no stamp, and is done again.

root=$(CDPATH='' cd -P -- "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv

find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3.14 python3.13 python3.12 python3.11 python3; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    echo "edgellm needs Python 3.11 to 3.14 with its venv module, and none was found: install one" \
        "(on Debian and Ubuntu also the package python3-venv), or set PYTHON to it" >&2
    return 1
}

# What an install depends on. The path is part of it: a .venv does not survive being moved.
wanted_stamp() {
    printf '%s\n' "$venv"
    cksum <"$root/pyproject.toml"
}

# $1: the extra. An install with an extra serves those who ask for none, too.
is_set_up() {
    local stamp=$venv/.edgellm
    [ -x "$venv/bin/python" ] || return 1
    [ "$(cat "$stamp${1:+-$1}" 2>/dev/null)" = "$(wanted_stamp)" ]
}

# An environment that was moved here, or whose Python is gone, is made anew; any other is kept, and pip
# finishes in it whatever an interrupted install began.
make_venv() {
    local made_for python
    made_for=$(head -n 1 "$venv/.edgellm" 2>/dev/null || echo "$venv")
    if [ ! -x "$venv/bin/python" ] || [ "$made_for" != "$venv" ]; then
        python=$(find_python)
        echo "edgellm: making $venv with $python" >&2
        "$python" -m venv --clear "$venv"
    fi
    "$venv/bin/python" -c 'import pip' 2>/dev/null || "$venv/bin/python" -m ensurepip >/dev/null
}

install_into_venv() {
    local extra=${1:-}
    make_venv
    rm -f "$venv"/.edgellm*
    echo "edgellm: installing into $venv${extra:+, with the extra \"$extra\"} (once; it may take some minutes)" >&2
    # PIP_USER would put it outside of the environment.
    PIP_USER=0 "$venv/bin/python" -m pip install -qq --disable-pip-version-check \
        -e "$root${extra:+[$extra]}" >&2
    # As pip does for all but this: where Python may not keep what it compiles, a start takes a quarter longer.
    "$venv/bin/python" -m compileall -q "$root/edgellm" >&2 || true
    wanted_stamp >"$venv/.edgellm"
    [ -z "$extra" ] || wanted_stamp >"$venv/.edgellm-$extra"
}

set_up_venv() {
    is_set_up "${1:-}" && return
    (
        set -e
        # A second one waits here, and then finds it done. The lock is on this very file: nothing to clean up.
        if command -v flock >/dev/null; then
            exec 9<"$root/scripts/venv.sh"
            flock 9
        fi
        is_set_up "${1:-}" || install_into_venv "$@"
    )
}
