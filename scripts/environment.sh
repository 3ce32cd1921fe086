#!/usr/bin/env bash
# Print the Python of an environment for packages that can't be in .venv: scripts/environment.sh NAME
# It has exactly what scripts/environments/NAME.lock says, and is made when it is first asked for. Where NAME.in says
# "with dspy-live", this working copy and what it needs is there too.
# scripts/environment.sh --lock NAME writes NAME.lock from NAME.in.
set -euo pipefail
cd "$(dirname "$0")/.."

export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-true} UV_NATIVE_TLS=${UV_NATIVE_TLS:-true}
python=${PYTHON:-${VENV:-.venv}/bin/python}
folder=scripts/environments
with_project() { grep -q '^# with dspy-live' "$folder/$1.in"; }

if [ "$1" = --lock ]; then
  uv=$(scripts/uv.sh "$python")
  inputs=("$folder/$2.in")
  with_project "$2" && inputs+=(pyproject.toml)
  "$uv" pip compile --quiet "${inputs[@]}" --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-header --no-annotate --output-file "$folder/$2.lock" "${@:3}"
  exit
fi

home=.cache/environments/$1-$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
stamp=$home/.dspy-live-stamp
mkdir -p .cache/environments
exec 9>"$home.busy"
"$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)' # several tests may ask at once; macOS has no flock command
wanted=$({
  "$python" -c 'import sys; print(sys.version, sys.executable)'
  pwd
  cat "$folder/$1.in" "$folder/$1.lock" scripts/environment.sh scripts/uv.sh scripts/uv.lock
} | "$python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || ! "$home/bin/python" -c '' 2>/dev/null; then
  rm -rf "$home"
  uv=$(scripts/uv.sh "$python")
  "$uv" venv --quiet --python "$python" "$home" >&2
  "$uv" pip sync --quiet --require-hashes --python "$home/bin/python" "$folder/$1.lock" >&2
  if with_project "$1"; then # no build: the working copy itself, as an editable install has it
    "$home/bin/python" -c "import pathlib, sysconfig
pathlib.Path(sysconfig.get_path('purelib'), 'dspy_live.pth').write_text('$PWD/src')"
  fi
  echo "$wanted" >"$stamp"
fi
echo "$PWD/$home/bin/python"
