#!/usr/bin/env bash
# example_report.sh OUT.html: the report that README links to, of a real gate: one proxy and one export of the log, in
# networks of its own that are gone afterwards. Run as root, with the virtual environment's cofferdam in the PATH.
set -euo pipefail
out=$(realpath -m "${1:?where to: docs/example-report.html}")
if [[ "${2:-}" != inside ]]; then
  mkdir -p /etc/cofferdam /var/lib/cofferdam
  exec unshare --net --mount "$0" "$out" inside
fi
mount -t tmpfs -o mode=755 tmpfs /etc/cofferdam
mount -t tmpfs -o mode=755 tmpfs /var/lib/cofferdam
ip link set lo up
for side in office plant; do
  ip link add "${side}0" type veth peer name "${side}1"
  ip link set "${side}1" up
done
cat >/etc/cofferdam/policy.yaml <<'POLICY'
site: riverside-water
zones:
  enterprise: {side: it, level: 4, interface: office0, addresses: [10.92.1.1/24]}
  control: {side: ot, level: 2, interface: plant0, addresses: [10.92.0.1/24]}
assets:
  plc-a:
    zone: control
    address: 10.92.0.17
    protocol: modbus
    unit: 1
    overlay: 100.64.7.17
    points:
      level: {at: holding 0, type: uint16}
      speed: {at: holding 10, type: uint16, unit: rpm, min: 0, max: 1500, max_step: 100, writes_per_minute: 6}
principals:
  erp: {zone: enterprise, addresses: [10.92.1.20]}
conduits:
  erp-and-pump:
    from: enterprise
    to: control
    broker: modbus
    owner: operations
    reason: dispatch reads the level and sets the pump's speed
    expires: 2027-06-30
    latency_budget: 5 ms
    allow: [{who: erp, asset: plc-a, read: [level, speed], write: [speed]}]
audit:
  collectors:
    archive: {to: folder}
POLICY
said=$(mktemp)
cofferdam up /etc/cofferdam/policy.yaml 2>"$said" &
gate=$!
trap 'kill "$gate" 2>/dev/null; wait "$gate" || true; rm -f "$said"' EXIT
until cofferdam status --json 2>/dev/null | grep -q '"working": *true'; do
  kill -0 "$gate" || { cat "$said" >&2; exit 1; }
  sleep 0.2
done
cofferdam prove >/dev/null
cofferdam evidence selftest
cofferdam evidence run --all || true # what this machine fails, such as a clock that nobody keeps, is in the report
cofferdam evidence report --framework iec62443-3-3 --sl 2 --html "$out"
