//! OCSP responses (RFC 6960), right and wrong in every way.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use openssl::hash::{MessageDigest, hash};
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;
use openssl::x509::X509;

/// What a response says.
#[derive(Clone)]
pub struct Response {
    /// `NAME.crt` of the certificate that it is about, and of who issued that and who signs.
    pub about: &'static str,
    pub issuer: &'static str,
    pub signer: &'static str,
    pub status: Status,
    /// Seconds from now.
    pub this_update: i64,
    pub next_update: Option<i64>,
    /// Whether the signer's certificate is in it.
    pub shows_signer: bool,
}

#[derive(Clone, Copy)]
pub enum Status {
    Good,
    Revoked,
    Unknown,
}

impl Response {
    pub fn good(about: &'static str) -> Self {
        Self {
            about,
            issuer: "ca",
            signer: "ca",
            status: Status::Good,
            this_update: -60,
            next_update: Some(3600),
            shows_signer: false,
        }
    }

    /// As DER, made with the certificates and keys in `directory`.
    pub fn encode(&self, directory: &Path) -> Vec<u8> {
        let read = |name: &str| std::fs::read(directory.join(name)).unwrap();
        let certificate = |name: &str| X509::from_pem(&read(&format!("{name}.crt"))).unwrap();
        let (about, issuer, signer) =
            (certificate(self.about), certificate(self.issuer), certificate(self.signer));
        let key = PKey::private_key_from_pem(&read(&format!("{}.key", self.signer))).unwrap();
        let mut serial = about.serial_number().to_bn().unwrap().to_vec();
        if serial[0] >= 0x80 {
            serial.insert(0, 0);
        }
        let sha1 = sequence(&[&[0x06, 5, 0x2b, 0x0e, 3, 2, 0x1a], &[5, 0]]);
        let id = sequence(&[
            &sha1,
            &element(4, &digest(&issuer.subject_name().to_der().unwrap())),
            &element(4, &key_digest(&issuer)),
            &element(2, &serial),
        ]);
        let status = match self.status {
            Status::Good => vec![0x80, 0],
            Status::Revoked => element(0xa1, &time(-120)),
            Status::Unknown => vec![0x82, 0],
        };
        let next = self.next_update.map(|next| element(0xa0, &time(next))).unwrap_or_default();
        let single = sequence(&[&id, &status, &time(self.this_update), &next]);
        let responder = element(0xa2, &element(4, &key_digest(&signer)));
        let said = sequence(&[&responder, &time(self.this_update), &sequence(&[&single])]);
        let chain = element(0xa0, &sequence(&[&signer.to_der().unwrap()]));
        let basic = sequence(&[
            &said,
            &sequence(&[&[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]]),
            &element(3, &[&[0][..], &sign(&key, &said)].concat()),
            if self.shows_signer { &chain } else { &[] },
        ]);
        let oid = [0x06, 9, 0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];
        sequence(&[&[0x0a, 1, 0], &element(0xa0, &sequence(&[&oid, &element(4, &basic)]))])
    }

    pub fn write(&self, directory: &Path, name: &str) -> PathBuf {
        let file = directory.join(name);
        std::fs::write(&file, self.encode(directory)).unwrap();
        file
    }
}

fn sign(key: &PKey<Private>, bytes: &[u8]) -> Vec<u8> {
    Signer::new(MessageDigest::sha256(), key).unwrap().sign_oneshot_to_vec(bytes).unwrap()
}

fn digest(bytes: &[u8]) -> Vec<u8> {
    hash(MessageDigest::sha1(), bytes).unwrap().to_vec()
}

/// Of the point of a P-256 key, which is the end of its encoding.
fn key_digest(certificate: &X509) -> Vec<u8> {
    let encoded = certificate.public_key().unwrap().public_key_to_der().unwrap();
    digest(&encoded[encoded.len() - 65..])
}

fn time(from_now: i64) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    let at = jiff::Timestamp::from_second(now + from_now).unwrap();
    element(0x18, at.strftime("%Y%m%d%H%M%SZ").to_string().as_bytes())
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(0x30, &parts.concat())
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let head = match length {
        0..128 => vec![tag, length as u8],
        128..256 => vec![tag, 0x81, length as u8],
        _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
    };
    [&head[..], content].concat()
}
