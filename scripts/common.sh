# shellcheck shell=bash
# What the scripts share: installing what is missing, and where build artefacts go.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

# Build artefacts survive a fresh clone: they live in a cache of the user's, unless CARGO_TARGET_DIR says otherwise.
if [ -z "${CARGO_TARGET_DIR:-}" ]; then
  CARGO_TARGET_DIR="${SIGMAGATE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sigmagate}/target"
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
