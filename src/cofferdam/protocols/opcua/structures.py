"""Structures of OPC UA. Made by tools/opcua_codec.py from tools/opcua.txt: change those."""

from __future__ import annotations

import msgspec

from cofferdam.protocols.opcua.builtin_types import Data, Extension, LocalizedText, NodeId, QualifiedName, Variant


class RequestHeader(msgspec.Struct, frozen=True, gc=False):
    token: NodeId
    timestamp: int
    handle: int
    diagnostics: int
    audit: str | None
    timeout: int
    additional: Extension


class ResponseHeader(msgspec.Struct, frozen=True, gc=False):
    timestamp: int
    handle: int
    result: int
    service: int
    strings: list[str | None]
    additional: Extension


class ServiceFault(msgspec.Struct, frozen=True, gc=False):
    header: ResponseHeader


class OpenChannelRequest(msgspec.Struct, frozen=True, gc=False):
    header: RequestHeader
    version: int
    kind: int
    mode: int
    nonce: bytes | None
    lifetime: int


class OpenChannelResponse(msgspec.Struct, frozen=True, gc=False):
    header: ResponseHeader
    version: int
    channel: int
    token: int
    created: int
    lifetime: int
    nonce: bytes | None


class CloseChannelRequest(msgspec.Struct, frozen=True, gc=False):
    header: RequestHeader


class ApplicationDescription(msgspec.Struct, frozen=True, gc=False):
    uri: str | None
    product: str | None
    name: LocalizedText
    kind: int
    gateway: str | None
    profile: str | None
    urls: list[str | None]


class UserTokenPolicy(msgspec.Struct, frozen=True, gc=False):
    id: str | None
    kind: int
    issued: str | None
    issuer: str | None
    policy: str | None


class EndpointDescription(msgspec.Struct, frozen=True, gc=False):
    url: str | None
    server: ApplicationDescription
    certificate: bytes | None
    mode: int
    policy: str | None
    tokens: list[UserTokenPolicy]
    transport: str | None
    level: int


class FindServersRequest(msgspec.Struct, frozen=True, gc=False):
    header: RequestHeader
    url: str | None
    locales: list[str | None]
    uris: list[str | None]


class FindServersResponse(msgspec.Struct, frozen=True, gc=False):
    header: ResponseHeader
    servers: list[ApplicationDescription]


class GetEndpointsRequest(msgspec.Struct, frozen=True, gc=False):
    header: RequestHeader
    url: str | None
    locales: list[str | None]
    profiles: list[str | None]


class GetEndpointsResponse(msgspec.Struct, frozen=True, gc=False):
    header: ResponseHeader
    endpoints: list[EndpointDescription]


class SignatureData(msgspec.Struct, frozen=True, gc=False):
    algorithm: str | None
    signature: bytes | None


class SoftwareCertificate(msgspec.Struct, frozen=True, gc=False):
    data: bytes | None
    signature: bytes | None


class CreateSessionRequest(msgspec.Struct, frozen=True, gc=False):
    header: RequestHeader
    client: ApplicationDescription
    server: str | None
    url: str | None
    name: str | None
    nonce: bytes | None
    certificate: bytes | None
    timeout: float
    most: int


class CreateSessionResponse(msgspec.Struct, frozen=True, gc=False):
    header: ResponseHeader
    session: NodeId
    token: NodeId
    timeout: float
    nonce: bytes | None
    certificate: bytes | None
    endpoints: list[EndpointDescription]
    software: list[SoftwareCertificate]
    signature: SignatureData
    most: int


class ActivateSessionRequest(msgspec.Struct, frozen=True, gc=False):
    header: RequestHeader
    signature: SignatureData
    software: list[SoftwareCertificate]
    locales: list[str | None]
    identity: Extension
    identity_signature: SignatureData


class ActivateSessionResponse(msgspec.Struct, frozen=True, gc=False):
    header: ResponseHeader
    nonce: bytes | None
    results: list[int]
    diagnostics: list[int]


class CloseSessionRequest(msgspec.Struct, frozen=True, gc=False):
    header: RequestHeader
    delete: bool


class CloseSessionResponse(msgspec.Struct, frozen=True, gc=False):
    header: ResponseHeader


