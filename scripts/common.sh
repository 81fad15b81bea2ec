# shellcheck shell=bash
# What the scripts share: installing what is missing, and where build artefacts go.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

# Build artefacts survive a fresh clone: they live in a cache of the user's, unless CARGO_TARGET_DIR says otherwise.
cache="${SIGMAGATE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sigmagate}"
if [ -z "${CARGO_TARGET_DIR:-}" ]; then
  CARGO_TARGET_DIR="$cache/target"
  export CARGO_TARGET_DIR
fi

fail() {
  printf 'error: %s\n' "$1" >&2
  exit 1
}

# need NAME PACKAGE WHY: remembers the package if the command is not there.
missing=()
need() {
  if ! command -v "$1" >/dev/null 2>&1; then
    printf 'installing %s (%s), which %s\n' "$2" "$1" "$3" >&2
    missing+=("$2")
  fi
}

need_postgresql() {
  if command -v initdb >/dev/null 2>&1 || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then
    return
  fi
  printf 'installing postgresql (initdb), which the tests of the fleet store start on their own\n' >&2
  missing+=(postgresql)
}

need_stock_clients() {
  need python3 python3 "runs the OAuth libraries of Python in the tests"
  if ! python3 -c 'import ensurepip, venv' >/dev/null 2>&1; then
    printf 'installing python3-venv, which gives those libraries an environment of their own\n' >&2
    missing+=(python3-venv)
  fi
  need node nodejs "runs the OAuth libraries of Node in the tests"
  need npm npm "installs those"
}

# stock_clients: the OAuth libraries that the tests run against the gateway, in environments of their own in the cache.
# They are made anew when what is asked for has changed.
stock_clients() {
  local clients="$cache/clients"
  mkdir -p "$clients"
  # Two runs at once make them one after the other.
  if command -v flock >/dev/null 2>&1; then
    exec 9>"$clients/lock"
    flock 9
  fi
  stock_client python "$(python3 --version)" tests/oauth/python/requirements.txt
  stock_client node "" tests/oauth/node/package.json tests/oauth/node/package-lock.json
  exec 9>&-
  export SIGMAGATE_STOCK_PYTHON="$clients/python/bin/python" SIGMAGATE_STOCK_NODE_MODULES="$clients/node/node_modules"
}

# stock_client NAME VERSION FILE...: the environment of one language, for this version of it, with what the files name.
stock_client() {
  local name=$1 version=$2 made="$clients/$1" sum
  shift 2
  sum=$({ printf '%s\n' "$version" && cat "$@"; } | cksum)
  if [ -e "$made/stamp" ] && [ "$(cat "$made/stamp")" = "$sum" ]; then
    return
  fi
  printf 'installing the libraries of %s into %s\n' "$1" "$made" >&2
  rm -rf "$made"
  mkdir "$made"
  "stock_$name"
  # Last of all: an environment that was left half done has none.
  printf '%s\n' "$sum" >"$made/stamp"
}

stock_python() {
  python3 -m venv "$made"
  "$made/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: -r tests/oauth/python/requirements.txt
}

stock_node() {
  cp tests/oauth/node/package.json tests/oauth/node/package-lock.json "$made/"
  npm ci --prefix "$made" --ignore-scripts --no-audit --no-fund --loglevel=error >&2
}

install_missing() {
  [ "${#missing[@]}" -gt 0 ] || return 0
  command -v apt-get >/dev/null 2>&1 || fail "no apt-get here: install ${missing[*]} with this system's package manager, then run this again"
  local as=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null 2>&1 || fail "neither root nor sudo: have ${missing[*]} installed, then run this again"
    as=(sudo)
  fi
  "${as[@]}" apt-get update -q >&2
  "${as[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" >&2
}

need cc gcc "compiles the C parts of the TLS library and of SQLite"
need make make "runs the build of those parts"
need cmake cmake "configures the build of zlib and of the TLS library"
command -v cargo >/dev/null 2>&1 || fail "cargo is not there: install Rust's stable toolchain with rustup (https://rustup.rs), then run this again"
