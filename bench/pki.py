"""A certificate authority, a server and the clients of the job, made afresh by the `openssl` command."""

import base64
import datetime
import hashlib
import pathlib
import secrets
import ssl
import subprocess

KEYS = {
    "p256": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "rsa2048": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
    "rsa4096": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:4096"],
}
DER, PEM = "DER", "PEM"  # forms of a file
CLIENT = "basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=clientAuth\n"
SERVER = (
    "basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=serverAuth\n"
    "subjectAltName=DNS:localhost,IP:127.0.0.1\n"
)


class Pki:
    """Certificates with keys of one kind; `certificate(name)` and `key(name)` are the paths of the files.

    sensor-1 (OU sensors) and clerk-1 (OU office) are routed to one pool each, nobody-1 (OU unknown)
    is believed but routed nowhere, and `stranger` carries the name of sensor-1 from another authority.
    """

    def __init__(self, directory, kind, server_kind=None):
        self.directory = pathlib.Path(directory)
        self.kind = kind
        self.directory.mkdir()
        self._entries = {}
        self._issued = _time(datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1))
        # What the usual configuration adds is for authorities.
        self._plain_config = self.directory / "plain.cnf"
        self._plain_config.write_text("[req]\ndistinguished_name = none\n[none]\n")
        for authority in ("ca", "other-ca"):
            self._make_key(authority)
            self._openssl("req", "-x509", "-new", "-key", self.key(authority), "-sha256", "-days", "30",
                          "-subj", "/CN=Bench CA", "-out", self.certificate(authority))  # fmt: skip
        self._issue("server", "/CN=localhost", SERVER, kind=server_kind)
        self._issue("sensor-1", "/O=Example/OU=sensors/CN=sensor-1", CLIENT)
        self._issue("clerk-1", "/O=Example/OU=office/CN=clerk-1", CLIENT)
        self._issue("nobody-1", "/O=Example/OU=unknown/CN=nobody-1", CLIENT)
        self._issue("stranger", "/O=Example/OU=sensors/CN=sensor-1", CLIENT, authority="other-ca")
        # HAProxy reads the certificate and its key from one file.
        self.server_bundle = self.directory / "server.pem"
        self.server_bundle.write_text(self.certificate("server").read_text() + self.key("server").read_text())

    def certificate(self, name):
        return self.directory / f"{name}.crt"

    def key(self, name):
        return self.directory / f"{name}.key"

    def fingerprint(self, name):
        """SHA-256 of the certificate."""
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.certificate(name).read_text())).digest()

    def bundle(self, count):
        """A file of `count` authorities, ours in the middle; with fewer than two, ours alone."""
        if count < 2:
            return self.certificate("ca")
        path = self.directory / f"bundle-{count}.crt"
        if not path.exists():
            # They may share a key: to a verifier each is an authority by its name.
            others = []
            for number in range(count - 1):
                one = self.directory / "bundled.crt"
                self._openssl("req", "-x509", "-new", "-key", self.key("other-ca"), "-sha256", "-days", "30",
                              "-subj", f"/O=Example/CN=Bundled CA {number}", "-out", one)  # fmt: skip
                others.append(one.read_text())
            others.insert(count // 2, self.certificate("ca").read_text())
            path.write_text("".join(others))
        return path

    def revocation_list(self, count):
        """A list of our authority with `count` entries."""
        path = self.directory / f"revoked-{count}.crl"
        if not path.exists():
            self.sign_revocation_list(self.revocation_entries(count), 1, path, PEM)
        return path

    def revocation_entries(self, count):
        """The entries of a list, none of which is a client of ours."""
        if count not in self._entries:
            # Sixteen random bytes each.
            self._entries[count] = b"".join(self.revocation_entry(secrets.token_bytes(16)) for _ in range(count))
        return self._entries[count]

    def revocation_entry(self, serial):
        # Positive and without a leading zero.
        return _der(0x30, _der(0x02, bytes([0x40 | serial[0] & 0x3F]) + serial[1:]) + self._issued)

    def sign_revocation_list(self, entries, number, path, form=DER):
        """Writes a list by hand: `openssl ca` would take hours. Returns its path."""
        algorithm = _der(0x30, _ECDSA_WITH_SHA256 if self.kind == "p256" else _RSA_WITH_SHA256)
        issuer = _der(0x30, _der(0x31, _der(0x30, bytes.fromhex("0603550403") + _der(0x0C, b"Bench CA"))))
        expires = _time(datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=30))
        digits = number.to_bytes(number.bit_length() // 8 + 1, "big")
        numbered = _der(0x30, bytes.fromhex("0603551d14") + _der(0x04, _der(0x02, digits)))
        signed = _der(0x30, _der(0x02, b"\x01") + algorithm + issuer + self._issued + expires
                      + (_der(0x30, entries) if entries else b"") + _der(0xA0, _der(0x30, numbered)))  # fmt: skip
        unsigned_file, signature_file = (self.directory / f"list.{part}" for part in ("tbs", "sig"))
        unsigned_file.write_bytes(signed)
        self._openssl("dgst", "-sha256", "-sign", self.key("ca"), "-out", signature_file, unsigned_file)
        whole = _der(0x30, signed + algorithm + _der(0x03, b"\0" + signature_file.read_bytes()))
        unsigned_file.unlink()
        path.write_bytes(whole if form == DER else _pem(whole))
        return path

    def issue_quickly(self, name):
        """A client of OU sensors by one command instead of three. Returns its serial."""
        serial = bytes([0x40 | secrets.randbits(6)]) + secrets.token_bytes(15)
        self._openssl("req", "-x509", "-config", self._plain_config, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                      "-nodes", "-keyout", self.key(name), "-out", self.certificate(name), "-CA", self.certificate("ca"),
                      "-CAkey", self.key("ca"), "-sha256", "-days", "30", "-set_serial", f"0x{serial.hex()}",
                      "-subj", f"/O=Example/OU=sensors/CN={name}", "-addext", "keyUsage=digitalSignature",
                      "-addext", "extendedKeyUsage=clientAuth")  # fmt: skip
        return serial

    def identities(self, count, reader, row, header=None):
        """A table of `count` clients and their pools, ours in the middle; `row` is how `reader` wants one written."""
        path = self.directory / f"identities-{count}-{reader}.txt"
        if not path.exists():
            rows = [row.format(name=f"device-{number:07}", pool="backoffice") for number in range(count - 1)]
            rows.insert(count // 2, row.format(name="sensor-1", pool="telemetry"))
            path.write_text("\n".join([*([header] if header else []), *rows, ""]))
        return path

    def _make_key(self, name, kind=None):
        self._openssl("genpkey", *KEYS[kind or self.kind], "-out", self.key(name))

    def _issue(self, name, subject, extensions, authority="ca", kind=None):
        request, extension_file = self.directory / f"{name}.csr", self.directory / f"{name}.ext"
        extension_file.write_text(extensions)
        self._make_key(name, kind)
        self._openssl("req", "-new", "-key", self.key(name), "-subj", subject, "-out", request)
        self._openssl("x509", "-req", "-in", request, "-CA", self.certificate(authority),
                      "-CAkey", self.key(authority), "-CAcreateserial", "-sha256", "-days", "30",
                      "-extfile", extension_file, "-out", self.certificate(name))  # fmt: skip

    @staticmethod
    def _openssl(*arguments):
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)


_ECDSA_WITH_SHA256 = bytes.fromhex("06082a8648ce3d040302")
_RSA_WITH_SHA256 = bytes.fromhex("06092a864886f70d01010b0500")


def _der(tag, content):
    """One value in DER."""
    if len(content) < 0x80:
        return bytes([tag, len(content)]) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def _pem(whole):
    text = base64.encodebytes(whole).replace(b"\n", b"")
    lines = b"\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    return b"-----BEGIN X509 CRL-----\n" + lines + b"\n-----END X509 CRL-----\n"


def _time(moment):
    return _der(0x17, moment.strftime("%y%m%d%H%M%SZ").encode())
