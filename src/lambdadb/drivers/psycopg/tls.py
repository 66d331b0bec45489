"""
TLS: verify the server before a login is sent to it, and explain why a certificate was refused.
"""

from __future__ import annotations

import re
import socket
import ssl
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lambdadb.drivers.base import AttemptFailed
from lambdadb.drivers.roots import (
    PROXY_ROOTS,
    RDS_ROOT,
    ROOTS,
    find_roots,
    find_system_roots,
    is_this_machine,
    own_file,
    published_url,
)
from lambdadb.faults import Fault, one_line

_ROOTS_PARAMETER = "sslrootcert"
_OWN_FILE = own_file(_ROOTS_PARAMETER)

_WEAKER = {
    "disable": "sends everything, the password included, as plain text",
    "allow": "sends the password as plain text if the server accepts that",
    "prefer": "falls back to plain text and does not verify the server",
    "require": "encrypts, but does not verify the server",
    "verify-ca": "does not verify that the certificate is for this host",
}

_ADVICE = {
    "does not match host name": (
        "The certificate is for another name. Connect by a name in the certificate: with RDS by the "
        "endpoint, not an alias. If every server of its authority is yours, use ?sslmode=verify-ca."
    ),
    "does not support SSL": (
        "The server does not support TLS. In a network of your own, as for a container on this machine, "
        "add ?sslmode=disable; with credentials= also allow_unverified_server=True. RDS always supports "
        "TLS: check host and port."
    ),
    "invalid response to SSL negotiation": "The server is not PostgreSQL: check host and port.",
    "root certificate file": (
        "The file of root certificates is named by ?sslrootcert=, PGSSLROOTCERT, SSL_CERT_FILE or "
        "~/.postgresql/root.crt. Correct the name, or deploy the file with the function."
    ),
    "host name must be specified": "A certificate is for a name: add host= to hostaddr=.",
    "could not load system root": f"sslrootcert=system does not work here: {_OWN_FILE}.",
}


def apply_tls_defaults(
    parameters: Mapping[str, Any], environment: Mapping[str, str], *, always: bool = False
) -> dict[str, Any]:
    """
    Return libpq parameters that verify the server, unless the caller has chosen otherwise.

    A host that is not this machine gets `sslmode=verify-full` and the roots that belong to it: those of
    RDS in its region, Amazon's public ones for an RDS Proxy, the system's for any other. What is set
    already, in `parameters` or in libpq's own variables and files, stays.

    Args:
        always: Verify this machine too.

    Raises:
        AttemptFailed: The root certificates are missing.

    **Costs:** no round trip, and microseconds. libpq reads the file.
    """
    if not always and is_local(parameters, environment):
        return dict(parameters)
    mode = _get_parameter("sslmode", parameters, environment) or "verify-full"
    chosen = {**parameters, "sslmode": mode}
    if mode in ("verify-full", "verify-ca"):
        roots = _get_parameter("sslrootcert", parameters, environment)
        chosen["sslrootcert"] = roots or _find_roots(parameters, environment)
    return chosen


def check_verified(
    parameters: Mapping[str, Any],
    environment: Mapping[str, str],
    *,
    always: bool = False,
    allow_unverified: bool = False,
) -> None:
    """
    Refuse to send the login of a store to a server that would not be verified.

    Only `sslmode=verify-full` verifies a server. A socket and a loopback address need no TLS: nothing
    leaves this machine.

    A service file can name the host and the sslmode, and lambdadb does not read it. The file overrides
    libpq's variables, and parameters override the file. So with a service, the parameters have to
    contain the sslmode, or a host that is not this machine. For such a host `apply_tls_defaults` adds
    the sslmode.

    Args:
        parameters: libpq's parameters.
        always: The login needs a verified server on this machine too, and is never sent unencrypted.
        allow_unverified: The caller has said that an unverified server may get the login.

    Raises:
        AttemptFailed: The login must not be sent to this server; `UNTRUSTED`.
    """
    service = _get_parameter("service", parameters, environment)
    mode = _get_parameter("sslmode", parameters, environment)
    local = is_local(parameters, {} if service else environment)
    if service and local and not parameters.get("sslmode"):
        why = "a service file decides which server gets the login, and whether it is verified"
        remedy = "Add ?sslmode=verify-full to the url"
        allowed = not always
    elif mode in ("", "verify-full") or (local and not service and not always):
        return
    else:
        why = f"sslmode={mode} {_WEAKER.get(mode, 'is none of libpq')}"
        remedy = "Remove it from the url, connect_args or PGSSLMODE: the server is then verified"
        allowed = not always or mode in ("require", "verify-ca")
    if allow_unverified and allowed:
        return
    raise AttemptFailed(
        Fault.UNTRUSTED,
        f"with credentials= the server has to be verified: {why}. {remedy}. If an unverified server "
        "may get the login: create_engine(..., allow_unverified_server=True)"
        + (", and sslmode=require at least, since this login is never sent unencrypted" * always),
    )


def get_tls_warning(parameters: Mapping[str, Any], environment: Mapping[str, str]) -> str | None:
    """Return a warning if the caller's choice leaves another machine unverified; None if it does not."""
    mode = _get_parameter("sslmode", parameters, environment)
    local = is_local(parameters, environment)
    if local and not mode and _get_parameter("service", parameters, environment):
        return (
            "A service file may name another server, which lambdadb does not read: add "
            "sslmode=verify-full, or libpq's own default falls back to plain text."
        )
    if local or mode not in _WEAKER:
        return None
    return f"sslmode={mode} {_WEAKER[mode]}. Leave it out, and the server is verified: docs/tls.md."


