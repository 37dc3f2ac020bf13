#!/usr/bin/env bash
# build.sh [OUT]: builds cofferdam_VERSION_ARCH.deb for this machine's Debian and its Python, the way dh-virtualenv does:
# a virtual environment under /usr/lib/cofferdam with the locked dependencies and the compiled parts, units, man page and
# completion. Called by `make deb`, after `make setup`. Needs network for the locked wheels, and dpkg-deb.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
out=${1:-$root/dist}
tools=$root/.venv/bin/python
python=${PYTHON:-/usr/bin/python3}
command -v dpkg-deb >/dev/null || { echo "make deb needs dpkg-deb (Debian: apt-get install dpkg)" >&2; exit 1; }
version=$("$tools" -c 'import cofferdam; print(cofferdam.__version__)')
arch=$(dpkg --print-architecture)
tag=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
stage=$work/stage
home=/usr/lib/cofferdam
install -d "$stage$home" "$stage/usr/bin" "$stage/DEBIAN" "$out"

echo "the environment ..."
"$python" -m venv --without-pip "$stage$home"
"$tools" "$here/../runtime_lock.py" relay jump mirror diode patch > "$work/runtime.lock"
site=$stage$home/lib/python$tag/site-packages
pip() { "$tools" -m pip --python "$stage$home/bin/python" -qq --disable-pip-version-check "$@"; }
pip install --require-hashes --no-compile -r "$work/runtime.lock"
"$tools" -m pip wheel --quiet --no-deps --no-build-isolation -w "$work" "$root" 2>/dev/null ||
  "$tools" -m pip wheel --quiet --no-deps -w "$work" "$root"
pip install --no-deps --no-compile "$work"/*.whl

if [[ "${COFFERDAM_FAST:-1}" != 0 ]]; then
  echo "the compiled parts ..."
  PYTHONPATH=$("$tools" -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
    "$stage$home/bin/python" "$root/packaging/fast.py" --must
  rm -rf "$stage$home/lib/cofferdam-fast/objects" "$stage$home/lib/cofferdam-fast/log"
fi

# What was built below the stage is at home after the installation.
grep -rlIF "$stage" "$stage$home" | xargs -r sed -i "s#$stage##g"
# The record of the release has the hashes of what lies there, scripts too: the check software.integrity goes by it.
"$tools" - "$site" <<'END'
import base64, csv, hashlib, sys
from pathlib import Path

site = Path(sys.argv[1])
(record,) = site.glob("cofferdam_gate-*.dist-info/RECORD")
with record.open(newline="") as file:
    rows = list(csv.reader(file))
for row in rows:
    if row[0].startswith("../") and row[1]:
        data = (site / row[0]).read_bytes()
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        row[1:] = [f"sha256={digest}", str(len(data))]
with record.open("w", newline="") as file:
    csv.writer(file, lineterminator="\n").writerows(rows)
END
find "$stage$home" -name __pycache__ -prune -exec rm -rf {} +
"$stage$home/bin/python" -m compileall -q -j 0 -s "$stage" "$site" || true
ln -s ../lib/cofferdam/bin/cofferdam "$stage/usr/bin/cofferdam"

install -d "$stage/lib/systemd/system" "$stage/usr/share/man/man1" "$stage/usr/share/bash-completion/completions" \
  "$stage/usr/share/zsh/vendor-completions" "$stage/usr/share/fish/vendor_completions.d" \
  "$stage/usr/share/doc/cofferdam" "$stage/usr/share/cofferdam"
install -m 644 "$root"/packaging/systemd/*.service "$stage/lib/systemd/system/"
"$tools" "$here/../man.py" | gzip -9n > "$stage/usr/share/man/man1/cofferdam.1.gz"
"$root/.venv/bin/cofferdam" completion bash > "$stage/usr/share/bash-completion/completions/cofferdam"
"$root/.venv/bin/cofferdam" completion zsh > "$stage/usr/share/zsh/vendor-completions/_cofferdam"
"$root/.venv/bin/cofferdam" completion fish > "$stage/usr/share/fish/vendor_completions.d/cofferdam.fish"
cp -r "$root"/docs/*.md "$root/CHANGELOG.md" "$stage/usr/share/doc/cofferdam/"
install -m 644 "$root/LICENSE" "$stage/usr/share/doc/cofferdam/copyright"
cp -r "$root/packaging/prometheus" "$root/packaging/grafana" "$root/packaging/siem" "$root/tools" "$root/examples" \
  "$stage/usr/share/cofferdam/"

next=$("$python" -c 'import sys; print("%d.%d" % (sys.version_info[0], sys.version_info[1] + 1))')
cat > "$stage/DEBIAN/control" <<END
Package: cofferdam
Version: $version
Architecture: $arch
Maintainer: Cofferdam <root@localhost>
Installed-Size: $(du -sk "$stage" | cut -f1)
Depends: python3 (>= $tag), python3 (<< $next), libc6, nftables, iproute2, adduser
Recommends: wireguard-tools
Section: net
Priority: optional
Description: industrial DMZ between an office network and a plant network
 Brokers every exchange by a policy that an engineer can read, records it in an audit log that anyone
 can verify, and makes it anew on the other side, so that no session crosses.
END
printf '%s\n' /etc/cofferdam/README > "$stage/DEBIAN/conffiles"
install -d -m 750 "$stage/etc/cofferdam"
cat > "$stage/etc/cofferdam/README" <<'END'
policy.yaml goes here. Then: cofferdam check, cofferdam up --check-only, cofferdam install
(/usr/share/doc/cofferdam/first-site.md). The package starts no gate by itself.
END
install -m 755 "$here/postinst" "$here/prerm" "$here/postrm" "$stage/DEBIAN/"
chmod -R u+rwX,go+rX,go-w "$stage$home"
dpkg-deb --root-owner-group -Zxz -z1 --build "$stage" "$out/cofferdam_${version}_${arch}.deb" >/dev/null
echo "built $out/cofferdam_${version}_${arch}.deb ($(du -h "$out/cofferdam_${version}_${arch}.deb" | cut -f1))"