class CancelRequest(msgspec.Struct, frozen=True, gc=False):
    header: RequestHeader
    request: int


class CancelResponse(msgspec.Struct, frozen=True, gc=False):
    header: ResponseHeader
    count: int


class AnonymousToken(msgspec.Struct, frozen=True, gc=False):
    id: str | None


class UserNameToken(msgspec.Struct, frozen=True, gc=False):
    id: str | None
    user: str | None
    password: bytes | None
    algorithm: str | None


class CertificateToken(msgspec.Struct, frozen=True, gc=False):
    id: str | None
    certificate: bytes | None


class ReadValueId(msgspec.Struct, frozen=True, gc=False):
    node: NodeId
    attribute: int
    range: str | None
    encoding: QualifiedName


class ReadRequest(msgspec.Struct, frozen=True, gc=False):
    header: RequestHeader
    age: float
    stamps: int
    nodes: list[ReadValueId]


class ReadResponse(msgspec.Struct, frozen=True, gc=False):
    header: ResponseHeader
    results: list[Data]
    diagnostics: list[int]


class WriteValue(msgspec.Struct, frozen=True, gc=False):
    node: NodeId
    attribute: int
    range: str | None
    value: Data


class WriteRequest(msgspec.Struct, frozen=True, gc=False):
    header: RequestHeader
    nodes: list[WriteValue]


class WriteResponse(msgspec.Struct, frozen=True, gc=False):
    header: ResponseHeader
    results: list[int]
    diagnostics: list[int]


class MethodToCall(msgspec.Struct, frozen=True, gc=False):
    object: NodeId
    method: NodeId
    arguments: list[Variant]


class MethodResult(msgspec.Struct, frozen=True, gc=False):
    status: int
    inputs: list[int]
    diagnostics: list[int]
    outputs: list[Variant]


class CallRequest(msgspec.Struct, frozen=True, gc=False):
    header: RequestHeader
    methods: list[MethodToCall]


class CallResponse(msgspec.Struct, frozen=True, gc=False):
    header: ResponseHeader
    results: list[MethodResult]
    diagnostics: list[int]


class ViewDescription(msgspec.Struct, frozen=True, gc=False):
    view: NodeId
    timestamp: int
    version: int


class BrowseDescription(msgspec.Struct, frozen=True, gc=False):
    node: NodeId
    direction: int
    reference: NodeId
    subtypes: bool
    classes: int
    mask: int


class ReferenceDescription(msgspec.Struct, frozen=True, gc=False):
    reference: NodeId
    forward: bool
    node: NodeId
    name: QualifiedName
    display: LocalizedText
    klass: int
    type: NodeId


class BrowseResult(msgspec.Struct, frozen=True, gc=False):
    status: int
    point: bytes | None
    references: list[ReferenceDescription]


class BrowseRequest(msgspec.Struct, frozen=True, gc=False):
    header: RequestHeader
    view: ViewDescription
    most: int
    nodes: list[BrowseDescription]


class BrowseResponse(msgspec.Struct, frozen=True, gc=False):
    header: ResponseHeader
    results: list[BrowseResult]
    diagnostics: list[int]


class BrowseNextRequest(msgspec.Struct, frozen=True, gc=False):
    header: RequestHeader
    release: bool
    points: list[bytes | None]


class BrowseNextResponse(msgspec.Struct, frozen=True, gc=False):
    header: ResponseHeader
    results: list[BrowseResult]
    diagnostics: list[int]


class PathElement(msgspec.Struct, frozen=True, gc=False):
    reference: NodeId
    inverse: bool
    subtypes: bool
    name: QualifiedName


class BrowsePath(msgspec.Struct, frozen=True, gc=False):
    start: NodeId
    elements: list[PathElement]


class PathTarget(msgspec.Struct, frozen=True, gc=False):
    target: NodeId
    remaining: int


class PathResult(msgspec.Struct, frozen=True, gc=False):
    status: int
    targets: list[PathTarget]


class TranslateRequest(msgspec.Struct, frozen=True, gc=False):
    header: RequestHeader
    paths: list[BrowsePath]


class TranslateResponse(msgspec.Struct, frozen=True, gc=False):
    header: ResponseHeader
    results: list[PathResult]
    diagnostics: list[int]


