"""What a client machine does in several questions: the handshake, renewal, watches; and each request's own.

Each is a generator: it yields a request (services), is sent the response, and returns the message that crosses. Not
here: the connection (client), surveys (client_survey).
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from typing import Any

from cofferdam.errors import ConnectAnew, RemoteProtocolError
from cofferdam.model import Item
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua import services as s
from cofferdam.protocols.opcua import wire
from cofferdam.protocols.opcua.builtin_types import (
    Data,
    LocalizedText,
    Malformed,
    NodeId,
    QualifiedName,
    Variant,
)
from cofferdam.protocols.opcua.conditions import KIND, is_named_itself, told_of
from cofferdam.protocols.opcua.dialect import TELLS
from cofferdam.protocols.opcua.names import (
    Unnamed,
    argument_forms,
    dimensions_of,
    forms_of,
    is_of,
    method,
    value_weight,
    weight,
    within,
)
from cofferdam.protocols.opcua.security import BY_URI, NONE, SIGN_AND_ENCRYPT, Policy, SecurityError, leaf_of

LIFETIME_MS = 600_000
SESSION_MS = 120_000.0
VALUE = 13
MORE_DATA = 0x00A60000
BAD_NODE, BAD_UNEXPECTED, BAD_LIMITS, BAD_DENIED = 0x80340000, 0x80010000, 0x80080000, 0x801F0000
NAMESPACES, URI = 1000, 1024
"""Of a server; characters of one."""
RECORD_BYTES = 900_000
"""Of samples in one answer: a record has a limit (limits.record_bytes)."""
AT_ONCE = 100
"""Nodes in one Browse of ours, items in one CreateMonitoredItems."""
NO_QUALIFIED = QualifiedName(0, None)
EMPTY_HEADER = s.ResponseHeader(0, 0, BAD_UNEXPECTED, 0, [], wire.NO_EXTENSION)
SECTION = "OPC 10000-4, 5"

Asking = Generator[Any, Any, Any]


class Misfit(Exception):
    """An answer that does not fit its question."""


def single(question: Any) -> Asking:
    """One question, whatever comes of it."""
    yield question


def _refused(answer: Any, kind: type[Any], what: str) -> None:
    if not isinstance(answer, kind) or answer.header.result & 0x80000000:
        raise RemoteProtocolError(
            f"{what} was answered with 0x{answer.header.result:08X} ({type(answer).__name__})", section=SECTION
        )


# --- handshake ------------------------------------------------------------------------------------------------------


def handshake(client: Any) -> Asking:
    """From ACK to an activated session whose namespaces are known. Raises: RemoteProtocolError."""
    channel, facing = client.channel, client.facing
    trust = facing.common
    seen = b""
    if client.policy is not NONE:
        if channel.own is None:
            raise RemoteProtocolError(
                "this side has no key to speak with: `cofferdam pki new` makes one", section=SECTION
            )
        seen = _pinned(client, trust)
    if client.policy is NONE or not seen:
        channel.policy, channel.mode = NONE, 1
    else:
        channel.policy, channel.mode = client.policy, client.mode
        channel.peer, channel.peer_key = seen, client._judge(seen, client.policy)
        # If nothing comes of it the server may have another certificate by now: it is asked for it next time.
        trust.doubts.add(client.asset.name)
    yield from _open(client, 0)
    if seen:
        trust.doubts.discard(client.asset.name)
        trust.strangers.discard(client.asset.name)
    if client.policy is not NONE and not seen:
        yield from _discover(client, trust)
    uri = trust.uri or "urn:cofferdam:opcua"
    nonce = facing.random(32)
    own, sent = (b"", b"") if channel.own is None else (channel.own.certificate, channel.own.sent)
    description = s.ApplicationDescription(uri, "urn:cofferdam", LocalizedText(None, "Cofferdam"), 1, None, None, [])
    answer = yield s.CreateSessionRequest(
        client.header(), description, None, client.url, "Cofferdam", nonce, sent or None, SESSION_MS, 0
    )
    _refused(answer, s.CreateSessionResponse, "CreateSession")
    if channel.policy is not NONE:
        if leaf_of(answer.certificate or b"") != leaf_of(channel.peer):
            raise RemoteProtocolError("CreateSession shows another certificate than the channel", section=SECTION)
        try:
            channel.policy.verify(channel.peer_key, answer.signature.signature or b"", own + nonce)
        except SecurityError:
            raise RemoteProtocolError("CreateSession is not signed by the server", section=SECTION) from None
    client.token = answer.token
    server_nonce = answer.nonce or b""
    signature = s.SignatureData(None, None)
    if channel.policy is not NONE:
        signed = channel.policy.sign(channel.own.key, leaf_of(channel.peer) + server_nonce)
        signature = s.SignatureData(channel.policy.signature_uri, signed)
    identity, proof = _identity(client, answer, server_nonce)
    answer = yield s.ActivateSessionRequest(client.header(), signature, [], [], identity, proof)
    _refused(answer, s.ActivateSessionResponse, "ActivateSession")
    answer = yield _read_server(client)
    client.is_up(_namespaces(answer))
    return None


def _open(client: Any, kind: int) -> Asking:
    channel = client.channel
    nonce = client.facing.random(channel.policy.nonce) if channel.policy.nonce else b""
    answer = yield s.OpenChannelRequest(client.header(), 0, kind, channel.mode, nonce or None, LIFETIME_MS)
    _refused(answer, s.OpenChannelResponse, "OPN")
    if kind == 0:
        channel.id = answer.channel
    elif answer.channel != channel.id:
        raise RemoteProtocolError("a renewal gave another channel", section=SECTION)
    remote = answer.nonce or b""
    if len(remote) < channel.policy.nonce or (nonce and remote == nonce):
        raise RemoteProtocolError("the server's nonce is too short, or ours", section=SECTION)
    if not answer.lifetime >= 1000:
        raise RemoteProtocolError(f"a token with a life of {answer.lifetime} ms", section=SECTION)
    channel.opened_token(answer.token, min(answer.lifetime, 3_600_000) * 1_000_000, nonce, remote)


def renew(client: Any) -> Asking:
    """A new token for the channel."""
    yield from _open(client, 1)
    client.renewed()


def keep_alive(client: Any) -> Asking:
    """Whether the server lives, and its namespaces are as they were."""
    answer = yield _read_server(client)
    if _namespaces(answer) != client.namespaces.uris:
        client.fail(RemoteProtocolError("the server has numbered its namespaces anew", section="OPC 10000-5, 6.3.1"))
    client.is_alive()


def _read_server(client: Any) -> s.ReadRequest:
    nodes = [s.ReadValueId(NodeId(0, 2255), VALUE, None, NO_QUALIFIED)]
    return s.ReadRequest(client.header(), 0.0, 3, nodes)


def _namespaces(answer: Any) -> tuple[str, ...]:
    _refused(answer, s.ReadResponse, "Read of the namespaces")
    variant = answer.results[0].value if len(answer.results) == 1 else None
    if variant is None or variant.type != 12 or not variant.array or not variant.value:
        raise RemoteProtocolError("the server does not tell its namespaces", section="OPC 10000-5, 6.3.1")
    if len(variant.value) > NAMESPACES or any(len(one or "") > URI for one in variant.value):
        raise RemoteProtocolError(f"more than {NAMESPACES} namespaces, or one of more than {URI} characters",
                                  section="OPC 10000-5, 6.3.1")  # fmt: skip
    return tuple([one or "" for one in variant.value])


def _pinned(client: Any, trust: Any) -> bytes:
    """The server's certificate, where it is known beforehand; b"" where it has to be asked for."""
    if client.asset.name in trust.doubts:
        return b""
    security = client.asset.security
    found: bytes = trust.server_certificate(client.asset.name, security.server if security is not None else "")
    return found


