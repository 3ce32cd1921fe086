#!/usr/bin/env bash
# Print the path of axe-core's script, with which the tests look for barriers in the pages. It is fetched with npm when it
# is first asked for, and is no part of the package.
set -euo pipefail
cd "$(dirname "$0")/.."

version=4.14.1
sum=29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c
home=$PWD/.cache/axe
script=$home/axe-$version.min.js
mkdir -p "$home"

# Test workers that start together take turns.
exec 9>"$home/lock"
"${PYTHON:-python3}" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'

has_sum() { "${PYTHON:-python3}" -c 'import hashlib, sys; sys.exit(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest() != sys.argv[2])' "$1" "$sum"; }

npm_there() {
  if command -v npm >/dev/null 2>&1; then
    return
  fi
  local uv
  uv=$(scripts/uv.sh "${PYTHON:-python3}")
  "$uv" venv --quiet --clear "$home/node" >&2
  "$uv" pip sync --quiet --require-hashes --python "$home/node/bin/python" tests/front_ends/clients/node.lock >&2
  export PATH=$home/node/bin:$PATH
}

if ! [ -f "$script" ]; then
  npm_there
  place=$(mktemp -d)
  trap 'rm -rf "$place"' EXIT
  (cd "$place" && npm pack --silent "axe-core@$version" >/dev/null && tar xzf axe-core-"$version".tgz)
  has_sum "$place/package/axe.min.js" || {
    echo "axe: axe-core $version is not the file that is expected" >&2
    exit 1
  }
  mv "$place/package/axe.min.js" "$script"
fi
echo "$script"
