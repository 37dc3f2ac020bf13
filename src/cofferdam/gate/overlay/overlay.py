"""The overlay of a running gate: keeps the name server alive, and the tunnel's peers as policy and operator say.

A peer comes by its key alone: the device takes packets from it only if they carry the addresses that the policy's
principal has. It is let in if the operator added its key and a principal of the policy names it; if either goes, it is
out. Revoking takes the key from the device first, then ends the sessions that are left.

Not here: the device (enforce.overlay.tunnel), answers (enforce.overlay.answers), the files (peers).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from typing import Any

from cofferdam.audit.events.base import clip
from cofferdam.audit.events.overlay import PeerAdded, PeerRevoked
from cofferdam.enforce.orders import TUNNEL_PEERS, PeerState, Place, TunnelPeer
from cofferdam.enforce.overlay.records import NamesStatus
from cofferdam.enforce.plans.network import doors
from cofferdam.enforce.plans.overlay import PORT, name_zone, peer_addresses
from cofferdam.errors import CofferdamError, GateError
from cofferdam.gate.audit import now_ns
from cofferdam.gate.context import Context
from cofferdam.gate.overlay.names import NameServer
from cofferdam.gate.overlay.peers import Peer, decode_key, load_peers, private_key, public_key, save_peers
from cofferdam.policy.table import CompiledPolicy

PAUSE_SECONDS = 1.0
"""Before a tunnel that ended is made anew."""
STOP_SECONDS = 1.0
RECORD_SECONDS = 2.0


class Overlay:
    """Started and told of each new policy by the gate; asked by the control socket."""

    def __init__(self, gate: Context) -> None:
        self._gate = gate
        self._peers: dict[str, Peer] = {}
        self._key = ""
        self._tunnel = ""
        """What the tunnel is, such as "kernel"; "" while there is none."""
        self._tunnel_ended: asyncio.Future[int] | None = None
        self._domain = ""
        self._served: tuple[str, ...] = ()
        self._place = Place("it", "it")
        self._listeners: list[int] = []
        self._names: NameServer | None = None
        self._stopping = asyncio.Event()

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self, policy: CompiledPolicy) -> None:
        """Before the pairs start. Raises: GateError, if names cannot be served as the policy says."""
        self._peers, damage = load_peers(self._gate.options.state)
        self._gate.alarm("overlay-peers-damaged", damage)
        await self.take_policy(policy)

    async def take_policy(self, policy: CompiledPolicy) -> None:
        """Serves the policy's names and lets its peers in. Raises: GateError."""
        zone = name_zone(policy, now_ns() // 10**9)
        served = zone.servers if zone is not None else ()
        if served != self._served:
            await self._move(served, policy)
        if zone is None or not served:
            if self._names is not None:
                names, self._names = self._names, None
                await names.stop(STOP_SECONDS)
        elif self._names is None:
            self._names = NameServer(self._gate, zone, self._place, tuple(self._listeners))
            self._gate.spawn(self._names.run())
            await self._names.first
        else:
            self._names.set_zone(zone)
        self._domain = zone.domain if zone is not None else ""
        await self._set_tunnel(policy)

    async def _move(self, served: tuple[str, ...], policy: CompiledPolicy) -> None:
        """Listens at other addresses. The name server that runs is ended; the next one has the new sockets."""
        launcher = self._gate.launcher
        zone = next((zone.name for zone in policy.zones.values() if zone.side.value == "it"), "")
        place = Place("it", zone)
        fresh: list[int] = []
        try:
            for address in served:
                for datagrams in (True, False):
                    opened = await launcher.open_listener(place, address, PORT, datagrams=datagrams)
                    fresh.append(opened.listener)
        except GateError as error:
            for number in fresh:
                launcher.close_listener(number)
            raise GateError(
                f"the overlay's name server: {error}", hint="`overlay: dns:` of the policy says where it answers"
            ) from None
        for number in self._listeners:
            launcher.close_listener(number)
        self._listeners, self._served, self._place = fresh, served, place
        if self._names is not None and served:
            self._names.move(place, tuple(fresh))

    async def stop(self) -> None:
        """Ends the name server. The tunnel ends with the launcher."""
        self._stopping.set()
        if self._names is not None:
            await self._names.stop(STOP_SECONDS)

    @property
    def facts(self) -> tuple[tuple[str, bool, str], ...]:
        """The separation that the name server has put itself under."""
        return self._names.facts if self._names is not None else ()

    # --- the tunnel -------------------------------------------------------------------------------------------------

    async def _set_tunnel(self, policy: CompiledPolicy) -> None:
        """Lets in who is both in the policy and in the file. What goes wrong is an alarm, since the rest works on."""
        if policy.overlay is None or policy.overlay.wireguard is None:
            return
        try:
            await self._tell_tunnel(policy)
        except CofferdamError as error:
            self._tunnel = ""
            self._gate.alarm("tunnel-down", f"overlay peers cannot connect: {error} {error.hint}".strip())

    async def _tell_tunnel(self, policy: CompiledPolicy) -> None:
        if not self._key:
            self._key = private_key(self._gate.options.state)
        addresses = peer_addresses(policy)
        peers = tuple(
            TunnelPeer(peer.key, addresses[peer.name]) for peer in self._peers.values() if addresses.get(peer.name)
        )
        done, ended = await self._gate.launcher.set_tunnel(self._key, peers)
        if done.kind != self._tunnel:
            self._gate.log.info("tunnel-up", kind=done.kind, interface=done.interface)
        self._tunnel = done.kind
        self._gate.alarm("tunnel-down", "")
        if ended is not None:
            self._gate.spawn(self._watch_tunnel(ended))

    async def _watch_tunnel(self, ended: asyncio.Future[int]) -> None:
        """Until its program ends; then it is made anew."""
        stopping = asyncio.get_running_loop().create_task(self._stopping.wait())
        try:
            waiting: set[asyncio.Future[Any]] = {ended, stopping}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            while not self._stopping.is_set():
                self._tunnel = ""
                self._gate.log.error("tunnel-ended")
                self._gate.alarm("tunnel-down", "the tunnel's program ended; it is started anew")
                await asyncio.wait([stopping], timeout=PAUSE_SECONDS)
                if self._stopping.is_set():
                    return
                async with self._gate.changing:
                    await self._set_tunnel(self._gate.policy)
                if self._tunnel:
                    return
        finally:
            stopping.cancel()

    # --- the operator -----------------------------------------------------------------------------------------------

    async def add_peer(self, name: str, key: str, by: str) -> dict[str, Any]:
        """Lets a peer in: durable, in force, recorded. What its configuration needs.

        Raises:
            GateError: no principal names it, it is there already, its key is none, or the tunnel does not stand.
        """
        gate = self._gate
        async with gate.changing:
            policy = gate.policy
            overlay = policy.overlay
            if overlay is None or overlay.wireguard is None:
                raise GateError("the policy has no `overlay: wireguard:`", hint="docs/overlay.md says how to write it")
            addresses = peer_addresses(policy).get(name)
            if not addresses:
                raise GateError(
                    f"no principal of the policy is the peer {name}",
                    hint=f"add one, such as `{name}: {{zone: ..., peer: {name}}}`, to `principals:`, and reload",
                )
            if name in self._peers:
                raise GateError(f"there is a peer {name} already", hint=f"`cofferdam overlay revoke {name}` first")
            if not any(decode_key(key)):
                raise GateError(
                    "that is not a WireGuard public key", hint="32 bytes in base64, as `wg pubkey` prints it"
                )
            if len(self._peers) >= TUNNEL_PEERS:
                raise GateError(f"there are {TUNNEL_PEERS} peers, and no more are let in", hint="revoke one")
            if key in {peer.key for peer in self._peers.values()}:
                raise GateError("another peer has that key", hint="each peer needs a key of its own")
            before = dict(self._peers)
            self._peers[name] = Peer(name, key, now_ns(), by)
            try:
                await self._tell_tunnel(policy)
                save_peers(gate.options.state, self._peers)
            except CofferdamError:
                self._peers = before
                await self._set_tunnel(policy)
                raise
            gate.log.info("peer-added", peer=name, by=by)
            added = PeerAdded(peer=name, key=key, addresses=addresses, by=clip(by, 128), wall_ns=now_ns())
            await gate.audit.record(added, RECORD_SECONDS)
            wireguard = overlay.wireguard
            open_to = doors(policy, name)
            leads_to = {*policy.overlays.values(), *open_to}
            places = {f"{text}/{128 if ':' in text else 32}" for text in leads_to}
            return {
                "host": wireguard.endpoint[0],
                "port": wireguard.endpoint[1],
                "server_key": public_key(self._key),
                "addresses": list(addresses),
                "networks": [*overlay.prefixes, *sorted(places - _within(places, overlay.prefixes))],
                "dns": [server for server in overlay.dns if server in open_to],
                "domain": overlay.domain,
                "keepalive": wireguard.keepalive,
            }

    async def revoke_peer(self, name: str, by: str) -> dict[str, Any]:
        """Shuts a peer out: its key is gone from the device, its sessions are ended, it is durable and recorded.

        Raises:
            GateError: there is no such peer; or it is out, and that cannot be made durable.
        """
        gate = self._gate
        async with gate.changing:
            peer = self._peers.pop(name, None)
            if peer is None:
                known = ", ".join(self._peers) or "none"
                raise GateError(f"there is no peer {name}", hint=f"peers: {known}")
            trouble: CofferdamError | None = None
            try:
                await self._tell_tunnel(gate.policy)
            except CofferdamError as error:
                trouble = error
            sessions = await gate.end_sessions(
                peer_addresses(gate.policy).get(name, ()), f"overlay peer revoked by {by}"
            )
            gate.log.warning("peer-revoked", peer=name, by=by, sessions=sessions)
            revoked = PeerRevoked(peer=name, key=peer.key, by=clip(by, 128), wall_ns=now_ns())
            await gate.audit.record(revoked, RECORD_SECONDS)
            save_peers(gate.options.state, self._peers)
            if trouble is not None:
                raise GateError(
                    f"{name} is revoked and its sessions are ended, but the tunnel did not take it: {trouble}",
                    hint="`cofferdam down` ends the tunnel; the peer stays revoked after the next start",
                )
            return {"name": name, "sessions": sessions}

    async def peers(self) -> dict[str, Any]:
        """Everybody on the list, with what the device knows of them."""
        addresses = peer_addresses(self._gate.policy)
        known: dict[str, PeerState] = {}
        if self._tunnel:
            with contextlib.suppress(GateError):
                known = {state.key: state for state in await self._gate.launcher.ask_tunnel()}
        found = []
        for peer in self._peers.values():
            state = known.get(peer.key)
            found.append({
                "name": peer.name, "key": peer.key, "since_ns": peer.since_ns, "by": peer.by,
                "addresses": list(addresses.get(peer.name, ())), "in_policy": peer.name in addresses,
                "handshake": state.handshake if state else 0, "received": state.received if state else 0,
                "sent": state.sent if state else 0, "endpoint": state.endpoint if state else "",
            })  # fmt: skip
        status = self._names.status if self._names is not None else None
        names = {name: getattr(status, name) for name in NamesStatus.__struct_fields__} if status is not None else None
        return {
            "tunnel": self._tunnel,
            "key": public_key(self._key) if self._key else "",
            "peers": found,
            "domain": self._domain,
            "names": names,
        }


def _within(places: set[str], prefixes: tuple[str, ...]) -> set[str]:
    networks = [ipaddress.ip_network(text) for text in prefixes]
    return {
        text
        for text in places
        if any((net := ipaddress.ip_network(text)).version == n.version and net.subnet_of(n) for n in networks)  # type: ignore[arg-type]
    }