def _discover(client: Any, trust: Any) -> Asking:
    """Asks the server for its certificate, which is judged; then the connection is made anew, secured."""
    answer = yield s.GetEndpointsRequest(client.header(), client.url, [], [])
    _refused(answer, s.GetEndpointsResponse, "GetEndpoints")
    for endpoint in answer.endpoints:
        if endpoint.policy == client.policy.uri and endpoint.mode == client.mode and endpoint.certificate:
            trust.strangers.add(client.asset.name)
            client._judge(endpoint.certificate, client.policy)
            trust.learn_server(client.asset.name, endpoint.certificate)
            trust.doubts.discard(client.asset.name)
            trust.strangers.discard(client.asset.name)
            raise ConnectAnew("the server's certificate is known now: connecting anew", section=SECTION)
    raise RemoteProtocolError(f"the server offers no {client.policy.name} in this mode", section="OPC 10000-4, 5.5.4")


_UNSIGNED = s.SignatureData(None, None)
_KINDS = ("an anonymous identity", "a user name", "a user's certificate")


def _identity(client: Any, answer: Any, nonce: bytes) -> tuple[Any, s.SignatureData]:
    """The broker's own identity at the asset, and the signature that goes with it. Raises: RemoteProtocolError."""
    security = client.asset.security
    user = security.user if security is not None else ""
    kind = 2 if security is not None and security.login == "certificate" else 1 if user else 0
    tokens = [
        token
        for endpoint in answer.endpoints
        if endpoint.policy == client.channel.policy.uri and endpoint.mode == client.channel.mode
        for token in endpoint.tokens
        if token.kind == kind
    ] or [token for endpoint in answer.endpoints for token in endpoint.tokens if token.kind == kind]
    if not tokens:
        raise RemoteProtocolError(f"the server does not take {_KINDS[kind]}", section="OPC 10000-4, 7.40")
    token = tokens[0]
    if not kind:
        return wire.pack(s.AnonymousToken(token.id)), _UNSIGNED
    policy = BY_URI.get(token.policy, NONE) if token.policy else client.channel.policy
    certificate = answer.certificate or b""
    if kind == 2:
        return _by_certificate(client, token, policy, certificate, nonce)
    password = client.facing.common.secret.passwords.get(client.asset.name, "").encode()
    if policy is NONE:
        if client.channel.policy is NONE or client.channel.mode != SIGN_AND_ENCRYPT:  # signed alone, all can read it
            raise RemoteProtocolError("the server wants a password in the clear", section="OPC 10000-4, 7.40.4")
        return wire.pack(s.UserNameToken(token.id, user, password, None)), _UNSIGNED
    key = client._judge(certificate, policy)
    data = (len(password) + len(nonce)).to_bytes(4, "little") + password + nonce
    return wire.pack(s.UserNameToken(token.id, user, policy.seal(key, data), policy.encryption_uri)), _UNSIGNED


