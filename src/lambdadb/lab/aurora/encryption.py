"""TLS towards one client, whose bytes somebody else sends and receives."""

from __future__ import annotations

import contextlib
import ssl

CHUNK = 65536


class Encryption:
    """
    One side of a TLS session, without a socket: bytes of the wire go in and come out.

    Args:
        context: The server's, with its certificate.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._session = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def take(self, data: bytes) -> None:
        """Take bytes that came from the client."""
        self._incoming.write(data)

    def shake_hands(self) -> bool:
        """
        Go on with the handshake; says whether it is done.

        Raises:
            ConnectionError: The client refuses the certificate, or speaks no TLS.
        """
        try:
            self._session.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise ConnectionAbortedError(str(error)) from error
        return True

    def read(self, count: int = CHUNK) -> bytes | None:
        """What the client said, decrypted: empty at its end, `None` before its next bytes came."""
        try:
            return self._session.read(count)
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLZeroReturnError:
            return b""
        except ssl.SSLError as error:
            raise ConnectionAbortedError(str(error)) from error

    def encrypted(self, data: bytes) -> bytes:
        """What to send so that the client reads `data`."""
        self._session.write(data)
        return self.to_send()

    def farewell(self) -> bytes:
        """What to send at the end."""
        with contextlib.suppress(ssl.SSLError):  # the client's own farewell is not waited for
            self._session.unwrap()
        return self.to_send()

    def to_send(self) -> bytes:
        """What the session has for the client now."""
        return self._outgoing.read()
