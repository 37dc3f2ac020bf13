#!/usr/bin/env bash
# setup.sh VENV STAMP: makes the virtual environment with the locked dependencies and this package, then the stamp.
# Called by make; safe to repeat, and one at a time.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
venv=${1:-.venv}
stamp=${2:-$venv/.ready}
exec 9>"$here/../.setup.lock"
if ! flock -n 9; then
  echo "another make sets up $venv; waiting for it ..."
  flock 9
fi
if [[ -e "$stamp" && "$stamp" -nt "$here/../requirements.lock" && "$stamp" -nt "$here/../pyproject.toml" &&
  "$stamp" -nt "$here/setup.sh" ]]; then
  exit 0
fi
"$here/debian-packages.sh" base
python=""
for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
  [[ -n "$candidate" ]] && command -v "$candidate" >/dev/null || continue
  if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
if [[ -z "$python" ]]; then
  echo "Cofferdam needs Python 3.11 or later with its venv module (Debian: apt-get install python3-venv)" >&2
  exit 1
fi
[[ -x "$venv/bin/python" ]] || "$python" -m venv "$venv"
echo "installing the locked dependencies into $venv ..."
"$venv/bin/python" -m pip install --quiet --require-hashes -r "$here/../requirements.lock"
"$venv/bin/python" -m pip install --quiet --no-deps --no-build-isolation -e "$here/.." 2>/dev/null ||
  "$venv/bin/python" -m pip install --quiet --no-deps -e "$here/.."
# Parts run as users of their own and cannot leave bytecode beside the source: it is made here, anew whatever lies there.
"$venv/bin/python" -m compileall -q -f -j 0 "$here/../src"
touch "$stamp"
