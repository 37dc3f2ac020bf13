"""Who logs in at the side towards a client: nobody in particular, a user with a password, a user with a certificate.

Each ends here: what a client shows is bound to our certificate and this session's nonce, and nothing of it crosses but
the user's name. Not here: who is known (trust), sessions (server).
"""

from __future__ import annotations

import hmac
from typing import Any

from cofferdam.protocols.opcua import services as s
from cofferdam.protocols.opcua import wire
from cofferdam.protocols.opcua.builtin_types import Malformed
from cofferdam.protocols.opcua.security import NONE, POLICIES, Policy, SecurityError

BAD_IDENTITY, BAD_IDENTITY_REJECTED, BAD_SERVER_BUSY = 0x80200000, 0x80210000, 0x80EE0000


def identity_of(server: Any, expected: bytes, request: s.ActivateSessionRequest) -> str:
    """The user's name; "" for nobody in particular. `expected`: the nonce that this session was given last. Raises:
    Malformed."""
    try:
        token = wire.unpack(request.identity)
    except Malformed:
        raise Malformed("an identity of a kind that is not taken", BAD_IDENTITY) from None
    if token is None or isinstance(token, s.AnonymousToken):
        return ""
    policy = server.channel.policy if server.channel.policy is not NONE else POLICIES["Basic256Sha256"]
    if isinstance(token, s.CertificateToken):
        return _certified(server, expected, policy, token.certificate or b"", request.identity_signature)
    if not isinstance(token, s.UserNameToken) or server.trust is None:
        raise Malformed("an identity of a kind that is not taken", BAD_IDENTITY)
    own = server.channel.own
    if own is None or token.algorithm != policy.encryption_uri:
        raise Malformed("a password that is not encrypted for us", BAD_IDENTITY)
    if not server.may_work():
        raise Malformed("more passwords than are looked at come from this source", BAD_SERVER_BUSY)
    try:
        data = policy.unseal(own.key, token.password or b"")
    except SecurityError:
        raise Malformed("a password that is not encrypted for us", BAD_IDENTITY) from None
    size = int.from_bytes(data[:4], "little")
    password, nonce = data[4 : 4 + size - len(expected)], data[4 + size - len(expected) : 4 + size]
    if len(data) != 4 + size or size < len(expected) or not hmac.compare_digest(nonce, expected):
        raise Malformed("a password for another session", BAD_IDENTITY)
    user = token.user or ""
    source = "" if server.facing is None else server.facing.source
    known = len(password) <= 64 and server.trust.login(user, password, source, server.now)
    if known is None:
        raise Malformed("more passwords than are looked at come from this source, or from all", BAD_SERVER_BUSY)
    if not known:
        raise Malformed(f"the password of {user[:64]!r} is wrong", BAD_IDENTITY_REJECTED)
    return user


def _certified(server: Any, expected: bytes, policy: Policy, certificate: bytes, signature: s.SignatureData) -> str:
    """The user of a certificate, who has signed for this session with its key (OPC 10000-4, 7.40.5). Raises:
    Malformed."""
    own = server.channel.own
    found = None if server.trust is None else server.trust.certified(certificate, server.wall())
    if own is None or found is None:
        raise Malformed("a certificate by which nobody may log in", BAD_IDENTITY_REJECTED)
    user, key = found
    try:
        if signature.algorithm != policy.signature_uri:
            raise SecurityError("another algorithm")
        policy.verify(key, signature.signature or b"", own.certificate + expected)
    except SecurityError:
        raise Malformed(f"who shows the certificate of {user[:64]!r} has not signed with it", BAD_IDENTITY) from None
    return str(user)
