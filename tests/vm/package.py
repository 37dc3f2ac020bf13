"""The Debian package on a machine that has nothing of this project: installed, run, upgraded, removed, purged."""

from __future__ import annotations

import time

from tests.vm.checks import (
    ERP,
    OVERLAY,
    PEERS,
    POLICY,
    WORKS,
    Checks,
    exchange,
    from_card,
    guest,
    policy,
    put,
    said,
    show,
    status,
    unpack,
    wait_ready,
)
from tests.vm.machine import Machine
from tests.vm.units import kinds

CLEAN = "env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "
"""As whoever logs in: without the virtual environment of the checks."""
OLDER = "0.0.9"
REPACK = f"""
set -e
dpkg-deb -R /opt/cofferdam.deb /root/older
sed -i 's/^Version: .*/Version: {OLDER}/' /root/older/DEBIAN/control
dpkg-deb -Znone --root-owner-group -b /root/older /root/older.deb
rm -rf /root/older
"""
"""The same package under an older version: what it was yesterday, so that there is something to upgrade."""
NEXT = "systemctl daemon-reload && systemctl enable -q --now cofferdam-shut cofferdam"


def package(machine: Machine, checks: Checks) -> None:
    """The Debian package under systemd: install, first site, upgrade over a running gate, remove, purge."""
    machine.boot()
    unpack(machine)
    if not checks.check("there is a package (make deb)", machine.run("test -f /opt/cofferdam.deb").ok):
        return
    machine.must(REPACK, seconds=300)
    done = machine.run(f"{CLEAN} dpkg -i /root/older.deb 2>&1", seconds=300)
    checks.check("it installs", done.ok, done.out)
    machine.run("rm /root/older.deb")  # half a gigabyte, of a disk of four
    units = machine.run("systemctl is-active cofferdam; systemctl is-enabled cofferdam").out
    checks.check("and starts nothing", units.split() == ["inactive", "disabled"], units)
    where = machine.run(f"{CLEAN} sh -c 'command -v cofferdam; cofferdam --version; man -w cofferdam'").out
    checks.check("the command is in PATH", where.startswith("/usr/bin/cofferdam"), where)
    files = "/usr/share/man/man1/cofferdam.1.gz /usr/share/bash-completion/completions/cofferdam \\\n"
    files += "/usr/share/zsh/vendor-completions/_cofferdam /usr/share/doc/cofferdam/first-site.md"
    files += " /usr/share/fish/vendor_completions.d/cofferdam.fish"
    checks.check("man page, completion and documents are there", machine.run(f"ls {files}").ok)
    loaded = machine.run(
        f"{CLEAN} bash -c '. /usr/share/bash-completion/completions/cofferdam && complete -p cofferdam';"
        f" {CLEAN} zcat /usr/share/man/man1/cofferdam.1.gz | grep -m 2 -e '^.TH' -e whois"
    ).out
    checks.check("bash takes the completion, and the page is one of this program",
                 "complete -" in loaded and ".TH" in loaded and "whois" in loaded, loaded)  # fmt: skip

    put(machine, POLICY, policy())
    for verb in (f"check {POLICY}", f"up {POLICY} --check-only", f"install {POLICY}"):
        done = machine.run(f"{CLEAN} cofferdam {verb}", seconds=60)
        checks.check(f"cofferdam {verb.split()[0]} on a first site", done.ok, done.out)
    machine.run(NEXT, seconds=180)
    checks.check("the gate is ready", wait_ready(machine) >= 0, said(machine))
    machine.must(PEERS)
    done_ = exchange(machine)
    checks.check("a read and a write are brokered", done_ == WORKS, done_ + said(machine))
    found = status(machine)
    halves = machine.run("ps -eo args | grep -c '[c]offerdam-fast'").out
    ok = found.get("separation") == "namespaces" and halves.strip() == "2"
    checks.check("under namespaces, with compiled halves", ok, (found.get("separation"), halves))
    seen = machine.run(f"{CLEAN} cofferdam status", seconds=60)
    checks.check("status says that all is well", seen.ok, "\n".join(seen.out.splitlines()[:8]))

    put(machine, "/root/next.yaml", policy(write=""))
    done_ = machine.run(guest("over-a-reload", "office", ERP, OVERLAY, "/root/next.yaml"), seconds=90).out
    ok = "before: 0302002a True" in done_ and "after: 0302002a False" in done_
    checks.check("systemctl reload: the session goes on, and the write is now refused", ok, done_ + said(machine))
    put(machine, POLICY, policy().replace("{zone: plant,", "{zone: plent,"))
    done = machine.run("systemctl reload cofferdam")
    why = said(machine)
    checks.check("systemctl reload of a policy that is refused fails", not done.ok, done.out + why)
    checks.check("and the journal says where the mistake is", "plent" in why and "policy.yaml" in why, why)
    put(machine, POLICY, policy())
    done = machine.run("systemctl reload cofferdam")
    checks.check("a good one is taken after it", done.ok and exchange(machine) == WORKS, done.out + said(machine))

    machine.must("rm -f /tmp/held")
    held = "systemd-run --quiet --unit=held -p StandardOutput=file:/root/held.txt --working-directory=/opt/cofferdam"
    machine.must(f"{held} /opt/venv/bin/python -m tests.vm.guest hold office {ERP} {OVERLAY} /tmp/held")
    machine.must("for i in $(seq 100); do test -e /tmp/held && break; sleep 0.1; done; test -e /tmp/held")
    old = show(machine, "cofferdam", "MainPID")["MainPID"]
    began = time.monotonic()
    done = machine.run(f"{CLEAN} dpkg -i /opt/cofferdam.deb 2>&1", seconds=300)
    checks.check("it upgrades over the running gate", done.ok, done.out)
    checks.check("which starts anew, all of one version", wait_ready(machine, other_than=old) >= 0, said(machine))
    checks.note(f"upgrade and start: {time.monotonic() - began:.0f} s")
    machine.run("for i in $(seq 100); do systemctl -q is-active held || break; sleep 0.2; done; systemctl stop held")
    held = machine.run("cat /root/held.txt").out.strip()
    checks.check("a session that was open was read from until then, and is ended", held.startswith("ended:"), held)
    done_ = exchange(machine)
    checks.check("and brokers again", done_ == WORKS, done_ + said(machine))
    done = machine.run(f"{CLEAN} cofferdam audit verify", seconds=60)
    checks.check("the log goes on, and verifies", done.ok, done.out)

    done = machine.run(f"{CLEAN} dpkg -r cofferdam 2>&1", seconds=180)
    checks.check("it is removed", done.ok, done.out)
    left = machine.run(
        "systemctl is-active cofferdam; ip netns list; ls -d /usr/lib/cofferdam /usr/bin/cofferdam 2>&1"
    ).out
    checks.check("no gate, no namespace of it and no program is left", "active" not in left.split()
                 and "cofferdam-vm" not in left and left.count("No such file") == 2, left)  # fmt: skip
    for end in machine.wires:
        end.forget()
    machine.run(guest("exchange", "office", ERP, OVERLAY), seconds=60)
    frames = from_card(machine, 1, "it0") + from_card(machine, 2, "ot0")
    checks.check("the cards lead nowhere", not frames, kinds(frames))
    checks.check("the log and its key are kept", machine.run("ls /var/lib/cofferdam/audit").ok)
    done = machine.run(f"{CLEAN} dpkg -P cofferdam 2>&1", seconds=60)
    checks.check("purge succeeds, and says what it keeps", done.ok and "kept: /var/lib/cofferdam" in done.out, done.out)
    left = machine.run("ls /etc/systemd/system/cofferdam* /etc/cofferdam/shut* 2>/dev/null; ls /var/lib/cofferdam").out
    checks.check("what `cofferdam install` wrote is gone, the log is not", "/etc" not in left and "audit" in left, left)
    checks.check("the machine has no failed unit", not machine.run("systemctl --failed --no-legend").out.strip())