def _by_certificate(
    client: Any, token: s.UserTokenPolicy, policy: Policy, certificate: bytes, nonce: bytes
) -> tuple[Any, s.SignatureData]:
    """Signed for this server and this session (OPC 10000-4, 7.40.5)."""
    own = client.facing.common.identity(client.asset.name)
    if own is None:
        raise RemoteProtocolError(
            f"there is no certificate to log in by: `cofferdam pki identity {client.asset.name}` makes one",
            section="OPC 10000-4, 7.40.5",
        )
    if policy is NONE:
        raise RemoteProtocolError("the server names no policy to sign by", section="OPC 10000-4, 7.40.5")
    client._judge(certificate, policy)  # nobody else gets a signature
    signed = policy.sign(own.key, leaf_of(certificate) + nonce)
    made = s.SignatureData(policy.signature_uri, signed)
    return wire.pack(s.CertificateToken(token.id, own.certificate)), made


# --- requests -------------------------------------------------------------------------------------------------------


def ask(client: Any, token: int, request: m.OpcUaRequest) -> Asking:
    """The questions of one request, and its answer."""
    try:
        if isinstance(request, m.Read):
            return (yield from _read(client, request))
        if isinstance(request, m.Write):
            return (yield from _write(client, request))
        if isinstance(request, m.CallMethod):
            return (yield from _call(client, (request,)))
        if isinstance(request, m.CallMethods):
            return (yield from _call(client, request.calls))
        if isinstance(request, m.History):
            return (yield from _history(client, request))
        return (yield from client.watches.make(token, request))
    except Unnamed:
        return m.Refused(BAD_NODE)


