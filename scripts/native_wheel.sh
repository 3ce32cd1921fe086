#!/usr/bin/env bash
# Build the wheel of the compiled part for every Linux with this machine's kind of processor, and its source
# distribution, in dist/ (or $DIST).
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(uname)" != Linux ]; then
  echo "native_wheel: the compiled part is for Linux only" >&2
  exit 1
fi
dist=${DIST:-dist}
mkdir -p "$dist"
dist=$(cd "$dist" && pwd)
python=$(scripts/environment.sh wheels)
PATH=$(dirname "$python"):$PATH
export PATH CARGO_INCREMENTAL=${CARGO_INCREMENTAL:-0}

rm -f "$dist"/dspy_live_native-*
cd native
maturin build --release --zig --compatibility manylinux2014 --interpreter "$python" --out "$dist"
maturin sdist --out "$dist"
