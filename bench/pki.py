"""A certificate authority, a server and the clients of the job, made afresh by the `openssl` command."""

import pathlib
import subprocess

KEYS = {
    "p256": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "rsa2048": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
}
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

    def __init__(self, directory, kind):
        self.directory = pathlib.Path(directory)
        self.kind = kind
        self.directory.mkdir()
        for authority in ("ca", "other-ca"):
            self._make_key(authority)
            self._openssl("req", "-x509", "-new", "-key", self.key(authority), "-sha256", "-days", "30",
                          "-subj", "/CN=Bench CA", "-out", self.certificate(authority))  # fmt: skip
        self._issue("server", "/CN=localhost", SERVER)
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

    def _make_key(self, name):
        self._openssl("genpkey", *KEYS[self.kind], "-out", self.key(name))

    def _issue(self, name, subject, extensions, authority="ca"):
        request, extension_file = self.directory / f"{name}.csr", self.directory / f"{name}.ext"
        extension_file.write_text(extensions)
        self._make_key(name)
        self._openssl("req", "-new", "-key", self.key(name), "-subj", subject, "-out", request)
        self._openssl("x509", "-req", "-in", request, "-CA", self.certificate(authority),
                      "-CAkey", self.key(authority), "-CAcreateserial", "-sha256", "-days", "30",
                      "-extfile", extension_file, "-out", self.certificate(name))  # fmt: skip

    @staticmethod
    def _openssl(*arguments):
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)
