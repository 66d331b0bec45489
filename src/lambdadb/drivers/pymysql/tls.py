"""
TLS: verify the server before a login is sent to it.

PyMySQL's own default is to encrypt if the server offers it and to verify nothing. It is never used.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lambdadb.drivers.base import AttemptFailed
from lambdadb.drivers.roots import find_roots, is_this_machine, own_file
from lambdadb.errors import InvalidSettings
from lambdadb.faults import Fault, one_line

Mode = Literal["plain", "encrypted", "authority", "verified"]
"""
How a server is verified. `plain`: no TLS. `encrypted`: TLS, and any certificate. `authority`: the
certificate's authority. `verified`: its authority and its host name.
"""

PARAMETERS = (
    *("ssl", "ssl_ca", "ssl_cert", "ssl_key", "ssl_key_password"),
    *("ssl_disabled", "ssl_verify_cert", "ssl_verify_identity"),
)
"""PyMySQL's parameters of TLS."""

_IN_DICT = {"ca", "capath", "cert", "key", "password", "cipher", "check_hostname", "verify_mode"}
_WEAKER: dict[Mode, str] = {
    "plain": "sends everything as plain text",
    "encrypted": "encrypts, but does not verify the server",
    "authority": "does not verify that the certificate is for this host",
}
_ADVICE = (
    (
        "Hostname mismatch",
        "Connect by a name in the certificate: with RDS by the endpoint, not an alias. If every server "
        "of its authority is yours, use ?ssl_verify_identity=false.",
    ),
    (
        "IP address mismatch",
        "Connect by a name in the certificate, not by the address.",
    ),
    (
        "doesn't support it",
        "The server offers no TLS. In a network of your own add ?ssl_disabled=true; with credentials= "
        "also allow_unverified_server=True. RDS always offers TLS: check host and port.",
    ),
    ("certificate has expired", "Renew the server's certificate; or this machine's clock is wrong."),
    ("self-signed certificate", f"If you trust that authority, {own_file('ssl_ca')}."),
    ("unable to get local issuer", f"If you trust that authority, {own_file('ssl_ca')}."),
)


@dataclass(frozen=True, repr=False)
class Choice:
    """What the caller's parameters say about TLS."""

    mode: Mode | None
    """None: nothing."""
    options: Mapping[str, Any]
    """The options of `ssl`, with their names there."""
    context: ssl.SSLContext | None = None
    """The caller's own context."""


def read_choice(parameters: Mapping[str, Any]) -> Choice:
    """
    Read the caller's parameters, of which those of a URL are texts.

    Raises:
        InvalidSettings: A value has no meaning.
    """
    given = parameters.get("ssl")
    if isinstance(given, ssl.SSLContext):
        if given.verify_mode is not ssl.CERT_REQUIRED:
            return Choice("encrypted", {}, given)
        return Choice("verified" if given.check_hostname else "authority", {}, given)
    if given is not None and not isinstance(given, Mapping):
        raise InvalidSettings("ssl: use an ssl.SSLContext, or the parameters ssl_ca, ssl_cert, ssl_key.")
    options = dict(given or {})
    if unknown := options.keys() - _IN_DICT:
        raise InvalidSettings(f"ssl has {sorted(unknown)}: use {', '.join(sorted(_IN_DICT))}.")
    for name, option in (
        *(("ssl_ca", "ca"), ("ssl_cert", "cert"), ("ssl_key", "key")),
        ("ssl_key_password", "password"),
    ):
        if parameters.get(name):
            options[option] = parameters[name]
    disabled = _read_flag("ssl_disabled", parameters.get("ssl_disabled"))
    verify = _read_flag("ssl_verify_cert", parameters.get("ssl_verify_cert"))
    identity = _read_flag("ssl_verify_identity", parameters.get("ssl_verify_identity"))
    if options.get("verify_mode") in (False, ssl.CERT_NONE, "none", "CERT_NONE"):
        verify = False
    if options.get("check_hostname") is False:
        identity = False
    if disabled:
        return Choice("plain", {})
    if verify is False:
        return Choice("encrypted", options)
    if identity is False:
        return Choice("authority", options)
    return Choice("verified" if options or verify or identity else None, options)


