"""Objects in a bucket of S3 or what speaks like it (MinIO, Ceph, Garage): at one address, on connections of our own.

Requests are signed by Signature Version 4. Nothing is resolved, no environment is read and nobody is asked for
credentials: address, host name and whose certificate is taken stand in the policy, the secret key is handed over. It
blocks: whoever calls does so in a thread. Not here: what the objects are (iceberg).
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import http.client
import socket
import ssl
import urllib.parse
from collections.abc import Mapping
from typing import Final

from cofferdam.policy.terms.mirror_rows import Publish

SECONDS: Final = 30.0
"""For each call on the connection."""
ANSWER_BYTES: Final = 64 << 20
"""Of what is read: metadata, since samples are written only."""
WORDS: Final = 300
_EMPTY: Final = hashlib.sha256(b"").hexdigest()


class Refused(OSError):
    """The server's no, in its words. `status`: HTTP's."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(f"the object store says {status}: {words}")
        self.status = status


class Bucket:
    """One bucket, as one key may use it."""

    def __init__(self, where: Publish, secret: str) -> None:
        self.where = where
        self._secret = secret
        self._host = where.host or where.address
        named = f"[{self._host}]" if ":" in self._host else self._host
        self._named = f"{named}:{where.port}"
        self._tls: ssl.SSLContext | None = None
        if not where.plain:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self._tls.load_verify_locations(cadata=where.authority.decode("ascii"))

    def get(self, key: str) -> bytes | None:
        """An object; None where there is none. Raises: OSError."""
        try:
            return self._ask("GET", key, b"", {})
        except Refused as error:
            if error.status == 404:
                return None
            raise

    def put(self, key: str, data: bytes, *, new: bool = False) -> None:
        """Writes an object. `new`: only where there is none of that name. Raises: OSError, FileExistsError."""
        try:
            self._ask("PUT", key, data, {"if-none-match": "*"} if new else {})
        except Refused as error:
            if new and error.status in (409, 412):
                raise FileExistsError(f"{key} is there already") from None
            raise

    def delete(self, key: str) -> None:
        """Removes one. Raises: OSError."""
        self._ask("DELETE", key, b"", {})

    def _ask(self, method: str, key: str, data: bytes, more: Mapping[str, str]) -> bytes:
        path = "/" + urllib.parse.quote(f"{self.where.bucket}/{key}", safe="/-_.~")
        headers = signed(method, self._named, path, data, more, self.where.region, self.where.key, self._secret)
        try:
            connection = self._connect()
            try:
                connection.request(method, path, data, headers)
                answer = connection.getresponse()
                found = answer.read(ANSWER_BYTES + 1)
            finally:
                connection.close()
        except (http.client.HTTPException, ValueError) as error:
            raise ConnectionError(f"the object store answers with what is no HTTP ({error!r:.200})") from None
        if len(found) > ANSWER_BYTES:
            raise ConnectionError(f"the object store answers with more than {ANSWER_BYTES} bytes")
        if answer.status not in (200, 204):
            words = " ".join(found[:WORDS].decode("utf-8", "replace").split())
            raise Refused(answer.status, "".join(one if one.isprintable() else "?" for one in words))
        return found

    def _connect(self) -> http.client.HTTPConnection:
        where = self.where
        found = http.client.HTTPConnection(where.address, where.port, timeout=SECONDS)
        raw = socket.socket(socket.AF_INET6 if ":" in where.address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            raw.settimeout(SECONDS)
            raw.connect((where.address, where.port))  # a number: nothing is looked up
            found.sock = self._tls.wrap_socket(raw, server_hostname=self._host) if self._tls is not None else raw
        except BaseException:
            raw.close()
            raise
        return found


def signed(
    method: str, host: str, path: str, data: bytes, more: Mapping[str, str], region: str, key: str, secret: str,
    now: datetime.datetime | None = None,
) -> dict[str, str]:  # fmt: skip
    """The headers of a request, with its signature (AWS Signature Version 4). `path` is encoded already."""
    moment = now or datetime.datetime.now(datetime.UTC)
    stamp, day = f"{moment:%Y%m%dT%H%M%SZ}", f"{moment:%Y%m%d}"
    digest = hashlib.sha256(data).hexdigest() if data else _EMPTY
    headers = {"host": host, "x-amz-content-sha256": digest, "x-amz-date": stamp, **more}
    names = ";".join(sorted(headers))
    listed = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    request = f"{method}\n{path}\n\n{listed}\n{names}\n{digest}"
    scope = f"{day}/{region}/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    made = f"AWS4{secret}".encode()
    for word in (day, region, "s3", "aws4_request"):
        made = hmac.digest(made, word.encode(), "sha256")
    signature = hmac.new(made, text.encode(), "sha256").hexdigest()
    credential = f"Credential={key}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**headers, "authorization": f"AWS4-HMAC-SHA256 {credential}"}