class RegisterNodesRequest(msgspec.Struct, frozen=True, gc=False):
    header: RequestHeader
    nodes: list[NodeId]


class RegisterNodesResponse(msgspec.Struct, frozen=True, gc=False):
    header: ResponseHeader
    nodes: list[NodeId]


class UnregisterNodesRequest(msgspec.Struct, frozen=True, gc=False):
    header: RequestHeader
    nodes: list[NodeId]


class UnregisterNodesResponse(msgspec.Struct, frozen=True, gc=False):
    header: ResponseHeader


class HistoryNode(msgspec.Struct, frozen=True, gc=False):
    node: NodeId
    range: str | None
    encoding: QualifiedName
    point: bytes | None


class HistoryReadRequest(msgspec.Struct, frozen=True, gc=False):
    header: RequestHeader
    details: Extension
    stamps: int
    release: bool
    nodes: list[HistoryNode]


class HistoryResult(msgspec.Struct, frozen=True, gc=False):
    status: int
    point: bytes | None
    data: Extension


class HistoryReadResponse(msgspec.Struct, frozen=True, gc=False):
    header: ResponseHeader
    results: list[HistoryResult]
    diagnostics: list[int]


class RawDetails(msgspec.Struct, frozen=True, gc=False):
    modified: bool
    start: int
    end: int
    most: int
    bounds: bool


class HistoryData(msgspec.Struct, frozen=True, gc=False):
    values: list[Data]


class MonitoringParameters(msgspec.Struct, frozen=True, gc=False):
    handle: int
    interval: float
    filter: Extension
    queue: int
    discard: bool


class ItemToCreate(msgspec.Struct, frozen=True, gc=False):
    item: ReadValueId
    mode: int
    parameters: MonitoringParameters


class ItemCreated(msgspec.Struct, frozen=True, gc=False):
    status: int
    id: int
    interval: float
    queue: int
    filter: Extension


class CreateItemsRequest(msgspec.Struct, frozen=True, gc=False):
    header: RequestHeader
    subscription: int
    stamps: int
    items: list[ItemToCreate]


class CreateItemsResponse(msgspec.Struct, frozen=True, gc=False):
    header: ResponseHeader
    results: list[ItemCreated]
    diagnostics: list[int]


class ItemToModify(msgspec.Struct, frozen=True, gc=False):
    id: int
    parameters: MonitoringParameters


class ItemModified(msgspec.Struct, frozen=True, gc=False):
    status: int
    interval: float
    queue: int
    filter: Extension


class ModifyItemsRequest(msgspec.Struct, frozen=True, gc=False):
    header: RequestHeader
    subscription: int
    stamps: int
    items: list[ItemToModify]


class ModifyItemsResponse(msgspec.Struct, frozen=True, gc=False):
    header: ResponseHeader
    results: list[ItemModified]
    diagnostics: list[int]


class SetMonitoringModeRequest(msgspec.Struct, frozen=True, gc=False):
    header: RequestHeader
    subscription: int
    mode: int
    items: list[int]


class SetMonitoringModeResponse(msgspec.Struct, frozen=True, gc=False):
    header: ResponseHeader
    results: list[int]
    diagnostics: list[int]


class DeleteItemsRequest(msgspec.Struct, frozen=True, gc=False):
    header: RequestHeader
    subscription: int
    items: list[int]


class DeleteItemsResponse(msgspec.Struct, frozen=True, gc=False):
    header: ResponseHeader
    results: list[int]
    diagnostics: list[int]


class CreateSubscriptionRequest(msgspec.Struct, frozen=True, gc=False):
    header: RequestHeader
    interval: float
    lifetime: int
    keepalive: int
    most: int
    enabled: bool
    priority: int


class CreateSubscriptionResponse(msgspec.Struct, frozen=True, gc=False):
    header: ResponseHeader
    subscription: int
    interval: float
    lifetime: int
    keepalive: int


class ModifySubscriptionRequest(msgspec.Struct, frozen=True, gc=False):
    header: RequestHeader
    subscription: int
    interval: float
    lifetime: int
    keepalive: int
    most: int
    priority: int


