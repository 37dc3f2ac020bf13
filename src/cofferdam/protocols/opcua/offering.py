"""What a server of ours offers: endpoints, by what the policy says of clients' security, and namespaces, and nothing
else of the asset's.

Not here: channels and sessions (server).
"""

from __future__ import annotations

import abc
from typing import Any

from cofferdam.protocols.base import Facing, ServerMachine
from cofferdam.protocols.opcua import channel as ch
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua import services as s
from cofferdam.protocols.opcua.builtin_types import LocalizedText
from cofferdam.protocols.opcua.dialect import ARROW, field_path, split
from cofferdam.protocols.opcua.names import UA
from cofferdam.protocols.opcua.security import NONE, POLICIES, Policy

TRANSPORT = "http://opcfoundation.org/UA-Profile/Transport/uatcp-uasc-uabinary"
PRODUCT = "urn:cofferdam"


class Offering(ServerMachine[m.OpcUaRequest, m.OpcUaResponse]):
    """A server as far as it says what it offers."""

    facing: Facing | None
    trust: Any
    channel: ch.Channel
    url: str
    uri: str

    @abc.abstractmethod
    def reply(self, request: int, handle: int, kind: type, *fields: Any) -> None:
        """Answers a request."""

    def _offers(self, policy: Policy, mode: int) -> bool:
        return (policy, mode) in self._offered()

    def _words(self) -> tuple[str, ...]:
        """What the policy says of clients' security."""
        if self.facing is None:
            return ("none",)
        security = self.facing.asset.security
        return ("Basic256Sha256",) if security is None else security.clients

    def _offered(self) -> list[tuple[Policy, int]]:
        """What the policy lets clients use, the strongest first."""
        found = []
        for word in self._words():
            name, _, mode = word.partition(" ")
            if name == "none":
                found.append((NONE, 1))
            elif self.channel.own is not None:
                found.append((POLICIES[name], 2 if mode == "sign" else 3))
        return found

    def _description(self) -> s.ApplicationDescription:
        return s.ApplicationDescription(
            self.uri, PRODUCT, LocalizedText(None, "Cofferdam"), 0, None, None, [self.url or self._own_url()]
        )

    def _own_url(self) -> str:
        if self.facing is None:
            return ""
        address, port = self.facing.local
        return f"opc.tcp://[{address}]:{port}" if ":" in address else f"opc.tcp://{address}:{port}"

    def _endpoints(self) -> list[s.EndpointDescription]:
        """Ours alone: nothing of the asset's."""
        certificate = None if self.channel.own is None else self.channel.own.sent
        found = []
        for policy, mode in self._offered():
            tokens = [s.UserTokenPolicy("anonymous", 0, None, None, None)]
            if self.channel.own is not None:
                guard = policy if policy is not NONE else POLICIES["Basic256Sha256"]
                tokens.append(s.UserTokenPolicy("user", 1, None, None, guard.uri))
                if self.trust is not None and self.trust.secret.user_certificates:
                    tokens.append(s.UserTokenPolicy("certificate", 2, None, None, guard.uri))
            level = 0 if policy is NONE else 50 + 10 * mode + policy.key // 16 + policy.pss
            found.append(
                s.EndpointDescription(
                    self.url or self._own_url(),
                    self._description(),
                    certificate,
                    mode,
                    policy.uri,
                    tokens,
                    TRANSPORT,
                    level,
                )
            )
        return found

    def _discovery(self, number: int, request: Any) -> None:
        handle = request.header.handle
        if isinstance(request, s.FindServersRequest):
            wanted = not request.uris or self.uri in request.uris
            self.reply(number, handle, s.FindServersResponse, [self._description()] if wanted else [])
            return
        wanted = not request.profiles or TRANSPORT in request.profiles
        self.reply(number, handle, s.GetEndpointsResponse, self._endpoints() if wanted else [])


def uris_of(facing: Facing | None) -> tuple[str, ...]:
    """The namespaces that our side shows: the standard's, our own, and those of the policy in its order."""
    if facing is None:
        return UA, "urn:cofferdam:opcua"
    own = getattr(facing.common, "uri", "") or "urn:cofferdam:opcua"
    found: dict[str, None] = {}
    asset = facing.asset
    items = [point.at for point in asset.points] + [method.at for method in asset.methods]
    items += [notifier.at for notifier in asset.notifiers] + [tree.at for tree in asset.subtrees]
    for item in items:
        for name in getattr(item, "name", "").split(ARROW):
            uri = split(name)[0] if name else ""
            if uri and uri != own:
                found[uri] = None
    for point in asset.points:
        if point.structure and split(point.structure)[0]:
            found[split(point.structure)[0]] = None
    for notifier in asset.notifiers:
        for field in notifier.fields:
            for uri, _ in field_path(field.name.partition(ARROW)[2]):
                if uri and uri != own:
                    found[uri] = None
    if asset.subtrees:  # in these is more than what has a name in the policy
        found.update(dict.fromkeys(uri for _, uri in asset.namespaces if uri not in (own, UA)))
    return (UA, own, *found)
