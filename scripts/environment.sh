# Sourced by the other scripts: system packages and the virtual environment in .venv.  Safe to use again and again.

# need_packages PACKAGE...: install those Debian packages that are missing.  "a|b" takes whichever the release has.
need_packages() {
    local wanted=() choice name as_root=()
    for choice in "$@"; do
        local found=""
        for name in ${choice//|/ }; do
            if dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q "ok installed"; then found=yes; fi
        done
        [ -n "$found" ] || wanted+=("$choice")
    done
    [ ${#wanted[@]} -gt 0 ] || return 0
    if ! command -v apt-get >/dev/null; then
        echo "please install what Debian calls: ${wanted[*]}" >&2
        return 1
    fi
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    echo "installing ${wanted[*]}" >&2
    "${as_root[@]}" apt-get update -qq
    for choice in "${wanted[@]}"; do
        for name in ${choice//|/ }; do
            if apt-cache show "$name" >/dev/null 2>&1; then break; fi
        done
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$name" >/dev/null
    done
}

# install_locked PYTHON SET: install the packages of scripts/locked/SET.txt below the current folder, run or test, for the
# interpreter PYTHON.  pip refuses a file whose hash is not in the lock.  What builds packages comes first and from the
# lock, too: without isolation no other version of it can be fetched.
install_locked() {
    local pip=("$1" -m pip install --quiet --disable-pip-version-check --require-hashes)
    "${pip[@]}" -r scripts/locked/build.txt
    "${pip[@]}" --no-build-isolation --use-pep517 -r "scripts/locked/$2.txt"
}

# need_venv [test]: have imagefs, and with "test" what its tests need, in .venv below the current folder.
need_venv() {
    local extra="${1:-}" state stamp
    state="$(cat pyproject.toml scripts/locked/*.txt | sha256sum | cut -c1-64)"
    stamp="$state $extra"
    if [ -x .venv/bin/imagefs ] && grep -qxF "$stamp" .venv/imagefs-stamp 2>/dev/null; then return 0; fi
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "imagefs needs Python 3.11 or newer; this is $(python3 --version)" >&2
        return 1
    }
    [ -x .venv/bin/python ] || python3 -m venv .venv
    echo "installing imagefs into .venv" >&2
    install_locked .venv/bin/python "${extra:-run}"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
    # What satisfies the tests satisfies everybody.
    { echo "$stamp"; echo "$state "; } >.venv/imagefs-stamp
}
