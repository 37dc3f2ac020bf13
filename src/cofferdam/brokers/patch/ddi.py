"""hawkBit's Direct Device Integration, as far as a device needs it: for gateways that poll (SWUpdate, RAUC's updater).

    GET  /TENANT/controller/v1/ID                                what is there to do, and when to ask again
    GET  /TENANT/controller/v1/ID/deploymentBase/ACTION          the file: name, size, hashes, where it lies
    POST /TENANT/controller/v1/ID/deploymentBase/ACTION/feedback how far it is, and what became of it
    GET  /TENANT/controller/v1/ID/cancelAction/ACTION            the same once more: an operator has given it up
    POST /TENANT/controller/v1/ID/cancelAction/ACTION/feedback   whether it has left it
    PUT  /TENANT/controller/v1/ID/configData                     taken, and not kept

ID is the asset's name, ACTION the release's number. The token (`GatewayToken` or `TargetToken`) is the asset's own key.
The file itself is fetched like any other (serving). Not here: several files of one action.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct

from cofferdam.brokers.kit.http.connection import Request
from cofferdam.brokers.patch.plan import Step, Verdict
from cofferdam.brokers.patch.records import Release

SLEEP: Final = "00:00:30"
"""How often a device asks (HH:MM:SS)."""
SOON: Final = "00:00:03"
"""How soon it asks again while there is something to do: many say who they are first, and look later."""
CONTROLLER: Final = ("controller", "v1")


class _Result(Struct):
    finished: str = "none"


class _Status(Struct):
    execution: str = ""
    result: _Result = msgspec.field(default_factory=_Result)
    details: tuple[str, ...] = ()


class Feedback(Struct):
    """What a device says of an action. Members that it has besides are not looked at."""

    status: _Status


def origin(request: Request) -> str:
    """Where the device has reached us, as it wrote it."""
    scheme = "https" if request.connection.secure else "http"
    return f"{scheme}://{request.headers.get('host', '')}"


def base(request: Request, path: tuple[str, ...]) -> str:
    """The device's own address here."""
    return f"{origin(request)}/{'/'.join(path[:4])}"


def polled(at: str, verdict: Verdict | None, given_up: Step | None = None) -> dict[str, Any]:
    """What there is to do: an action, to leave one, or nothing. What a device says of itself is not asked for."""
    links: dict[str, Any] = {}
    if given_up is not None:
        links["cancelAction"] = {"href": f"{at}/cancelAction/{given_up.release}"}
    elif verdict is not None and verdict.release is not None:
        links["deploymentBase"] = {"href": f"{at}/deploymentBase/{verdict.release.custom.number}"}
    return {"config": {"polling": {"sleep": SOON if links else SLEEP}}, "_links": links}


def deployment(where: str, release: Release, sha1: str) -> dict[str, Any]:
    """One action: this file, now. Devices of this protocol compare SHA-1; what protects the file is the image's own
    signature, and ours before."""
    custom = release.custom
    artifact = {
        "filename": custom.file,
        "hashes": {"sha1": sha1, "sha256": release.sha256},
        "size": release.size,
        "_links": {word: {"href": f"{where}/v1/files/{release.path}"} for word in ("download", "download-http")},
    }
    chunk = {"part": "os", "name": custom.product, "version": custom.version, "artifacts": [artifact]}
    return {
        "id": str(custom.number),
        "deployment": {"download": "forced", "update": "forced", "chunks": [chunk]},
    }


def to_leave(step: Step) -> dict[str, Any]:
    """An action that is given up."""
    return {"id": str(step.release), "cancelAction": {"stopId": str(step.release)}}


def said(data: bytes) -> tuple[str, str]:
    """ "done", "failed" or "" (it goes on), and the device's words. Raises: msgspec.MsgspecError."""
    status = msgspec.json.decode(data, type=Feedback).status
    words = "; ".join(status.details)[:400]
    if status.execution != "closed":
        return "", words
    return ("done" if status.result.finished == "success" else "failed"), words


def under_way(step: Step | None, number: int) -> bool:
    """Whether this action is the one that the device is at."""
    return step is not None and step.release == number and step.state in ("sending", "sent", "again")
