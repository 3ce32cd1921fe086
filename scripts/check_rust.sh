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

cd rust
cargo fmt --all --check
cargo clippy --quiet --all-targets --all-features -- -D warnings
# A user of the remote runtime alone needs no Python to build.
cargo check --quiet --no-default-features --features remote
cargo test --quiet --all-features
