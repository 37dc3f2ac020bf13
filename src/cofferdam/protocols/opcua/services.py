"""Readers and writers of OPC UA's structures. Made by tools/opcua_codec.py from tools/opcua.txt:
change those."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from cofferdam.protocols.opcua.builtin import Reader, Writer
from cofferdam.protocols.opcua.structures import (
    Acknowledgement,
    ActivateSessionRequest,
    ActivateSessionResponse,
    AnonymousToken,
    ApplicationDescription,
    Argument,
    BrowseDescription,
    BrowseNextRequest,
    BrowseNextResponse,
    BrowsePath,
    BrowseRequest,
    BrowseResponse,
    BrowseResult,
    BuildInfo,
    CallRequest,
    CallResponse,
    CancelRequest,
    CancelResponse,
    CertificateToken,
    CloseChannelRequest,
    CloseSessionRequest,
    CloseSessionResponse,
    CreateItemsRequest,
    CreateItemsResponse,
    CreateSessionRequest,
    CreateSessionResponse,
    CreateSubscriptionRequest,
    CreateSubscriptionResponse,
    DataChange,
    DataChangeFilter,
    DeleteItemsRequest,
    DeleteItemsResponse,
    DeleteSubscriptionsRequest,
    DeleteSubscriptionsResponse,
    ElementOperand,
    EndpointDescription,
    EventFields,
    EventFilter,
    EventFilterResult,
    EventList,
    FilterElement,
    FilterElementResult,
    FindServersRequest,
    FindServersResponse,
    GetEndpointsRequest,
    GetEndpointsResponse,
    HistoryData,
    HistoryNode,
    HistoryReadRequest,
    HistoryReadResponse,
    HistoryResult,
    ItemCreated,
    ItemModified,
    ItemNotification,
    ItemToCreate,
    ItemToModify,
    LiteralOperand,
    MethodResult,
    MethodToCall,
    ModifyItemsRequest,
    ModifyItemsResponse,
    ModifySubscriptionRequest,
    ModifySubscriptionResponse,
    MonitoringParameters,
    NotificationMessage,
    OpenChannelRequest,
    OpenChannelResponse,
    PathElement,
    PathResult,
    PathTarget,
    PublishRequest,
    PublishResponse,
    RawDetails,
    ReadRequest,
    ReadResponse,
    ReadValueId,
    ReferenceDescription,
    RegisterNodesRequest,
    RegisterNodesResponse,
    RepublishRequest,
    RepublishResponse,
    RequestHeader,
    ResponseHeader,
    ServerStatus,
    ServiceFault,
    SetMonitoringModeRequest,
    SetMonitoringModeResponse,
    SetPublishingModeRequest,
    SetPublishingModeResponse,
    SignatureData,
    SimpleOperand,
    SoftwareCertificate,
    StatusChange,
    TransferRequest,
    TransferResponse,
    TransferResult,
    TranslateRequest,
    TranslateResponse,
    UnregisterNodesRequest,
    UnregisterNodesResponse,
    UserNameToken,
    UserTokenPolicy,
    ViewDescription,
    WriteRequest,
    WriteResponse,
    WriteValue,
)

__all__ = [
    "Acknowledgement",
    "ActivateSessionRequest",
    "ActivateSessionResponse",
    "AnonymousToken",
    "ApplicationDescription",
    "Argument",
    "BrowseDescription",
    "BrowseNextRequest",
    "BrowseNextResponse",
    "BrowsePath",
    "BrowseRequest",
    "BrowseResponse",
    "BrowseResult",
    "BuildInfo",
    "CallRequest",
    "CallResponse",
    "CancelRequest",
    "CancelResponse",
    "CertificateToken",
    "CloseChannelRequest",
    "CloseSessionRequest",
    "CloseSessionResponse",
    "CreateItemsRequest",
    "CreateItemsResponse",
    "CreateSessionRequest",
    "CreateSessionResponse",
    "CreateSubscriptionRequest",
    "CreateSubscriptionResponse",
    "DataChange",
    "DataChangeFilter",
    "DeleteItemsRequest",
    "DeleteItemsResponse",
    "DeleteSubscriptionsRequest",
    "DeleteSubscriptionsResponse",
    "ElementOperand",
    "EndpointDescription",
    "EventFields",
    "EventFilter",
    "EventFilterResult",
    "EventList",
    "FilterElement",
    "FilterElementResult",
    "FindServersRequest",
    "FindServersResponse",
    "GetEndpointsRequest",
    "GetEndpointsResponse",
    "HistoryData",
    "HistoryNode",
    "HistoryReadRequest",
    "HistoryReadResponse",
    "HistoryResult",
    "ItemCreated",
    "ItemModified",
    "ItemNotification",
    "ItemToCreate",
    "ItemToModify",
    "LiteralOperand",
    "MethodResult",
    "MethodToCall",
    "ModifyItemsRequest",
    "ModifyItemsResponse",
    "ModifySubscriptionRequest",
    "ModifySubscriptionResponse",
    "MonitoringParameters",
    "NotificationMessage",
    "OpenChannelRequest",
    "OpenChannelResponse",
    "PathElement",
    "PathResult",
    "PathTarget",
    "PublishRequest",
    "PublishResponse",
    "RawDetails",
    "ReadRequest",
    "ReadResponse",
    "ReadValueId",
    "ReferenceDescription",
    "RegisterNodesRequest",
    "RegisterNodesResponse",
    "RepublishRequest",
    "RepublishResponse",
    "RequestHeader",
    "ResponseHeader",
    "ServerStatus",
    "ServiceFault",
    "SetMonitoringModeRequest",
    "SetMonitoringModeResponse",
    "SetPublishingModeRequest",
    "SetPublishingModeResponse",
    "SignatureData",
    "SimpleOperand",
    "SoftwareCertificate",
    "StatusChange",
    "TransferRequest",
    "TransferResponse",
    "TransferResult",
    "TranslateRequest",
    "TranslateResponse",
    "UnregisterNodesRequest",
    "UnregisterNodesResponse",
    "UserNameToken",
    "UserTokenPolicy",
    "ViewDescription",
    "WriteRequest",
    "WriteResponse",
    "WriteValue",
]

_oo = struct.Struct("<??")
_oII = struct.Struct("<?II")
_oqqIo = struct.Struct("<?qqI?")
_Io = struct.Struct("<I?")
_II = struct.Struct("<II")
_III = struct.Struct("<III")
_IIIqI = struct.Struct("<IIIqI")
_IId = struct.Struct("<IId")
_IIdI = struct.Struct("<IIdI")
_Id = struct.Struct("<Id")
_IdI = struct.Struct("<IdI")
_IdII = struct.Struct("<IdII")
_IdIIIB = struct.Struct("<IdIIIB")
_Iq = struct.Struct("<Iq")
_dI = struct.Struct("<dI")
_dII = struct.Struct("<dII")
_dIIIoB = struct.Struct("<dIII?B")
_qI = struct.Struct("<qI")
_qII = struct.Struct("<qII")
_qqI = struct.Struct("<qqI")


def read_RequestHeader(r: Reader) -> RequestHeader:
    r.spend()
    token_ = r.node()
    timestamp_, handle_, diagnostics_ = r.unpack(_qII)
    audit_ = r.string()
    timeout_ = r.u32()
    additional_ = r.extension()
    return RequestHeader(token_, timestamp_, handle_, diagnostics_, audit_, timeout_, additional_)


def write_RequestHeader(w: Writer, v: RequestHeader) -> None:
    w.node(v.token)
    w.raw(_qII.pack(v.timestamp, v.handle, v.diagnostics))
    w.string(v.audit)
    w.u32(v.timeout)
    w.extension(v.additional)


def read_ResponseHeader(r: Reader) -> ResponseHeader:
    r.spend()
    timestamp_, handle_, result_ = r.unpack(_qII)
    service_ = r.diagnostic()
    strings_ = [r.string() for _ in range(r.count(4))]
    additional_ = r.extension()
    return ResponseHeader(timestamp_, handle_, result_, service_, strings_, additional_)


def write_ResponseHeader(w: Writer, v: ResponseHeader) -> None:
    w.raw(_qII.pack(v.timestamp, v.handle, v.result))
    w.diagnostic(v.service)
    w.count(len(v.strings))
    for strings_one in v.strings:
        w.string(strings_one)
    w.extension(v.additional)


def read_ServiceFault(r: Reader) -> ServiceFault:
    r.spend()
    header_ = read_ResponseHeader(r)
    return ServiceFault(header_)


def write_ServiceFault(w: Writer, v: ServiceFault) -> None:
    write_ResponseHeader(w, v.header)


def read_OpenChannelRequest(r: Reader) -> OpenChannelRequest:
    r.spend()
    header_ = read_RequestHeader(r)
    version_, kind_, mode_ = r.unpack(_III)
    nonce_ = r.octets()
    lifetime_ = r.u32()
    return OpenChannelRequest(header_, version_, kind_, mode_, nonce_, lifetime_)


def write_OpenChannelRequest(w: Writer, v: OpenChannelRequest) -> None:
    write_RequestHeader(w, v.header)
    w.raw(_III.pack(v.version, v.kind, v.mode))
    w.octets(v.nonce)
    w.u32(v.lifetime)


def read_OpenChannelResponse(r: Reader) -> OpenChannelResponse:
    r.spend()
    header_ = read_ResponseHeader(r)
    version_, channel_, token_, created_, lifetime_ = r.unpack(_IIIqI)
    nonce_ = r.octets()
    return OpenChannelResponse(header_, version_, channel_, token_, created_, lifetime_, nonce_)


def write_OpenChannelResponse(w: Writer, v: OpenChannelResponse) -> None:
    write_ResponseHeader(w, v.header)
    w.raw(_IIIqI.pack(v.version, v.channel, v.token, v.created, v.lifetime))
    w.octets(v.nonce)


def read_CloseChannelRequest(r: Reader) -> CloseChannelRequest:
    r.spend()
    header_ = read_RequestHeader(r)
    return CloseChannelRequest(header_)


def write_CloseChannelRequest(w: Writer, v: CloseChannelRequest) -> None:
    write_RequestHeader(w, v.header)


def read_ApplicationDescription(r: Reader) -> ApplicationDescription:
    r.spend()
    uri_ = r.string()
    product_ = r.string()
    name_ = r.localized()
    kind_ = r.u32()
    gateway_ = r.string()
    profile_ = r.string()
    urls_ = [r.string() for _ in range(r.count(4))]
    return ApplicationDescription(uri_, product_, name_, kind_, gateway_, profile_, urls_)


def write_ApplicationDescription(w: Writer, v: ApplicationDescription) -> None:
    w.string(v.uri)
    w.string(v.product)
    w.localized(v.name)
    w.u32(v.kind)
    w.string(v.gateway)
    w.string(v.profile)
    w.count(len(v.urls))
    for urls_one in v.urls:
        w.string(urls_one)


def read_UserTokenPolicy(r: Reader) -> UserTokenPolicy:
    r.spend()
    id_ = r.string()
    kind_ = r.u32()
    issued_ = r.string()
    issuer_ = r.string()
    policy_ = r.string()
    return UserTokenPolicy(id_, kind_, issued_, issuer_, policy_)


def write_UserTokenPolicy(w: Writer, v: UserTokenPolicy) -> None:
    w.string(v.id)
    w.u32(v.kind)
    w.string(v.issued)
    w.string(v.issuer)
    w.string(v.policy)


def read_EndpointDescription(r: Reader) -> EndpointDescription:
    r.spend()
    url_ = r.string()
    server_ = read_ApplicationDescription(r)
    certificate_ = r.octets()
    mode_ = r.u32()
    policy_ = r.string()
    tokens_ = [read_UserTokenPolicy(r) for _ in range(r.count(20))]
    transport_ = r.string()
    level_ = r.byte()
    return EndpointDescription(url_, server_, certificate_, mode_, policy_, tokens_, transport_, level_)


def write_EndpointDescription(w: Writer, v: EndpointDescription) -> None:
    w.string(v.url)
    write_ApplicationDescription(w, v.server)
    w.octets(v.certificate)
    w.u32(v.mode)
    w.string(v.policy)
    w.count(len(v.tokens))
    for tokens_one in v.tokens:
        write_UserTokenPolicy(w, tokens_one)
    w.string(v.transport)
    w.byte(v.level)


def read_FindServersRequest(r: Reader) -> FindServersRequest:
    r.spend()
    header_ = read_RequestHeader(r)
    url_ = r.string()
    locales_ = [r.string() for _ in range(r.count(4))]
    uris_ = [r.string() for _ in range(r.count(4))]
    return FindServersRequest(header_, url_, locales_, uris_)


def write_FindServersRequest(w: Writer, v: FindServersRequest) -> None:
    write_RequestHeader(w, v.header)
    w.string(v.url)
    w.count(len(v.locales))
    for locales_one in v.locales:
        w.string(locales_one)
    w.count(len(v.uris))
    for uris_one in v.uris:
        w.string(uris_one)


def read_FindServersResponse(r: Reader) -> FindServersResponse:
    r.spend()
    header_ = read_ResponseHeader(r)
    servers_ = [read_ApplicationDescription(r) for _ in range(r.count(25))]
    return FindServersResponse(header_, servers_)


def write_FindServersResponse(w: Writer, v: FindServersResponse) -> None:
    write_ResponseHeader(w, v.header)
    w.count(len(v.servers))
    for servers_one in v.servers:
        write_ApplicationDescription(w, servers_one)


def read_GetEndpointsRequest(r: Reader) -> GetEndpointsRequest:
    r.spend()
    header_ = read_RequestHeader(r)
    url_ = r.string()
    locales_ = [r.string() for _ in range(r.count(4))]
    profiles_ = [r.string() for _ in range(r.count(4))]
    return GetEndpointsRequest(header_, url_, locales_, profiles_)


def write_GetEndpointsRequest(w: Writer, v: GetEndpointsRequest) -> None:
    write_RequestHeader(w, v.header)
    w.string(v.url)
    w.count(len(v.locales))
    for locales_one in v.locales:
        w.string(locales_one)
    w.count(len(v.profiles))
    for profiles_one in v.profiles:
        w.string(profiles_one)


def read_GetEndpointsResponse(r: Reader) -> GetEndpointsResponse:
    r.spend()
    header_ = read_ResponseHeader(r)
    endpoints_ = [read_EndpointDescription(r) for _ in range(r.count(50))]
    return GetEndpointsResponse(header_, endpoints_)


def write_GetEndpointsResponse(w: Writer, v: GetEndpointsResponse) -> None:
    write_ResponseHeader(w, v.header)
    w.count(len(v.endpoints))
    for endpoints_one in v.endpoints:
        write_EndpointDescription(w, endpoints_one)


def read_SignatureData(r: Reader) -> SignatureData:
    r.spend()
    algorithm_ = r.string()
    signature_ = r.octets()
    return SignatureData(algorithm_, signature_)


def write_SignatureData(w: Writer, v: SignatureData) -> None:
    w.string(v.algorithm)
    w.octets(v.signature)


def read_SoftwareCertificate(r: Reader) -> SoftwareCertificate:
    r.spend()
    data_ = r.octets()
    signature_ = r.octets()
    return SoftwareCertificate(data_, signature_)


def write_SoftwareCertificate(w: Writer, v: SoftwareCertificate) -> None:
    w.octets(v.data)
    w.octets(v.signature)


def read_CreateSessionRequest(r: Reader) -> CreateSessionRequest:
    r.spend()
    header_ = read_RequestHeader(r)
    client_ = read_ApplicationDescription(r)
    server_ = r.string()
    url_ = r.string()
    name_ = r.string()
    nonce_ = r.octets()
    certificate_ = r.octets()
    timeout_, most_ = r.unpack(_dI)
    return CreateSessionRequest(header_, client_, server_, url_, name_, nonce_, certificate_, timeout_, most_)


def write_CreateSessionRequest(w: Writer, v: CreateSessionRequest) -> None:
    write_RequestHeader(w, v.header)
    write_ApplicationDescription(w, v.client)
    w.string(v.server)
    w.string(v.url)
    w.string(v.name)
    w.octets(v.nonce)
    w.octets(v.certificate)
    w.raw(_dI.pack(v.timeout, v.most))


def read_CreateSessionResponse(r: Reader) -> CreateSessionResponse:
    r.spend()
    header_ = read_ResponseHeader(r)
    session_ = r.node()
    token_ = r.node()
    timeout_ = r.f64()
    nonce_ = r.octets()
    certificate_ = r.octets()
    endpoints_ = [read_EndpointDescription(r) for _ in range(r.count(50))]
    software_ = [read_SoftwareCertificate(r) for _ in range(r.count(8))]
    signature_ = read_SignatureData(r)
    most_ = r.u32()
    return CreateSessionResponse(
        header_, session_, token_, timeout_, nonce_, certificate_, endpoints_, software_, signature_, most_
    )


def write_CreateSessionResponse(w: Writer, v: CreateSessionResponse) -> None:
    write_ResponseHeader(w, v.header)
    w.node(v.session)
    w.node(v.token)
    w.f64(v.timeout)
    w.octets(v.nonce)
    w.octets(v.certificate)
    w.count(len(v.endpoints))
    for endpoints_one in v.endpoints:
        write_EndpointDescription(w, endpoints_one)
    w.count(len(v.software))
    for software_one in v.software:
        write_SoftwareCertificate(w, software_one)
    write_SignatureData(w, v.signature)
    w.u32(v.most)


def read_ActivateSessionRequest(r: Reader) -> ActivateSessionRequest:
    r.spend()
    header_ = read_RequestHeader(r)
    signature_ = read_SignatureData(r)
    software_ = [read_SoftwareCertificate(r) for _ in range(r.count(8))]
    locales_ = [r.string() for _ in range(r.count(4))]
    identity_ = r.extension()
    identity_signature_ = read_SignatureData(r)
    return ActivateSessionRequest(header_, signature_, software_, locales_, identity_, identity_signature_)


def write_ActivateSessionRequest(w: Writer, v: ActivateSessionRequest) -> None:
    write_RequestHeader(w, v.header)
    write_SignatureData(w, v.signature)
    w.count(len(v.software))
    for software_one in v.software:
        write_SoftwareCertificate(w, software_one)
    w.count(len(v.locales))
    for locales_one in v.locales:
        w.string(locales_one)
    w.extension(v.identity)
    write_SignatureData(w, v.identity_signature)


def read_ActivateSessionResponse(r: Reader) -> ActivateSessionResponse:
    r.spend()
    header_ = read_ResponseHeader(r)
    nonce_ = r.octets()
    results_ = [r.u32() for _ in range(r.count(4))]
    diagnostics_ = [r.diagnostic() for _ in range(r.count(1))]
    return ActivateSessionResponse(header_, nonce_, results_, diagnostics_)


def write_ActivateSessionResponse(w: Writer, v: ActivateSessionResponse) -> None:
    write_ResponseHeader(w, v.header)
    w.octets(v.nonce)
    w.count(len(v.results))
    for results_one in v.results:
        w.u32(results_one)
    w.count(len(v.diagnostics))
    for diagnostics_one in v.diagnostics:
        w.diagnostic(diagnostics_one)


def read_CloseSessionRequest(r: Reader) -> CloseSessionRequest:
    r.spend()
    header_ = read_RequestHeader(r)
    delete_ = r.boolean()
    return CloseSessionRequest(header_, delete_)


def write_CloseSessionRequest(w: Writer, v: CloseSessionRequest) -> None:
    write_RequestHeader(w, v.header)
    w.boolean(v.delete)


def read_CloseSessionResponse(r: Reader) -> CloseSessionResponse:
    r.spend()
    header_ = read_ResponseHeader(r)
    return CloseSessionResponse(header_)


def write_CloseSessionResponse(w: Writer, v: CloseSessionResponse) -> None:
    write_ResponseHeader(w, v.header)


def read_CancelRequest(r: Reader) -> CancelRequest:
    r.spend()
    header_ = read_RequestHeader(r)
    request_ = r.u32()
    return CancelRequest(header_, request_)


def write_CancelRequest(w: Writer, v: CancelRequest) -> None:
    write_RequestHeader(w, v.header)
    w.u32(v.request)


def read_CancelResponse(r: Reader) -> CancelResponse:
    r.spend()
    header_ = read_ResponseHeader(r)
    count_ = r.u32()
    return CancelResponse(header_, count_)


def write_CancelResponse(w: Writer, v: CancelResponse) -> None:
    write_ResponseHeader(w, v.header)
    w.u32(v.count)


def read_AnonymousToken(r: Reader) -> AnonymousToken:
    r.spend()
    id_ = r.string()
    return AnonymousToken(id_)


def write_AnonymousToken(w: Writer, v: AnonymousToken) -> None:
    w.string(v.id)


def read_UserNameToken(r: Reader) -> UserNameToken:
    r.spend()
    id_ = r.string()
    user_ = r.string()
    password_ = r.octets()
    algorithm_ = r.string()
    return UserNameToken(id_, user_, password_, algorithm_)


def write_UserNameToken(w: Writer, v: UserNameToken) -> None:
    w.string(v.id)
    w.string(v.user)
    w.octets(v.password)
    w.string(v.algorithm)


def read_CertificateToken(r: Reader) -> CertificateToken:
    r.spend()
    id_ = r.string()
    certificate_ = r.octets()
    return CertificateToken(id_, certificate_)


def write_CertificateToken(w: Writer, v: CertificateToken) -> None:
    w.string(v.id)
    w.octets(v.certificate)


def read_ReadValueId(r: Reader) -> ReadValueId:
    r.spend()
    node_ = r.node()
    attribute_ = r.u32()
    range_ = r.string()
    encoding_ = r.qualified()
    return ReadValueId(node_, attribute_, range_, encoding_)


def write_ReadValueId(w: Writer, v: ReadValueId) -> None:
    w.node(v.node)
    w.u32(v.attribute)
    w.string(v.range)
    w.qualified(v.encoding)


def read_ReadRequest(r: Reader) -> ReadRequest:
    r.spend()
    header_ = read_RequestHeader(r)
    age_, stamps_ = r.unpack(_dI)
    nodes_ = [read_ReadValueId(r) for _ in range(r.count(16))]
    return ReadRequest(header_, age_, stamps_, nodes_)


def write_ReadRequest(w: Writer, v: ReadRequest) -> None:
    write_RequestHeader(w, v.header)
    w.raw(_dI.pack(v.age, v.stamps))
    w.count(len(v.nodes))
    for nodes_one in v.nodes:
        write_ReadValueId(w, nodes_one)


def read_ReadResponse(r: Reader) -> ReadResponse:
    r.spend()
    header_ = read_ResponseHeader(r)
    results_ = [r.value() for _ in range(r.count(1))]
    diagnostics_ = [r.diagnostic() for _ in range(r.count(1))]
    return ReadResponse(header_, results_, diagnostics_)


def write_ReadResponse(w: Writer, v: ReadResponse) -> None:
    write_ResponseHeader(w, v.header)
    w.count(len(v.results))
    for results_one in v.results:
        w.value(results_one)
    w.count(len(v.diagnostics))
    for diagnostics_one in v.diagnostics:
        w.diagnostic(diagnostics_one)


def read_WriteValue(r: Reader) -> WriteValue:
    r.spend()
    node_ = r.node()
    attribute_ = r.u32()
    range_ = r.string()
    value_ = r.value()
    return WriteValue(node_, attribute_, range_, value_)


def write_WriteValue(w: Writer, v: WriteValue) -> None:
    w.node(v.node)
    w.u32(v.attribute)
    w.string(v.range)
    w.value(v.value)


def read_WriteRequest(r: Reader) -> WriteRequest:
    r.spend()
    header_ = read_RequestHeader(r)
    nodes_ = [read_WriteValue(r) for _ in range(r.count(11))]
    return WriteRequest(header_, nodes_)


def write_WriteRequest(w: Writer, v: WriteRequest) -> None:
    write_RequestHeader(w, v.header)
    w.count(len(v.nodes))
    for nodes_one in v.nodes:
        write_WriteValue(w, nodes_one)


def read_WriteResponse(r: Reader) -> WriteResponse:
    r.spend()
    header_ = read_ResponseHeader(r)
    results_ = [r.u32() for _ in range(r.count(4))]
    diagnostics_ = [r.diagnostic() for _ in range(r.count(1))]
    return WriteResponse(header_, results_, diagnostics_)


def write_WriteResponse(w: Writer, v: WriteResponse) -> None:
    write_ResponseHeader(w, v.header)
    w.count(len(v.results))
    for results_one in v.results:
        w.u32(results_one)
    w.count(len(v.diagnostics))
    for diagnostics_one in v.diagnostics:
        w.diagnostic(diagnostics_one)


def read_MethodToCall(r: Reader) -> MethodToCall:
    r.spend()
    object_ = r.node()
    method_ = r.node()
    arguments_ = [r.variant() for _ in range(r.count(1))]
    return MethodToCall(object_, method_, arguments_)


def write_MethodToCall(w: Writer, v: MethodToCall) -> None:
    w.node(v.object)
    w.node(v.method)
    w.count(len(v.arguments))
    for arguments_one in v.arguments:
        w.variant(arguments_one)


def read_MethodResult(r: Reader) -> MethodResult:
    r.spend()
    status_ = r.u32()
    inputs_ = [r.u32() for _ in range(r.count(4))]
    diagnostics_ = [r.diagnostic() for _ in range(r.count(1))]
    outputs_ = [r.variant() for _ in range(r.count(1))]
    return MethodResult(status_, inputs_, diagnostics_, outputs_)


def write_MethodResult(w: Writer, v: MethodResult) -> None:
    w.u32(v.status)
    w.count(len(v.inputs))
    for inputs_one in v.inputs:
        w.u32(inputs_one)
    w.count(len(v.diagnostics))
    for diagnostics_one in v.diagnostics:
        w.diagnostic(diagnostics_one)
    w.count(len(v.outputs))
    for outputs_one in v.outputs:
        w.variant(outputs_one)


def read_CallRequest(r: Reader) -> CallRequest:
    r.spend()
    header_ = read_RequestHeader(r)
    methods_ = [read_MethodToCall(r) for _ in range(r.count(8))]
    return CallRequest(header_, methods_)


def write_CallRequest(w: Writer, v: CallRequest) -> None:
    write_RequestHeader(w, v.header)
    w.count(len(v.methods))
    for methods_one in v.methods:
        write_MethodToCall(w, methods_one)


def read_CallResponse(r: Reader) -> CallResponse:
    r.spend()
    header_ = read_ResponseHeader(r)
    results_ = [read_MethodResult(r) for _ in range(r.count(16))]
    diagnostics_ = [r.diagnostic() for _ in range(r.count(1))]
    return CallResponse(header_, results_, diagnostics_)


def write_CallResponse(w: Writer, v: CallResponse) -> None:
    write_ResponseHeader(w, v.header)
    w.count(len(v.results))
    for results_one in v.results:
        write_MethodResult(w, results_one)
    w.count(len(v.diagnostics))
    for diagnostics_one in v.diagnostics:
        w.diagnostic(diagnostics_one)


def read_ViewDescription(r: Reader) -> ViewDescription:
    r.spend()
    view_ = r.node()
    timestamp_, version_ = r.unpack(_qI)
    return ViewDescription(view_, timestamp_, version_)


def write_ViewDescription(w: Writer, v: ViewDescription) -> None:
    w.node(v.view)
    w.raw(_qI.pack(v.timestamp, v.version))


def read_BrowseDescription(r: Reader) -> BrowseDescription:
    r.spend()
    node_ = r.node()
    direction_ = r.u32()
    reference_ = r.node()
    subtypes_, classes_, mask_ = r.unpack(_oII)
    return BrowseDescription(node_, direction_, reference_, subtypes_, classes_, mask_)


def write_BrowseDescription(w: Writer, v: BrowseDescription) -> None:
    w.node(v.node)
    w.u32(v.direction)
    w.node(v.reference)
    w.raw(_oII.pack(v.subtypes, v.classes, v.mask))


def read_ReferenceDescription(r: Reader) -> ReferenceDescription:
    r.spend()
    reference_ = r.node()
    forward_ = r.boolean()
    node_ = r.expanded()
    name_ = r.qualified()
    display_ = r.localized()
    klass_ = r.u32()
    type_ = r.expanded()
    return ReferenceDescription(reference_, forward_, node_, name_, display_, klass_, type_)


def write_ReferenceDescription(w: Writer, v: ReferenceDescription) -> None:
    w.node(v.reference)
    w.boolean(v.forward)
    w.expanded(v.node)
    w.qualified(v.name)
    w.localized(v.display)
    w.u32(v.klass)
    w.expanded(v.type)


def read_BrowseResult(r: Reader) -> BrowseResult:
    r.spend()
    status_ = r.u32()
    point_ = r.octets()
    references_ = [read_ReferenceDescription(r) for _ in range(r.count(18))]
    return BrowseResult(status_, point_, references_)


def write_BrowseResult(w: Writer, v: BrowseResult) -> None:
    w.u32(v.status)
    w.octets(v.point)
    w.count(len(v.references))
    for references_one in v.references:
        write_ReferenceDescription(w, references_one)


def read_BrowseRequest(r: Reader) -> BrowseRequest:
    r.spend()
    header_ = read_RequestHeader(r)
    view_ = read_ViewDescription(r)
    most_ = r.u32()
    nodes_ = [read_BrowseDescription(r) for _ in range(r.count(17))]
    return BrowseRequest(header_, view_, most_, nodes_)


def write_BrowseRequest(w: Writer, v: BrowseRequest) -> None:
    write_RequestHeader(w, v.header)
    write_ViewDescription(w, v.view)
    w.u32(v.most)
    w.count(len(v.nodes))
    for nodes_one in v.nodes:
        write_BrowseDescription(w, nodes_one)


def read_BrowseResponse(r: Reader) -> BrowseResponse:
    r.spend()
    header_ = read_ResponseHeader(r)
    results_ = [read_BrowseResult(r) for _ in range(r.count(12))]
    diagnostics_ = [r.diagnostic() for _ in range(r.count(1))]
    return BrowseResponse(header_, results_, diagnostics_)


def write_BrowseResponse(w: Writer, v: BrowseResponse) -> None:
    write_ResponseHeader(w, v.header)
    w.count(len(v.results))
    for results_one in v.results:
        write_BrowseResult(w, results_one)
    w.count(len(v.diagnostics))
    for diagnostics_one in v.diagnostics:
        w.diagnostic(diagnostics_one)


def read_BrowseNextRequest(r: Reader) -> BrowseNextRequest:
    r.spend()
    header_ = read_RequestHeader(r)
    release_ = r.boolean()
    points_ = [r.octets() for _ in range(r.count(4))]
    return BrowseNextRequest(header_, release_, points_)


def write_BrowseNextRequest(w: Writer, v: BrowseNextRequest) -> None:
    write_RequestHeader(w, v.header)
    w.boolean(v.release)
    w.count(len(v.points))
    for points_one in v.points:
        w.octets(points_one)


def read_BrowseNextResponse(r: Reader) -> BrowseNextResponse:
    r.spend()
    header_ = read_ResponseHeader(r)
    results_ = [read_BrowseResult(r) for _ in range(r.count(12))]
    diagnostics_ = [r.diagnostic() for _ in range(r.count(1))]
    return BrowseNextResponse(header_, results_, diagnostics_)


def write_BrowseNextResponse(w: Writer, v: BrowseNextResponse) -> None:
    write_ResponseHeader(w, v.header)
    w.count(len(v.results))
    for results_one in v.results:
        write_BrowseResult(w, results_one)
    w.count(len(v.diagnostics))
    for diagnostics_one in v.diagnostics:
        w.diagnostic(diagnostics_one)


def read_PathElement(r: Reader) -> PathElement:
    r.spend()
    reference_ = r.node()
    inverse_, subtypes_ = r.unpack(_oo)
    name_ = r.qualified()
    return PathElement(reference_, inverse_, subtypes_, name_)


def write_PathElement(w: Writer, v: PathElement) -> None:
    w.node(v.reference)
    w.raw(_oo.pack(v.inverse, v.subtypes))
    w.qualified(v.name)


def read_BrowsePath(r: Reader) -> BrowsePath:
    r.spend()
    start_ = r.node()
    elements_ = [read_PathElement(r) for _ in range(r.count(10))]
    return BrowsePath(start_, elements_)


def write_BrowsePath(w: Writer, v: BrowsePath) -> None:
    w.node(v.start)
    w.count(len(v.elements))
    for elements_one in v.elements:
        write_PathElement(w, elements_one)


def read_PathTarget(r: Reader) -> PathTarget:
    r.spend()
    target_ = r.expanded()
    remaining_ = r.u32()
    return PathTarget(target_, remaining_)


def write_PathTarget(w: Writer, v: PathTarget) -> None:
    w.expanded(v.target)
    w.u32(v.remaining)


def read_PathResult(r: Reader) -> PathResult:
    r.spend()
    status_ = r.u32()
    targets_ = [read_PathTarget(r) for _ in range(r.count(6))]
    return PathResult(status_, targets_)


def write_PathResult(w: Writer, v: PathResult) -> None:
    w.u32(v.status)
    w.count(len(v.targets))
    for targets_one in v.targets:
        write_PathTarget(w, targets_one)


def read_TranslateRequest(r: Reader) -> TranslateRequest:
    r.spend()
    header_ = read_RequestHeader(r)
    paths_ = [read_BrowsePath(r) for _ in range(r.count(6))]
    return TranslateRequest(header_, paths_)


def write_TranslateRequest(w: Writer, v: TranslateRequest) -> None:
    write_RequestHeader(w, v.header)
    w.count(len(v.paths))
    for paths_one in v.paths:
        write_BrowsePath(w, paths_one)


def read_TranslateResponse(r: Reader) -> TranslateResponse:
    r.spend()
    header_ = read_ResponseHeader(r)
    results_ = [read_PathResult(r) for _ in range(r.count(8))]
    diagnostics_ = [r.diagnostic() for _ in range(r.count(1))]
    return TranslateResponse(header_, results_, diagnostics_)


def write_TranslateResponse(w: Writer, v: TranslateResponse) -> None:
    write_ResponseHeader(w, v.header)
    w.count(len(v.results))
    for results_one in v.results:
        write_PathResult(w, results_one)
    w.count(len(v.diagnostics))
    for diagnostics_one in v.diagnostics:
        w.diagnostic(diagnostics_one)


def read_RegisterNodesRequest(r: Reader) -> RegisterNodesRequest:
    r.spend()
    header_ = read_RequestHeader(r)
    nodes_ = [r.node() for _ in range(r.count(2))]
    return RegisterNodesRequest(header_, nodes_)


def write_RegisterNodesRequest(w: Writer, v: RegisterNodesRequest) -> None:
    write_RequestHeader(w, v.header)
    w.count(len(v.nodes))
    for nodes_one in v.nodes:
        w.node(nodes_one)


def read_RegisterNodesResponse(r: Reader) -> RegisterNodesResponse:
    r.spend()
    header_ = read_ResponseHeader(r)
    nodes_ = [r.node() for _ in range(r.count(2))]
    return RegisterNodesResponse(header_, nodes_)


def write_RegisterNodesResponse(w: Writer, v: RegisterNodesResponse) -> None:
    write_ResponseHeader(w, v.header)
    w.count(len(v.nodes))
    for nodes_one in v.nodes:
        w.node(nodes_one)


def read_UnregisterNodesRequest(r: Reader) -> UnregisterNodesRequest:
    r.spend()
    header_ = read_RequestHeader(r)
    nodes_ = [r.node() for _ in range(r.count(2))]
    return UnregisterNodesRequest(header_, nodes_)


def write_UnregisterNodesRequest(w: Writer, v: UnregisterNodesRequest) -> None:
    write_RequestHeader(w, v.header)
    w.count(len(v.nodes))
    for nodes_one in v.nodes:
        w.node(nodes_one)


def read_UnregisterNodesResponse(r: Reader) -> UnregisterNodesResponse:
    r.spend()
    header_ = read_ResponseHeader(r)
    return UnregisterNodesResponse(header_)


def write_UnregisterNodesResponse(w: Writer, v: UnregisterNodesResponse) -> None:
    write_ResponseHeader(w, v.header)


def read_HistoryNode(r: Reader) -> HistoryNode:
    r.spend()
    node_ = r.node()
    range_ = r.string()
    encoding_ = r.qualified()
    point_ = r.octets()
    return HistoryNode(node_, range_, encoding_, point_)


def write_HistoryNode(w: Writer, v: HistoryNode) -> None:
    w.node(v.node)
    w.string(v.range)
    w.qualified(v.encoding)
    w.octets(v.point)


def read_HistoryReadRequest(r: Reader) -> HistoryReadRequest:
    r.spend()
    header_ = read_RequestHeader(r)
    details_ = r.extension()
    stamps_, release_ = r.unpack(_Io)
    nodes_ = [read_HistoryNode(r) for _ in range(r.count(16))]
    return HistoryReadRequest(header_, details_, stamps_, release_, nodes_)


def write_HistoryReadRequest(w: Writer, v: HistoryReadRequest) -> None:
    write_RequestHeader(w, v.header)
    w.extension(v.details)
    w.raw(_Io.pack(v.stamps, v.release))
    w.count(len(v.nodes))
    for nodes_one in v.nodes:
        write_HistoryNode(w, nodes_one)


def read_HistoryResult(r: Reader) -> HistoryResult:
    r.spend()
    status_ = r.u32()
    point_ = r.octets()
    data_ = r.extension()
    return HistoryResult(status_, point_, data_)


def write_HistoryResult(w: Writer, v: HistoryResult) -> None:
    w.u32(v.status)
    w.octets(v.point)
    w.extension(v.data)


def read_HistoryReadResponse(r: Reader) -> HistoryReadResponse:
    r.spend()
    header_ = read_ResponseHeader(r)
    results_ = [read_HistoryResult(r) for _ in range(r.count(11))]
    diagnostics_ = [r.diagnostic() for _ in range(r.count(1))]
    return HistoryReadResponse(header_, results_, diagnostics_)


def write_HistoryReadResponse(w: Writer, v: HistoryReadResponse) -> None:
    write_ResponseHeader(w, v.header)
    w.count(len(v.results))
    for results_one in v.results:
        write_HistoryResult(w, results_one)
    w.count(len(v.diagnostics))
    for diagnostics_one in v.diagnostics:
        w.diagnostic(diagnostics_one)


def read_RawDetails(r: Reader) -> RawDetails:
    r.spend()
    modified_, start_, end_, most_, bounds_ = r.unpack(_oqqIo)
    return RawDetails(modified_, start_, end_, most_, bounds_)


def write_RawDetails(w: Writer, v: RawDetails) -> None:
    w.raw(_oqqIo.pack(v.modified, v.start, v.end, v.most, v.bounds))


def read_HistoryData(r: Reader) -> HistoryData:
    r.spend()
    values_ = [r.value() for _ in range(r.count(1))]
    return HistoryData(values_)


def write_HistoryData(w: Writer, v: HistoryData) -> None:
    w.count(len(v.values))
    for values_one in v.values:
        w.value(values_one)


def read_MonitoringParameters(r: Reader) -> MonitoringParameters:
    r.spend()
    handle_, interval_ = r.unpack(_Id)
    filter_ = r.extension()
    queue_, discard_ = r.unpack(_Io)
    return MonitoringParameters(handle_, interval_, filter_, queue_, discard_)


def write_MonitoringParameters(w: Writer, v: MonitoringParameters) -> None:
    w.raw(_Id.pack(v.handle, v.interval))
    w.extension(v.filter)
    w.raw(_Io.pack(v.queue, v.discard))


def read_ItemToCreate(r: Reader) -> ItemToCreate:
    r.spend()
    item_ = read_ReadValueId(r)
    mode_ = r.u32()
    parameters_ = read_MonitoringParameters(r)
    return ItemToCreate(item_, mode_, parameters_)


def write_ItemToCreate(w: Writer, v: ItemToCreate) -> None:
    write_ReadValueId(w, v.item)
    w.u32(v.mode)
    write_MonitoringParameters(w, v.parameters)


def read_ItemCreated(r: Reader) -> ItemCreated:
    r.spend()
    status_, id_, interval_, queue_ = r.unpack(_IIdI)
    filter_ = r.extension()
    return ItemCreated(status_, id_, interval_, queue_, filter_)


def write_ItemCreated(w: Writer, v: ItemCreated) -> None:
    w.raw(_IIdI.pack(v.status, v.id, v.interval, v.queue))
    w.extension(v.filter)


def read_CreateItemsRequest(r: Reader) -> CreateItemsRequest:
    r.spend()
    header_ = read_RequestHeader(r)
    subscription_, stamps_ = r.unpack(_II)
    items_ = [read_ItemToCreate(r) for _ in range(r.count(40))]
    return CreateItemsRequest(header_, subscription_, stamps_, items_)


def write_CreateItemsRequest(w: Writer, v: CreateItemsRequest) -> None:
    write_RequestHeader(w, v.header)
    w.raw(_II.pack(v.subscription, v.stamps))
    w.count(len(v.items))
    for items_one in v.items:
        write_ItemToCreate(w, items_one)


def read_CreateItemsResponse(r: Reader) -> CreateItemsResponse:
    r.spend()
    header_ = read_ResponseHeader(r)
    results_ = [read_ItemCreated(r) for _ in range(r.count(23))]
    diagnostics_ = [r.diagnostic() for _ in range(r.count(1))]
    return CreateItemsResponse(header_, results_, diagnostics_)


def write_CreateItemsResponse(w: Writer, v: CreateItemsResponse) -> None:
    write_ResponseHeader(w, v.header)
    w.count(len(v.results))
    for results_one in v.results:
        write_ItemCreated(w, results_one)
    w.count(len(v.diagnostics))
    for diagnostics_one in v.diagnostics:
        w.diagnostic(diagnostics_one)


def read_ItemToModify(r: Reader) -> ItemToModify:
    r.spend()
    id_ = r.u32()
    parameters_ = read_MonitoringParameters(r)
    return ItemToModify(id_, parameters_)


def write_ItemToModify(w: Writer, v: ItemToModify) -> None:
    w.u32(v.id)
    write_MonitoringParameters(w, v.parameters)


def read_ItemModified(r: Reader) -> ItemModified:
    r.spend()
    status_, interval_, queue_ = r.unpack(_IdI)
    filter_ = r.extension()
    return ItemModified(status_, interval_, queue_, filter_)


def write_ItemModified(w: Writer, v: ItemModified) -> None:
    w.raw(_IdI.pack(v.status, v.interval, v.queue))
    w.extension(v.filter)


def read_ModifyItemsRequest(r: Reader) -> ModifyItemsRequest:
    r.spend()
    header_ = read_RequestHeader(r)
    subscription_, stamps_ = r.unpack(_II)
    items_ = [read_ItemToModify(r) for _ in range(r.count(24))]
    return ModifyItemsRequest(header_, subscription_, stamps_, items_)


def write_ModifyItemsRequest(w: Writer, v: ModifyItemsRequest) -> None:
    write_RequestHeader(w, v.header)
    w.raw(_II.pack(v.subscription, v.stamps))
    w.count(len(v.items))
    for items_one in v.items:
        write_ItemToModify(w, items_one)


def read_ModifyItemsResponse(r: Reader) -> ModifyItemsResponse:
    r.spend()
    header_ = read_ResponseHeader(r)
    results_ = [read_ItemModified(r) for _ in range(r.count(19))]
    diagnostics_ = [r.diagnostic() for _ in range(r.count(1))]
    return ModifyItemsResponse(header_, results_, diagnostics_)


def write_ModifyItemsResponse(w: Writer, v: ModifyItemsResponse) -> None:
    write_ResponseHeader(w, v.header)
    w.count(len(v.results))
    for results_one in v.results:
        write_ItemModified(w, results_one)
    w.count(len(v.diagnostics))
    for diagnostics_one in v.diagnostics:
        w.diagnostic(diagnostics_one)


def read_SetMonitoringModeRequest(r: Reader) -> SetMonitoringModeRequest:
    r.spend()
    header_ = read_RequestHeader(r)
    subscription_, mode_ = r.unpack(_II)
    items_ = [r.u32() for _ in range(r.count(4))]
    return SetMonitoringModeRequest(header_, subscription_, mode_, items_)


def write_SetMonitoringModeRequest(w: Writer, v: SetMonitoringModeRequest) -> None:
    write_RequestHeader(w, v.header)
    w.raw(_II.pack(v.subscription, v.mode))
    w.count(len(v.items))
    for items_one in v.items:
        w.u32(items_one)


def read_SetMonitoringModeResponse(r: Reader) -> SetMonitoringModeResponse:
    r.spend()
    header_ = read_ResponseHeader(r)
    results_ = [r.u32() for _ in range(r.count(4))]
    diagnostics_ = [r.diagnostic() for _ in range(r.count(1))]
    return SetMonitoringModeResponse(header_, results_, diagnostics_)


def write_SetMonitoringModeResponse(w: Writer, v: SetMonitoringModeResponse) -> None:
    write_ResponseHeader(w, v.header)
    w.count(len(v.results))
    for results_one in v.results:
        w.u32(results_one)
    w.count(len(v.diagnostics))
    for diagnostics_one in v.diagnostics:
        w.diagnostic(diagnostics_one)


def read_DeleteItemsRequest(r: Reader) -> DeleteItemsRequest:
    r.spend()
    header_ = read_RequestHeader(r)
    subscription_ = r.u32()
    items_ = [r.u32() for _ in range(r.count(4))]
    return DeleteItemsRequest(header_, subscription_, items_)


def write_DeleteItemsRequest(w: Writer, v: DeleteItemsRequest) -> None:
    write_RequestHeader(w, v.header)
    w.u32(v.subscription)
    w.count(len(v.items))
    for items_one in v.items:
        w.u32(items_one)


def read_DeleteItemsResponse(r: Reader) -> DeleteItemsResponse:
    r.spend()
    header_ = read_ResponseHeader(r)
    results_ = [r.u32() for _ in range(r.count(4))]
    diagnostics_ = [r.diagnostic() for _ in range(r.count(1))]
    return DeleteItemsResponse(header_, results_, diagnostics_)


def write_DeleteItemsResponse(w: Writer, v: DeleteItemsResponse) -> None:
    write_ResponseHeader(w, v.header)
    w.count(len(v.results))
    for results_one in v.results:
        w.u32(results_one)
    w.count(len(v.diagnostics))
    for diagnostics_one in v.diagnostics:
        w.diagnostic(diagnostics_one)


def read_CreateSubscriptionRequest(r: Reader) -> CreateSubscriptionRequest:
    r.spend()
    header_ = read_RequestHeader(r)
    interval_, lifetime_, keepalive_, most_, enabled_, priority_ = r.unpack(_dIIIoB)
    return CreateSubscriptionRequest(header_, interval_, lifetime_, keepalive_, most_, enabled_, priority_)


def write_CreateSubscriptionRequest(w: Writer, v: CreateSubscriptionRequest) -> None:
    write_RequestHeader(w, v.header)
    w.raw(_dIIIoB.pack(v.interval, v.lifetime, v.keepalive, v.most, v.enabled, v.priority))


def read_CreateSubscriptionResponse(r: Reader) -> CreateSubscriptionResponse:
    r.spend()
    header_ = read_ResponseHeader(r)
    subscription_, interval_, lifetime_, keepalive_ = r.unpack(_IdII)
    return CreateSubscriptionResponse(header_, subscription_, interval_, lifetime_, keepalive_)


def write_CreateSubscriptionResponse(w: Writer, v: CreateSubscriptionResponse) -> None:
    write_ResponseHeader(w, v.header)
    w.raw(_IdII.pack(v.subscription, v.interval, v.lifetime, v.keepalive))


def read_ModifySubscriptionRequest(r: Reader) -> ModifySubscriptionRequest:
    r.spend()
    header_ = read_RequestHeader(r)
    subscription_, interval_, lifetime_, keepalive_, most_, priority_ = r.unpack(_IdIIIB)
    return ModifySubscriptionRequest(header_, subscription_, interval_, lifetime_, keepalive_, most_, priority_)


def write_ModifySubscriptionRequest(w: Writer, v: ModifySubscriptionRequest) -> None:
    write_RequestHeader(w, v.header)
    w.raw(_IdIIIB.pack(v.subscription, v.interval, v.lifetime, v.keepalive, v.most, v.priority))


def read_ModifySubscriptionResponse(r: Reader) -> ModifySubscriptionResponse:
    r.spend()
    header_ = read_ResponseHeader(r)
    interval_, lifetime_, keepalive_ = r.unpack(_dII)
    return ModifySubscriptionResponse(header_, interval_, lifetime_, keepalive_)


def write_ModifySubscriptionResponse(w: Writer, v: ModifySubscriptionResponse) -> None:
    write_ResponseHeader(w, v.header)
    w.raw(_dII.pack(v.interval, v.lifetime, v.keepalive))


def read_SetPublishingModeRequest(r: Reader) -> SetPublishingModeRequest:
    r.spend()
    header_ = read_RequestHeader(r)
    enabled_ = r.boolean()
    subscriptions_ = [r.u32() for _ in range(r.count(4))]
    return SetPublishingModeRequest(header_, enabled_, subscriptions_)


def write_SetPublishingModeRequest(w: Writer, v: SetPublishingModeRequest) -> None:
    write_RequestHeader(w, v.header)
    w.boolean(v.enabled)
    w.count(len(v.subscriptions))
    for subscriptions_one in v.subscriptions:
        w.u32(subscriptions_one)


def read_SetPublishingModeResponse(r: Reader) -> SetPublishingModeResponse:
    r.spend()
    header_ = read_ResponseHeader(r)
    results_ = [r.u32() for _ in range(r.count(4))]
    diagnostics_ = [r.diagnostic() for _ in range(r.count(1))]
    return SetPublishingModeResponse(header_, results_, diagnostics_)


def write_SetPublishingModeResponse(w: Writer, v: SetPublishingModeResponse) -> None:
    write_ResponseHeader(w, v.header)
    w.count(len(v.results))
    for results_one in v.results:
        w.u32(results_one)
    w.count(len(v.diagnostics))
    for diagnostics_one in v.diagnostics:
        w.diagnostic(diagnostics_one)


def read_NotificationMessage(r: Reader) -> NotificationMessage:
    r.spend()
    sequence_, time_ = r.unpack(_Iq)
    data_ = [r.extension() for _ in range(r.count(3))]
    return NotificationMessage(sequence_, time_, data_)


def write_NotificationMessage(w: Writer, v: NotificationMessage) -> None:
    w.raw(_Iq.pack(v.sequence, v.time))
    w.count(len(v.data))
    for data_one in v.data:
        w.extension(data_one)


def read_Acknowledgement(r: Reader) -> Acknowledgement:
    r.spend()
    subscription_, sequence_ = r.unpack(_II)
    return Acknowledgement(subscription_, sequence_)


def write_Acknowledgement(w: Writer, v: Acknowledgement) -> None:
    w.raw(_II.pack(v.subscription, v.sequence))


def read_PublishRequest(r: Reader) -> PublishRequest:
    r.spend()
    header_ = read_RequestHeader(r)
    acknowledged_ = [read_Acknowledgement(r) for _ in range(r.count(8))]
    return PublishRequest(header_, acknowledged_)


def write_PublishRequest(w: Writer, v: PublishRequest) -> None:
    write_RequestHeader(w, v.header)
    w.count(len(v.acknowledged))
    for acknowledged_one in v.acknowledged:
        write_Acknowledgement(w, acknowledged_one)


def read_PublishResponse(r: Reader) -> PublishResponse:
    r.spend()
    header_ = read_ResponseHeader(r)
    subscription_ = r.u32()
    available_ = [r.u32() for _ in range(r.count(4))]
    more_ = r.boolean()
    message_ = read_NotificationMessage(r)
    results_ = [r.u32() for _ in range(r.count(4))]
    diagnostics_ = [r.diagnostic() for _ in range(r.count(1))]
    return PublishResponse(header_, subscription_, available_, more_, message_, results_, diagnostics_)


def write_PublishResponse(w: Writer, v: PublishResponse) -> None:
    write_ResponseHeader(w, v.header)
    w.u32(v.subscription)
    w.count(len(v.available))
    for available_one in v.available:
        w.u32(available_one)
    w.boolean(v.more)
    write_NotificationMessage(w, v.message)
    w.count(len(v.results))
    for results_one in v.results:
        w.u32(results_one)
    w.count(len(v.diagnostics))
    for diagnostics_one in v.diagnostics:
        w.diagnostic(diagnostics_one)


def read_RepublishRequest(r: Reader) -> RepublishRequest:
    r.spend()
    header_ = read_RequestHeader(r)
    subscription_, sequence_ = r.unpack(_II)
    return RepublishRequest(header_, subscription_, sequence_)


def write_RepublishRequest(w: Writer, v: RepublishRequest) -> None:
    write_RequestHeader(w, v.header)
    w.raw(_II.pack(v.subscription, v.sequence))


def read_RepublishResponse(r: Reader) -> RepublishResponse:
    r.spend()
    header_ = read_ResponseHeader(r)
    message_ = read_NotificationMessage(r)
    return RepublishResponse(header_, message_)


def write_RepublishResponse(w: Writer, v: RepublishResponse) -> None:
    write_ResponseHeader(w, v.header)
    write_NotificationMessage(w, v.message)


def read_TransferResult(r: Reader) -> TransferResult:
    r.spend()
    status_ = r.u32()
    available_ = [r.u32() for _ in range(r.count(4))]
    return TransferResult(status_, available_)


def write_TransferResult(w: Writer, v: TransferResult) -> None:
    w.u32(v.status)
    w.count(len(v.available))
    for available_one in v.available:
        w.u32(available_one)


def read_TransferRequest(r: Reader) -> TransferRequest:
    r.spend()
    header_ = read_RequestHeader(r)
    subscriptions_ = [r.u32() for _ in range(r.count(4))]
    initial_ = r.boolean()
    return TransferRequest(header_, subscriptions_, initial_)


def write_TransferRequest(w: Writer, v: TransferRequest) -> None:
    write_RequestHeader(w, v.header)
    w.count(len(v.subscriptions))
    for subscriptions_one in v.subscriptions:
        w.u32(subscriptions_one)
    w.boolean(v.initial)


def read_TransferResponse(r: Reader) -> TransferResponse:
    r.spend()
    header_ = read_ResponseHeader(r)
    results_ = [read_TransferResult(r) for _ in range(r.count(8))]
    diagnostics_ = [r.diagnostic() for _ in range(r.count(1))]
    return TransferResponse(header_, results_, diagnostics_)


def write_TransferResponse(w: Writer, v: TransferResponse) -> None:
    write_ResponseHeader(w, v.header)
    w.count(len(v.results))
    for results_one in v.results:
        write_TransferResult(w, results_one)
    w.count(len(v.diagnostics))
    for diagnostics_one in v.diagnostics:
        w.diagnostic(diagnostics_one)


def read_DeleteSubscriptionsRequest(r: Reader) -> DeleteSubscriptionsRequest:
    r.spend()
    header_ = read_RequestHeader(r)
    subscriptions_ = [r.u32() for _ in range(r.count(4))]
    return DeleteSubscriptionsRequest(header_, subscriptions_)


def write_DeleteSubscriptionsRequest(w: Writer, v: DeleteSubscriptionsRequest) -> None:
    write_RequestHeader(w, v.header)
    w.count(len(v.subscriptions))
    for subscriptions_one in v.subscriptions:
        w.u32(subscriptions_one)


def read_DeleteSubscriptionsResponse(r: Reader) -> DeleteSubscriptionsResponse:
    r.spend()
    header_ = read_ResponseHeader(r)
    results_ = [r.u32() for _ in range(r.count(4))]
    diagnostics_ = [r.diagnostic() for _ in range(r.count(1))]
    return DeleteSubscriptionsResponse(header_, results_, diagnostics_)


def write_DeleteSubscriptionsResponse(w: Writer, v: DeleteSubscriptionsResponse) -> None:
    write_ResponseHeader(w, v.header)
    w.count(len(v.results))
    for results_one in v.results:
        w.u32(results_one)
    w.count(len(v.diagnostics))
    for diagnostics_one in v.diagnostics:
        w.diagnostic(diagnostics_one)


def read_ItemNotification(r: Reader) -> ItemNotification:
    r.spend()
    handle_ = r.u32()
    value_ = r.value()
    return ItemNotification(handle_, value_)


def write_ItemNotification(w: Writer, v: ItemNotification) -> None:
    w.u32(v.handle)
    w.value(v.value)


def read_DataChange(r: Reader) -> DataChange:
    r.spend()
    items_ = [read_ItemNotification(r) for _ in range(r.count(5))]
    diagnostics_ = [r.diagnostic() for _ in range(r.count(1))]
    return DataChange(items_, diagnostics_)


def write_DataChange(w: Writer, v: DataChange) -> None:
    w.count(len(v.items))
    for items_one in v.items:
        write_ItemNotification(w, items_one)
    w.count(len(v.diagnostics))
    for diagnostics_one in v.diagnostics:
        w.diagnostic(diagnostics_one)


def read_StatusChange(r: Reader) -> StatusChange:
    r.spend()
    status_ = r.u32()
    diagnostic_ = r.diagnostic()
    return StatusChange(status_, diagnostic_)


def write_StatusChange(w: Writer, v: StatusChange) -> None:
    w.u32(v.status)
    w.diagnostic(v.diagnostic)


def read_EventFields(r: Reader) -> EventFields:
    r.spend()
    handle_ = r.u32()
    fields_ = [r.variant() for _ in range(r.count(1))]
    return EventFields(handle_, fields_)


def write_EventFields(w: Writer, v: EventFields) -> None:
    w.u32(v.handle)
    w.count(len(v.fields))
    for fields_one in v.fields:
        w.variant(fields_one)


def read_EventList(r: Reader) -> EventList:
    r.spend()
    events_ = [read_EventFields(r) for _ in range(r.count(8))]
    return EventList(events_)


def write_EventList(w: Writer, v: EventList) -> None:
    w.count(len(v.events))
    for events_one in v.events:
        write_EventFields(w, events_one)


def read_SimpleOperand(r: Reader) -> SimpleOperand:
    r.spend()
    type_ = r.node()
    path_ = [r.qualified() for _ in range(r.count(6))]
    attribute_ = r.u32()
    range_ = r.string()
    return SimpleOperand(type_, path_, attribute_, range_)


def write_SimpleOperand(w: Writer, v: SimpleOperand) -> None:
    w.node(v.type)
    w.count(len(v.path))
    for path_one in v.path:
        w.qualified(path_one)
    w.u32(v.attribute)
    w.string(v.range)


def read_LiteralOperand(r: Reader) -> LiteralOperand:
    r.spend()
    value_ = r.variant()
    return LiteralOperand(value_)


def write_LiteralOperand(w: Writer, v: LiteralOperand) -> None:
    w.variant(v.value)


def read_ElementOperand(r: Reader) -> ElementOperand:
    r.spend()
    index_ = r.u32()
    return ElementOperand(index_)


def write_ElementOperand(w: Writer, v: ElementOperand) -> None:
    w.u32(v.index)


def read_FilterElement(r: Reader) -> FilterElement:
    r.spend()
    operator_ = r.u32()
    operands_ = [r.extension() for _ in range(r.count(3))]
    return FilterElement(operator_, operands_)


def write_FilterElement(w: Writer, v: FilterElement) -> None:
    w.u32(v.operator)
    w.count(len(v.operands))
    for operands_one in v.operands:
        w.extension(operands_one)


def read_EventFilter(r: Reader) -> EventFilter:
    r.spend()
    select_ = [read_SimpleOperand(r) for _ in range(r.count(14))]
    where_ = [read_FilterElement(r) for _ in range(r.count(8))]
    return EventFilter(select_, where_)


def write_EventFilter(w: Writer, v: EventFilter) -> None:
    w.count(len(v.select))
    for select_one in v.select:
        write_SimpleOperand(w, select_one)
    w.count(len(v.where))
    for where_one in v.where:
        write_FilterElement(w, where_one)


def read_FilterElementResult(r: Reader) -> FilterElementResult:
    r.spend()
    status_ = r.u32()
    operands_ = [r.u32() for _ in range(r.count(4))]
    diagnostics_ = [r.diagnostic() for _ in range(r.count(1))]
    return FilterElementResult(status_, operands_, diagnostics_)


def write_FilterElementResult(w: Writer, v: FilterElementResult) -> None:
    w.u32(v.status)
    w.count(len(v.operands))
    for operands_one in v.operands:
        w.u32(operands_one)
    w.count(len(v.diagnostics))
    for diagnostics_one in v.diagnostics:
        w.diagnostic(diagnostics_one)


def read_EventFilterResult(r: Reader) -> EventFilterResult:
    r.spend()
    clauses_ = [r.u32() for _ in range(r.count(4))]
    diagnostics_ = [r.diagnostic() for _ in range(r.count(1))]
    where_ = [read_FilterElementResult(r) for _ in range(r.count(12))]
    more_ = [r.diagnostic() for _ in range(r.count(1))]
    return EventFilterResult(clauses_, diagnostics_, where_, more_)


def write_EventFilterResult(w: Writer, v: EventFilterResult) -> None:
    w.count(len(v.clauses))
    for clauses_one in v.clauses:
        w.u32(clauses_one)
    w.count(len(v.diagnostics))
    for diagnostics_one in v.diagnostics:
        w.diagnostic(diagnostics_one)
    w.count(len(v.where))
    for where_one in v.where:
        write_FilterElementResult(w, where_one)
    w.count(len(v.more))
    for more_one in v.more:
        w.diagnostic(more_one)


def read_DataChangeFilter(r: Reader) -> DataChangeFilter:
    r.spend()
    trigger_, deadband_type_, deadband_ = r.unpack(_IId)
    return DataChangeFilter(trigger_, deadband_type_, deadband_)


def write_DataChangeFilter(w: Writer, v: DataChangeFilter) -> None:
    w.raw(_IId.pack(v.trigger, v.deadband_type, v.deadband))


def read_BuildInfo(r: Reader) -> BuildInfo:
    r.spend()
    product_ = r.string()
    maker_ = r.string()
    name_ = r.string()
    version_ = r.string()
    number_ = r.string()
    date_ = r.i64()
    return BuildInfo(product_, maker_, name_, version_, number_, date_)


def write_BuildInfo(w: Writer, v: BuildInfo) -> None:
    w.string(v.product)
    w.string(v.maker)
    w.string(v.name)
    w.string(v.version)
    w.string(v.number)
    w.i64(v.date)


def read_ServerStatus(r: Reader) -> ServerStatus:
    r.spend()
    start_, now_, state_ = r.unpack(_qqI)
    build_ = read_BuildInfo(r)
    seconds_ = r.u32()
    reason_ = r.localized()
    return ServerStatus(start_, now_, state_, build_, seconds_, reason_)


def write_ServerStatus(w: Writer, v: ServerStatus) -> None:
    w.raw(_qqI.pack(v.start, v.now, v.state))
    write_BuildInfo(w, v.build)
    w.u32(v.seconds)
    w.localized(v.reason)


def read_Argument(r: Reader) -> Argument:
    r.spend()
    name_ = r.string()
    type_ = r.node()
    rank_ = r.i32()
    dimensions_ = [r.u32() for _ in range(r.count(4))]
    description_ = r.localized()
    return Argument(name_, type_, rank_, dimensions_, description_)


def write_Argument(w: Writer, v: Argument) -> None:
    w.string(v.name)
    w.node(v.type)
    w.i32(v.rank)
    w.count(len(v.dimensions))
    for dimensions_one in v.dimensions:
        w.u32(dimensions_one)
    w.localized(v.description)


READERS: dict[int, Callable[[Reader], Any]] = {
    397: read_ServiceFault,
    446: read_OpenChannelRequest,
    449: read_OpenChannelResponse,
    452: read_CloseChannelRequest,
    422: read_FindServersRequest,
    425: read_FindServersResponse,
    428: read_GetEndpointsRequest,
    431: read_GetEndpointsResponse,
    461: read_CreateSessionRequest,
    464: read_CreateSessionResponse,
    467: read_ActivateSessionRequest,
    470: read_ActivateSessionResponse,
    473: read_CloseSessionRequest,
    476: read_CloseSessionResponse,
    479: read_CancelRequest,
    482: read_CancelResponse,
    321: read_AnonymousToken,
    324: read_UserNameToken,
    327: read_CertificateToken,
    631: read_ReadRequest,
    634: read_ReadResponse,
    673: read_WriteRequest,
    676: read_WriteResponse,
    712: read_CallRequest,
    715: read_CallResponse,
    527: read_BrowseRequest,
    530: read_BrowseResponse,
    533: read_BrowseNextRequest,
    536: read_BrowseNextResponse,
    554: read_TranslateRequest,
    557: read_TranslateResponse,
    560: read_RegisterNodesRequest,
    563: read_RegisterNodesResponse,
    566: read_UnregisterNodesRequest,
    569: read_UnregisterNodesResponse,
    664: read_HistoryReadRequest,
    667: read_HistoryReadResponse,
    649: read_RawDetails,
    658: read_HistoryData,
    751: read_CreateItemsRequest,
    754: read_CreateItemsResponse,
    763: read_ModifyItemsRequest,
    766: read_ModifyItemsResponse,
    769: read_SetMonitoringModeRequest,
    772: read_SetMonitoringModeResponse,
    781: read_DeleteItemsRequest,
    784: read_DeleteItemsResponse,
    787: read_CreateSubscriptionRequest,
    790: read_CreateSubscriptionResponse,
    793: read_ModifySubscriptionRequest,
    796: read_ModifySubscriptionResponse,
    799: read_SetPublishingModeRequest,
    802: read_SetPublishingModeResponse,
    826: read_PublishRequest,
    829: read_PublishResponse,
    832: read_RepublishRequest,
    835: read_RepublishResponse,
    841: read_TransferRequest,
    844: read_TransferResponse,
    847: read_DeleteSubscriptionsRequest,
    850: read_DeleteSubscriptionsResponse,
    811: read_DataChange,
    820: read_StatusChange,
    916: read_EventList,
    603: read_SimpleOperand,
    597: read_LiteralOperand,
    594: read_ElementOperand,
    727: read_EventFilter,
    736: read_EventFilterResult,
    724: read_DataChangeFilter,
    340: read_BuildInfo,
    864: read_ServerStatus,
    298: read_Argument,
}
"""By encoding id."""
WRITERS: dict[type, tuple[int, Callable[[Writer, Any], None]]] = {
    ServiceFault: (397, write_ServiceFault),
    OpenChannelRequest: (446, write_OpenChannelRequest),
    OpenChannelResponse: (449, write_OpenChannelResponse),
    CloseChannelRequest: (452, write_CloseChannelRequest),
    FindServersRequest: (422, write_FindServersRequest),
    FindServersResponse: (425, write_FindServersResponse),
    GetEndpointsRequest: (428, write_GetEndpointsRequest),
    GetEndpointsResponse: (431, write_GetEndpointsResponse),
    CreateSessionRequest: (461, write_CreateSessionRequest),
    CreateSessionResponse: (464, write_CreateSessionResponse),
    ActivateSessionRequest: (467, write_ActivateSessionRequest),
    ActivateSessionResponse: (470, write_ActivateSessionResponse),
    CloseSessionRequest: (473, write_CloseSessionRequest),
    CloseSessionResponse: (476, write_CloseSessionResponse),
    CancelRequest: (479, write_CancelRequest),
    CancelResponse: (482, write_CancelResponse),
    AnonymousToken: (321, write_AnonymousToken),
    UserNameToken: (324, write_UserNameToken),
    CertificateToken: (327, write_CertificateToken),
    ReadRequest: (631, write_ReadRequest),
    ReadResponse: (634, write_ReadResponse),
    WriteRequest: (673, write_WriteRequest),
    WriteResponse: (676, write_WriteResponse),
    CallRequest: (712, write_CallRequest),
    CallResponse: (715, write_CallResponse),
    BrowseRequest: (527, write_BrowseRequest),
    BrowseResponse: (530, write_BrowseResponse),
    BrowseNextRequest: (533, write_BrowseNextRequest),
    BrowseNextResponse: (536, write_BrowseNextResponse),
    TranslateRequest: (554, write_TranslateRequest),
    TranslateResponse: (557, write_TranslateResponse),
    RegisterNodesRequest: (560, write_RegisterNodesRequest),
    RegisterNodesResponse: (563, write_RegisterNodesResponse),
    UnregisterNodesRequest: (566, write_UnregisterNodesRequest),
    UnregisterNodesResponse: (569, write_UnregisterNodesResponse),
    HistoryReadRequest: (664, write_HistoryReadRequest),
    HistoryReadResponse: (667, write_HistoryReadResponse),
    RawDetails: (649, write_RawDetails),
    HistoryData: (658, write_HistoryData),
    CreateItemsRequest: (751, write_CreateItemsRequest),
    CreateItemsResponse: (754, write_CreateItemsResponse),
    ModifyItemsRequest: (763, write_ModifyItemsRequest),
    ModifyItemsResponse: (766, write_ModifyItemsResponse),
    SetMonitoringModeRequest: (769, write_SetMonitoringModeRequest),
    SetMonitoringModeResponse: (772, write_SetMonitoringModeResponse),
    DeleteItemsRequest: (781, write_DeleteItemsRequest),
    DeleteItemsResponse: (784, write_DeleteItemsResponse),
    CreateSubscriptionRequest: (787, write_CreateSubscriptionRequest),
    CreateSubscriptionResponse: (790, write_CreateSubscriptionResponse),
    ModifySubscriptionRequest: (793, write_ModifySubscriptionRequest),
    ModifySubscriptionResponse: (796, write_ModifySubscriptionResponse),
    SetPublishingModeRequest: (799, write_SetPublishingModeRequest),
    SetPublishingModeResponse: (802, write_SetPublishingModeResponse),
    PublishRequest: (826, write_PublishRequest),
    PublishResponse: (829, write_PublishResponse),
    RepublishRequest: (832, write_RepublishRequest),
    RepublishResponse: (835, write_RepublishResponse),
    TransferRequest: (841, write_TransferRequest),
    TransferResponse: (844, write_TransferResponse),
    DeleteSubscriptionsRequest: (847, write_DeleteSubscriptionsRequest),
    DeleteSubscriptionsResponse: (850, write_DeleteSubscriptionsResponse),
    DataChange: (811, write_DataChange),
    StatusChange: (820, write_StatusChange),
    EventList: (916, write_EventList),
    SimpleOperand: (603, write_SimpleOperand),
    LiteralOperand: (597, write_LiteralOperand),
    ElementOperand: (594, write_ElementOperand),
    EventFilter: (727, write_EventFilter),
    EventFilterResult: (736, write_EventFilterResult),
    DataChangeFilter: (724, write_DataChangeFilter),
    BuildInfo: (340, write_BuildInfo),
    ServerStatus: (864, write_ServerStatus),
    Argument: (298, write_Argument),
}
"""By type: its encoding id and its writer."""