class ModifySubscriptionResponse(msgspec.Struct, frozen=True, gc=False):
    header: ResponseHeader
    interval: float
    lifetime: int
    keepalive: int


class SetPublishingModeRequest(msgspec.Struct, frozen=True, gc=False):
    header: RequestHeader
    enabled: bool
    subscriptions: list[int]


class SetPublishingModeResponse(msgspec.Struct, frozen=True, gc=False):
    header: ResponseHeader
    results: list[int]
    diagnostics: list[int]


class NotificationMessage(msgspec.Struct, frozen=True, gc=False):
    sequence: int
    time: int
    data: list[Extension]


class Acknowledgement(msgspec.Struct, frozen=True, gc=False):
    subscription: int
    sequence: int


class PublishRequest(msgspec.Struct, frozen=True, gc=False):
    header: RequestHeader
    acknowledged: list[Acknowledgement]


class PublishResponse(msgspec.Struct, frozen=True, gc=False):
    header: ResponseHeader
    subscription: int
    available: list[int]
    more: bool
    message: NotificationMessage
    results: list[int]
    diagnostics: list[int]


class RepublishRequest(msgspec.Struct, frozen=True, gc=False):
    header: RequestHeader
    subscription: int
    sequence: int


class RepublishResponse(msgspec.Struct, frozen=True, gc=False):
    header: ResponseHeader
    message: NotificationMessage


class TransferResult(msgspec.Struct, frozen=True, gc=False):
    status: int
    available: list[int]


class TransferRequest(msgspec.Struct, frozen=True, gc=False):
    header: RequestHeader
    subscriptions: list[int]
    initial: bool


class TransferResponse(msgspec.Struct, frozen=True, gc=False):
    header: ResponseHeader
    results: list[TransferResult]
    diagnostics: list[int]


class DeleteSubscriptionsRequest(msgspec.Struct, frozen=True, gc=False):
    header: RequestHeader
    subscriptions: list[int]


class DeleteSubscriptionsResponse(msgspec.Struct, frozen=True, gc=False):
    header: ResponseHeader
    results: list[int]
    diagnostics: list[int]


class ItemNotification(msgspec.Struct, frozen=True, gc=False):
    handle: int
    value: Data


class DataChange(msgspec.Struct, frozen=True, gc=False):
    items: list[ItemNotification]
    diagnostics: list[int]


class StatusChange(msgspec.Struct, frozen=True, gc=False):
    status: int
    diagnostic: int


class EventFields(msgspec.Struct, frozen=True, gc=False):
    handle: int
    fields: list[Variant]


class EventList(msgspec.Struct, frozen=True, gc=False):
    events: list[EventFields]


class SimpleOperand(msgspec.Struct, frozen=True, gc=False):
    type: NodeId
    path: list[QualifiedName]
    attribute: int
    range: str | None


class LiteralOperand(msgspec.Struct, frozen=True, gc=False):
    value: Variant


class ElementOperand(msgspec.Struct, frozen=True, gc=False):
    index: int


class FilterElement(msgspec.Struct, frozen=True, gc=False):
    operator: int
    operands: list[Extension]


class EventFilter(msgspec.Struct, frozen=True, gc=False):
    select: list[SimpleOperand]
    where: list[FilterElement]


class FilterElementResult(msgspec.Struct, frozen=True, gc=False):
    status: int
    operands: list[int]
    diagnostics: list[int]


class EventFilterResult(msgspec.Struct, frozen=True, gc=False):
    clauses: list[int]
    diagnostics: list[int]
    where: list[FilterElementResult]
    more: list[int]


class DataChangeFilter(msgspec.Struct, frozen=True, gc=False):
    trigger: int
    deadband_type: int
    deadband: float


class BuildInfo(msgspec.Struct, frozen=True, gc=False):
    product: str | None
    maker: str | None
    name: str | None
    version: str | None
    number: str | None
    date: int


class ServerStatus(msgspec.Struct, frozen=True, gc=False):
    start: int
    now: int
    state: int
    build: BuildInfo
    seconds: int
    reason: LocalizedText


class Argument(msgspec.Struct, frozen=True, gc=False):
    name: str | None
    type: NodeId
    rank: int
    dimensions: list[int]
    description: LocalizedText
