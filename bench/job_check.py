"""Does a server do the job? Asked before it is measured: a faster server that does less is no peer."""

import hashlib
import http.client
import socket
import ssl

from system import Failed

FORGED = "forged-by-the-client"


def check(name, port, pki):
    """Fails with a sentence when the server does not; returns how it treats a client without a certificate."""
    for client, pool in (("sensor-1", "telemetry"), ("clerk-1", "backoffice")):
        status, body = _ask(port, pki, client)
        told = body.split()
        if status != 200 or told[:1] != [pool]:
            raise Failed(f"{name} sends {client} to `{body[:80]}` with status {status}, not to pool {pool}")
        # The CN by itself, or as part of the whole subject.
        if told[1:2] != [client] and f"CN={client}" not in " ".join(told[1:2]).split(","):
            raise Failed(f"{name} tells the origin the CN `{' '.join(told[1:2])}` instead of `{client}`")
        if len(told) != 3 or told[2].replace(":", "").lower() not in _fingerprints(pki, client):
            raise Failed(f"{name} tells the origin the fingerprint `{' '.join(told[2:])}`, which is not {client}'s")
    status, _ = _ask(port, pki, "nobody-1")
    if status != 403:
        raise Failed(f"{name} answers {status} instead of 403 to a client that no route names")
    _check_http2(name, port, pki)
    refusals = {who: _refusal(port, pki, who) for who in (None, "stranger")}
    for who, refusal in refusals.items():
        if refusal is None:
            raise Failed(f"{name} serves a client with {who or 'no'} certificate")
    return refusals[None]


def _context(pki, client):
    context = ssl.create_default_context(cafile=str(pki.certificate("ca")))
    if client is not None:
        context.load_cert_chain(str(pki.certificate(client)), str(pki.key(client)))
    return context


def _ask(port, pki, client):
    connection = http.client.HTTPConnection("localhost", port)
    # To 127.0.0.1 whatever `localhost` resolves to, under the name `localhost`.
    connection.sock = _connect(port, _context(pki, client))
    try:
        connection.request("GET", "/echo", headers={"X-Client-CN": FORGED, "X-Client-Fingerprint": FORGED})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


def _connect(port, context):
    plain = socket.create_connection(("127.0.0.1", port), timeout=10)
    try:
        return context.wrap_socket(plain, server_hostname="localhost")
    except BaseException:
        plain.close()
        raise


def _refusal(port, pki, client):
    """`handshake` or `status N`; None when the client was served."""
    try:
        status, _ = _ask(port, pki, client)
    except (ssl.SSLError, ConnectionError, http.client.RemoteDisconnected):
        return "handshake"
    return f"status {status}" if 400 <= status < 500 else None


def _check_http2(name, port, pki):
    context = _context(pki, "sensor-1")
    context.set_alpn_protocols(["h2", "http/1.1"])
    with _connect(port, context) as connection:
        if connection.selected_alpn_protocol() != "h2":
            raise Failed(f"{name} does not offer HTTP/2")


def _fingerprints(pki, client):
    der = ssl.PEM_cert_to_DER_cert(pki.certificate(client).read_text())
    return {hashlib.sha1(der).hexdigest(), hashlib.sha256(der).hexdigest()}