def said(answer: Any, kind: type) -> m.Refused | None:
    if type(answer) is s.ServiceFault or answer.header.result & 0x80000000:
        status = answer.header.result
        return m.Refused(status if status & 0x80000000 else BAD_UNEXPECTED)  # a refusal says that it is one
    if not isinstance(answer, kind):
        raise Misfit(f"a {type(answer).__name__} where a {kind.__name__} is due")
    return None


def fits(answer: Any, kind: type, count: int) -> m.Refused | None:
    """What an answer was refused with; nothing where it has as many results as there were questions. Raises: Misfit."""
    refused = said(answer, kind)
    if refused is None and len(answer.results) != count:
        raise Misfit(f"{len(answer.results)} results for {count} questions")
    return refused


def index_range(item: Item) -> str | None:
    """The standard's text for some elements (OPC 10000-4, 7.27)."""
    if item.first < 0:
        return None
    return str(item.first) if item.count == 1 else f"{item.first}:{item.stop - 1}"


def _read(client: Any, request: m.Read) -> Asking:
    """A read that is new on this connection (OpcUaClient.send has those that were asked before)."""
    unknown: list[int] = []
    nodes = []
    for number, item in enumerate(request.items):
        try:
            node = client.namespaces.node(item.name)
        except Unnamed:
            unknown.append(number)
            continue
        nodes.append(s.ReadValueId(node, VALUE, index_range(item), NO_QUALIFIED))
    if not nodes:
        return m.Values((m.Sample(None, BAD_NODE),) * len(request.items))
    question = s.ReadRequest(client.header(), 0.0, 2, nodes)
    # The server's namespaces, by which nodes are named, are one array as long as this connection.
    if not unknown and all(item.first < 0 and item.name not in client.structures for item in request.items):
        client.said.put(request, question)
    return values_of(client, request, unknown, (yield question))


def values_of(client: Any, request: m.Read, unknown: list[int], answer: Any) -> m.Values | m.Refused:
    """What a server has answered to a read, but for nodes without a name (`unknown`). Raises: Misfit."""
    asked = [item for place, item in enumerate(request.items) if place not in unknown]
    refused = fits(answer, s.ReadResponse, len(asked))
    if refused is not None:
        return refused
    structure, sample = client.structures.get, client.namespaces.sample
    samples = [within(item, sample(one, structure(item.name)))
               for item, one in zip(asked, answer.results, strict=True)]  # fmt: skip
    for number in unknown:
        samples.insert(number, m.Sample(None, BAD_NODE))
    if sum(map(weight, samples)) > RECORD_BYTES:
        return m.Refused(BAD_LIMITS)
    return m.Values(tuple(samples))


def _write(client: Any, request: m.Write) -> Asking:
    names = client.namespaces
    nodes = []
    forms, sizes = forms_of(client.asset), dimensions_of(client.asset)
    for place, write in enumerate(request.writes):
        item = write.item
        if item.name in forms:
            variant = names.formed(write.value, forms[item.name])
        else:
            variant = _localized(write.value) if place in request.localized else names.variant(write.value)
        if item.first < 0 and item.name in sizes:
            variant = _matrix(variant, sizes[item.name])
        nodes.append(s.WriteValue(names.node(item.name), VALUE, index_range(item), Data(variant)))
    answer = yield s.WriteRequest(client.header(), nodes)
    refused = fits(answer, s.WriteResponse, len(nodes))
    if refused is not None:
        return refused
    return m.Written(tuple(answer.results))


def _matrix(variant: Variant, sizes: tuple[int, ...]) -> Variant:
    """An array as the matrix that the policy's point is. Raises: Unnamed for one of other sizes."""
    if not variant.array or math.prod(sizes) != len(variant.value):
        raise Unnamed(f"no matrix of {sizes}")
    return Variant(variant.type, variant.value, True, sizes)


def _localized(texts: Any) -> Variant:
    made = [LocalizedText(None, str(text)) for text in texts.values]
    return Variant(21, made, True) if texts.array else Variant(21, made[0])