def explain_rejection(parameters: Mapping[str, Any], text: str, seconds: float) -> str:
    """
    Return libpq's `text` about a server that was not trusted, with what was wrong and what to do.

    libpq does not say why a certificate was refused, so the certificate is requested again. No login
    is sent. The function never raises.

    **Costs:** two TLS handshakes if a certificate was refused; they end after `seconds`.
    """
    said = one_line(text.partition("\nEither provide the file")[0])
    if "certificate verify failed" in text:
        return f"{said}: {_look_again(parameters, text, seconds)}"
    return " ".join([f"{said}.", *(advice for part, advice in _ADVICE.items() if part in text)])


def _get_parameter(name: str, parameters: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    """Return a parameter's value, or that of the environment variable which libpq reads instead."""
    return str(parameters.get(name) or environment.get(f"PG{name.upper()}") or "")


def is_local(parameters: Mapping[str, Any], environment: Mapping[str, str]) -> bool:
    """Whether every host is this machine: a socket, libpq's default one included, or loopback."""
    places = [_get_parameter(name, parameters, environment) for name in ("host", "hostaddr")]
    return all(is_this_machine(place) for place in ",".join(places).split(","))


def _find_roots(parameters: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    libpq_own = Path(environment.get("HOME") or "/", ".postgresql", "root.crt")
    if libpq_own.exists():
        return str(libpq_own)
    hosts = _get_parameter("host", parameters, environment).split(",")
    files = {
        find_roots(host, environment, _ROOTS_PARAMETER) for host in hosts if not is_this_machine(host)
    }
    if len(files) > 1:
        raise AttemptFailed(
            Fault.UNTRUSTED,
            f"the hosts {', '.join(hosts)} have different authorities, and libpq takes one file: put "
            f"{' and '.join(sorted(files))} into one and name it with ?sslrootcert=",
        )
    return files.pop() if files else find_system_roots(environment, _ROOTS_PARAMETER)


_REFUSED = re.compile(r'at "([^"]+)"(?: \(([^)]+)\))?, port (\d+) failed: SSL error: certificate verify')
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_NOT_YET_VALID, _EXPIRED = 9, 10  # OpenSSL's X509_V_ERR_CERT_...


def _look_again(parameters: Mapping[str, Any], text: str, seconds: float) -> str:
    """Return what is wrong with the certificate that libpq refused, who signed it, and what to do."""
    roots = str(parameters.get("sslrootcert") or "~/.postgresql/root.crt")
    code, wrong, authority = 0, "a second look found nothing wrong", ""
    try:
        host, address, port = _REFUSED.search(text).groups()  # type: ignore[union-attr]
        place = (address or host, int(port))
        if (name := str(parameters.get("host") or "")) and "," not in name:
            host = name  # libpq's text has only the address if it got one
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False  # libpq checks it after this
        context.verify_mode = ssl.CERT_NONE
        authority = _find_authority(place, host, context, seconds / 2)
        context.verify_mode = ssl.CERT_REQUIRED
        if roots == "system":
            context.set_default_verify_paths()
        else:
            context.load_verify_locations(Path(roots).expanduser())
        _handshake(place, host, context, seconds / 2).close()
    except ssl.SSLCertVerificationError as error:
        code, wrong = error.verify_code, error.verify_message
    except Exception as error:  # an explanation only: the refusal is reported anyway
        wrong = f"a second look, to tell why, failed: {error!r}"
    signed = f" Its authority is {authority!r}." if authority else ""
    return f"{wrong}.{signed} The roots were those of {roots}. {_get_advice(code, authority, roots)}"


def _get_advice(code: int, authority: str, roots: str) -> str:
    if code in (_EXPIRED, _NOT_YET_VALID):
        return "Renew the server's certificate; if it is valid, this machine's clock is wrong."
    if found := RDS_ROOT.search(authority):
        region = found[1]
        file = ROOTS / f"{region}.pem"
        if roots == str(file) or not file.exists():
            return f"That root is newer than this lambdadb: upgrade, or use {published_url(region)}."
        return f"That is RDS in {region}: connect to the endpoint itself, not to an alias of it."
    if "Amazon" in authority or "Starfield" in authority:
        return f"That is a public authority of Amazon, as of RDS Proxy: ?sslrootcert={PROXY_ROOTS}"
    return f"If you trust that authority, {_OWN_FILE}."


def _handshake(
    place: tuple[str, int], host: str, context: ssl.SSLContext, seconds: float
) -> ssl.SSLSocket:
    """Do a TLS handshake as libpq does. It ends after `seconds`, a third for each wait."""
    with socket.create_connection(place, timeout=seconds / 3) as plain:
        plain.sendall(_SSL_REQUEST)
        if plain.recv(1) != b"S":
            raise OSError("the server speaks no TLS now")
        return context.wrap_socket(plain, server_hostname=host)


def _find_authority(place: tuple[str, int], host: str, context: ssl.SSLContext, seconds: float) -> str:
    """Return who signed the server's last certificate; empty if this Python cannot tell."""
    with _handshake(place, host, context, seconds) as inside:
        # The public get_unverified_chain() of Python 3.13 gives bytes; this one, parsed certificates.
        chain: Any = getattr(inside._sslobj, "get_unverified_chain", list)()  # type: ignore[attr-defined]
    if not chain:
        return ""
    issuer = dict(pair for part in chain[-1].get_info()["issuer"] for pair in part)
    return str(issuer.get("commonName") or issuer.get("organizationName") or "")
