#!/usr/bin/env bash
# Print the path of uv: the one on the path, else one of our own beside the caches, made by the Python that is given.
set -euo pipefail
cd "$(dirname "$0")/.."

if command -v uv >/dev/null 2>&1; then
  command -v uv
  exit
fi
home=.cache/uv-venv
if ! "$home/bin/uv" --version >/dev/null 2>&1; then
  rm -rf "$home"
  "$1" -m venv "$home" >&2 || {
    echo "uv: '$1 -m venv' failed; on Debian install python3-venv" >&2
    exit 1
  }
  "$home/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r scripts/uv.lock >&2
fi
echo "$home/bin/uv"