def _call(client: Any, calls: Sequence[m.CallMethod]) -> Asking:
    names = client.namespaces
    asked = []
    for one in calls:
        if one.item.kind == KIND:
            told = told_of(one)
            status = BAD_NODE if told is None else client.watches.conditions.fault(told[0], told[2], told[3])
            if told is None or status:
                return m.Refused(status)  # none of them is called
            if is_named_itself(client.asset, told[2], told[1]):
                return m.Refused(BAD_DENIED)  # which no outer half asks for so that keeps to its work
            event, comment = Variant(15, told[3]), Variant(21, LocalizedText(None, told[4] or None))
            asked.append(s.MethodToCall(names.node(told[2]), NodeId(0, TELLS[told[1]]), [event, comment]))
            continue
        owner, own = method(one.item)
        arguments = [names.variant(value) for value in one.arguments]
        for place in one.localized:
            arguments[place] = _localized(one.arguments[place])
        for place, form in enumerate(argument_forms(client.asset, one.item, len(arguments))):
            if form:
                arguments[place] = names.formed(one.arguments[place], form)
        asked.append(s.MethodToCall(names.node(owner), names.node(own), arguments))
    answer = yield s.CallRequest(client.header(), asked)
    refused = fits(answer, s.CallResponse, len(calls))
    if refused is not None:
        return refused
    found = [_outputs(client, one.item, result) for one, result in zip(calls, answer.results, strict=True)]
    if sum([sum(map(value_weight, one.outputs)) for one in found]) > RECORD_BYTES:
        found = [m.Outputs(one.status, one.inputs, (None,) * len(one.outputs)) for one in found]
    return found[0] if len(calls) == 1 else m.Results(tuple(found))


def _outputs(client: Any, item: Item, result: s.MethodResult) -> m.Outputs:
    """What a method gives back; where policy says what that is, nothing else."""
    if len(result.outputs) > 64 or len(result.inputs) > 64:
        raise Misfit("more than 64 arguments in an answer")
    outputs: list[Any] = []
    for one in result.outputs:
        try:
            outputs.append(client.namespaces.crossing(one))
        except Unnamed:
            outputs.append(None)
    asset = client.asset
    said_of = next((one.returns for one in asset.methods if one.at == item), ()) if asset is not None else ()
    if said_of and outputs:
        outputs = [
            value if is_of(value, one.type, one.form) and value.array == (one.elements > 1) else None
            for value, one in zip(outputs, said_of, strict=False)
        ]
    return m.Outputs(result.status, tuple(result.inputs), tuple(outputs))


def _history(client: Any, request: m.History) -> Asking:
    names = client.namespaces
    details = wire.pack(s.RawDetails(False, request.start, request.end, request.most, request.bounds))
    node = s.HistoryNode(names.node(request.item.name), None, NO_QUALIFIED, None)
    answer = yield s.HistoryReadRequest(client.header(), details, 2, False, [node])
    refused = said(answer, s.HistoryReadResponse)
    if refused is not None:
        return refused
    if len(answer.results) != 1:
        raise Misfit(f"{len(answer.results)} results for one node")
    result = answer.results[0]
    if result.status & 0x80000000:
        return m.Refused(result.status)
    if result.point:
        again = s.HistoryNode(node.node, None, NO_QUALIFIED, result.point)
        client.tell(s.HistoryReadRequest(client.header(), details, 2, True, [again]))
    try:
        data = wire.unpack(result.data)
    except Malformed as error:
        raise Misfit(str(error)) from None
    if data is None:
        return m.Samples(())
    if not isinstance(data, s.HistoryData) or len(data.values) > request.most + 2:
        raise Misfit("no history of as many values as were asked for")
    more = bool(result.point) or result.status == MORE_DATA
    samples = [names.sample(one, client.structures.get(request.item.name)) for one in data.values[: m.HISTORY_VALUES]]
    size = 0
    for count, sample in enumerate(samples):
        size += weight(sample)
        if size > RECORD_BYTES:  # as many as one record holds
            return m.Samples(tuple(samples[:count]), True) if count else m.Refused(BAD_LIMITS)
    return m.Samples(tuple(samples), more)
