#!/usr/bin/env bash
# Installs the Debian packages of the named groups that are missing. Not root: says what is left out and goes on.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
missing=()
for group in "$@"; do
  while read -r g package purpose; do
    [[ "$g" == "$group" ]] || continue
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' && continue
    # A command of that name that came from elsewhere does as well, and may be in the package's way (npm with Node).
    command -v "$package" >/dev/null && continue
    missing+=("$package")
    printf 'missing: %-14s %s\n' "$package" "$purpose"
  done < "$here/debian-packages.txt"
done
((${#missing[@]})) || exit 0
if ! command -v apt-get >/dev/null; then
  echo "not a Debian system: install these by hand for what they are listed for: ${missing[*]}" >&2
  exit 0
fi
if ((EUID != 0)); then
  echo "not root: going on without ${missing[*]}; what needs them is left out and says so" >&2
  echo "  to have them: sudo apt-get install ${missing[*]}" >&2
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
# What a package brings is not started: the tests start their own.
policy=/usr/sbin/policy-rc.d
made=""
if [[ ! -e "$policy" ]]; then
  made=$policy
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi
trap 'rm -f "$log" $made' EXIT
install() { apt-get install -o DPkg::Lock::Timeout=600 -y -q --no-install-recommends "$@" >"$log" 2>&1; }
apt-get update -q >"$log" 2>&1 || tail -n 5 "$log" >&2
if ! install "${missing[@]}"; then
  # One that cannot be had must not keep the others away.
  for package in "${missing[@]}"; do
    install "$package" && continue
    tail -n 5 "$log" >&2
    echo "apt-get could not install $package; what needs it is left out" >&2
  done
fi
