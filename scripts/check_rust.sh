#!/usr/bin/env bash
# Format, clippy and tests of the crate. Its tests drive the Python package in .venv (or $VENV).
set -euo pipefail
cd "$(dirname "$0")/.."

if [ ! -f rust/Cargo.toml ]; then
  echo "rust: no crate yet"
  exit 0
fi
if ! command -v cargo >/dev/null 2>&1; then
  echo "rust: cargo is needed for the crate's checks" >&2
  exit 1
fi

VIRTUAL_ENV=$(cd "${VENV:-.venv}" && pwd)
PYO3_PYTHON=$VIRTUAL_ENV/bin/python
# The interpreter's own library folder: a Python that was not installed by the system is not on the loader's path.
library=$("$PYO3_PYTHON" -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR") or "")')
LD_LIBRARY_PATH=$library${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export PYO3_PYTHON VIRTUAL_ENV LD_LIBRARY_PATH LITELLM_LOCAL_MODEL_COST_MAP=true
# One small crate: what an incremental build would save here is less than keeping the state for it costs.
export CARGO_INCREMENTAL=${CARGO_INCREMENTAL:-0}

cd rust
cargo fmt --all --check
cargo clippy --quiet --all-targets --all-features -- -D warnings
# Whatever features a user takes: none but the types, one alone. `tls` brings `remote`, and neither needs a Python.
cargo clippy --quiet --lib --no-default-features -- -D warnings
for feature in embedded remote tls; do
  cargo clippy --quiet --lib --tests --examples --no-default-features --features "$feature" -- -D warnings
done
RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --all-features
# What is published: sources, examples and the licence, and nothing that only works inside of this repository.
published=$(cargo package --list --allow-dirty --quiet 2>/dev/null)
for needed in Cargo.toml LICENSE README.md src/lib.rs examples/token_streaming.rs examples/programs/shop.py; do
  grep -qxF "$needed" <<<"$published" || { echo "rust: the package lacks $needed" >&2; exit 1; }
done
if grep -E '^(tests|benches|target)/' <<<"$published"; then
  echo "rust: the package holds what it should not" >&2
  exit 1
fi
cargo test --quiet --all-features
