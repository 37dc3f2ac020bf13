"""TLS over a transport: what its owner writes is encrypted, what the peer sends is handed on decrypted.

Both ends have to show a certificate that the context trusts. The handshake is the transport's own business: `ready` is
called when it is over, and until then nothing arrives. Whatever is wrong with TLS ends the connection, with the reason.

Not here: contexts and certificates (kit.tls), who the peer is to policy (its owner asks `peer`).
"""

from __future__ import annotations

import ssl
from collections.abc import Callable

from cofferdam.brokers.kit.transport import Transport

PIECE = 16384
"""What one record of TLS can hold (bytes)."""


def _nothing() -> None:
    return


class TlsTransport(Transport):
    """`name`: who the server has to be, on a client's side; "" on a server's. Owns the transport below."""

    def __init__(self, below: Transport, context: ssl.SSLContext, name: str, ready: Callable[[], None]) -> None:
        self._below = below
        self._came, self._goes = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._came, self._goes, server_side=not name, server_hostname=name or None)
        self._ready = ready
        self._up = False
        self._open = True
        self.secure = True
        below.on_data = self._received
        below.on_closed = self._lost

    def start(self) -> None:
        """Speaks first, as a client does, once the transport below is connected."""
        self._shake()

    def peer(self) -> bytes:
        """The peer's certificate (DER); nothing before the handshake is over."""
        return self._tls.getpeercert(True) or b""

    def _received(self, data: bytes) -> None:
        self._came.write(data)
        if not self._up:
            self._shake()
        if self._up and self._open:
            self._read()

    def _shake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError as error:
            self._fail(error)
            return
        self._up = True
        self._flush()
        self._ready()

    def _read(self) -> None:
        while self._open:
            try:
                data = self._tls.read(PIECE)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLError as error:
                self._fail(error)
                return
            if not data:
                self._lost("closed by the peer")
                return
            self.on_data(data)
        self._flush()

    def _fail(self, error: ssl.SSLError) -> None:
        self._flush()  # the alert that says so
        detail = getattr(error, "verify_message", "") or error.reason or "not understood"
        self._lost(f"TLS: {str(detail).lower().replace('_', ' ')}")

    def _flush(self) -> None:
        data = self._goes.read()
        if data and self._open:
            self._below.write(data)
            self.unsent = self._below.unsent

    def write(self, data: bytes) -> None:
        if self._open and self._up:
            self._tls.write(data)
            self._flush()

    def _lost(self, reason: str) -> None:
        if self._open:
            self._open = False
            self._below.close()
            self.on_closed(reason)

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        if self._up:
            try:
                self._tls.unwrap()  # says that it is over; the answer is not waited for
            except ssl.SSLError:
                pass
            if last := self._goes.read():
                self._below.say_last(last)
        self._below.close()

    def deafen(self) -> None:
        super().deafen()
        self._below.deafen()
        self._ready = _nothing

    def pause(self) -> None:
        self._below.pause()

    def resume(self) -> None:
        self._below.resume()