def _read_flag(name: str, value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    known = {"true": True, "1": True, "false": False, "0": False}
    if str(value).lower() not in known:
        raise InvalidSettings(f"{name}={value!r}: use true or false.")
    return known[str(value).lower()]


def is_local(parameters: Mapping[str, Any]) -> bool:
    """Whether the server is this machine: a socket or a loopback address."""
    return bool(parameters.get("unix_socket")) or is_this_machine(str(parameters.get("host") or ""))


def find_mode(parameters: Mapping[str, Any], *, always: bool) -> Mode:
    """Return how the server is verified. `always` verifies this machine too."""
    mode = read_choice(parameters).mode
    if mode is not None:
        return mode
    return "plain" if is_local(parameters) and not always else "verified"


def get_tls_warning(parameters: Mapping[str, Any]) -> str | None:
    """Return a warning if the caller's choice leaves another machine unverified; None if it does not."""
    mode = read_choice(parameters).mode
    if is_local(parameters) or mode not in _WEAKER:
        return None
    return f"This connection {_WEAKER[mode]}. Leave out ssl_*, and the server is verified."


def check_verified(parameters: Mapping[str, Any], *, always: bool, allow_unverified: bool) -> None:
    """
    Refuse to send the login of a store to a server that would not be verified.

    Args:
        parameters: PyMySQL's parameters.
        always: The login needs a verified server on this machine too, and is never sent unencrypted.
        allow_unverified: The caller has said that an unverified server may get the login.

    Raises:
        AttemptFailed: The login must not be sent to this server; `UNTRUSTED`.
    """
    mode = find_mode(parameters, always=always)
    if mode == "verified" or (is_local(parameters) and not always):
        return
    if allow_unverified and not (always and mode == "plain"):
        return
    raise AttemptFailed(
        Fault.UNTRUSTED,
        f"with credentials= the server has to be verified, and this connection {_WEAKER[mode]}. Remove "
        "ssl_disabled, ssl_verify_cert and ssl_verify_identity from the url and connect_args: the "
        "server is then verified. If an unverified server may get the login: "
        "create_engine(..., allow_unverified_server=True)"
        + (", with TLS at least, since this login is never sent unencrypted" * always),
    )


class Context(ssl.SSLContext):
    """What PyMySQL takes as a context: it lets the stream itself start TLS."""

    verifying: ssl.SSLContext

    def wrap_socket(self, sock: Any, *_: Any, server_hostname: Any = None, **__: Any) -> Any:
        """Start TLS on a stream."""
        return sock.start_tls(self.verifying, server_hostname)


def make_context(
    parameters: Mapping[str, Any], environment: Mapping[str, str], mode: Mode
) -> ssl.SSLContext:
    """
    Return the context of a connect.

    Raises:
        AttemptFailed: The root certificates, or the client's own, are missing.

    **Costs:** no round trip. Reading the roots of one region takes a millisecond.
    """
    choice = read_choice(parameters)
    outer = Context(ssl.PROTOCOL_TLS_CLIENT)
    outer.verifying = choice.context or _make_verifying(parameters, environment, mode, choice.options)
    return outer


def _make_verifying(
    parameters: Mapping[str, Any],
    environment: Mapping[str, str],
    mode: Mode,
    options: Mapping[str, Any],
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = mode == "verified"
    context.verify_mode = ssl.CERT_NONE if mode == "encrypted" else ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    ca, capath = options.get("ca"), options.get("capath")
    if mode != "encrypted" and not ca and not capath:
        ca = find_roots(str(parameters.get("host") or ""), environment, "ssl_ca")
    try:
        if ca or capath:
            context.load_verify_locations(cafile=ca, capath=capath)
        if options.get("cert"):
            context.load_cert_chain(options["cert"], options.get("key"), options.get("password"))
        if options.get("cipher"):
            context.set_ciphers(str(options["cipher"]))
    except (OSError, ssl.SSLError) as error:
        raise AttemptFailed(
            Fault.UNTRUSTED,
            f"a file of ssl_ca ({ca}), ssl_cert or ssl_key cannot be read: {error}",
        ) from error
    return context


def explain_rejection(text: str) -> str:
    """Return why a server was not trusted, with what to do."""
    return " ".join([f"{one_line(text)}.", *(advice for part, advice in _ADVICE if part in text)])
