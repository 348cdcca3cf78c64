//! Handshakes and records as no honest client makes them: each ends with a reason, costs little, and others are served.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::records::{
    ALERT, CHANGE_CIPHER_SPEC, DATA, HANDSHAKE, Hijacked, client_hello, hello_with, message, record, records,
};
use crate::support::{Gateway, Origin, Site, eventually};

/// The failed handshakes so far, by reason.
fn failures(gateway: &Gateway) -> BTreeMap<String, u32> {
    let (_, text) = gateway.admin_get("/metrics");
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("portcullis_tls_handshake_failures_total{") else { continue };
        let reason = rest.split("reason=\"").nth(1).unwrap().split('"').next().unwrap();
        found.insert(reason.to_owned(), line.rsplit_once(' ').unwrap().1.parse().unwrap());
    }
    found.retain(|_, count| *count > 0);
    found
}

/// Those of `after` that were not there `before`.
fn since(before: &BTreeMap<String, u32>, after: &BTreeMap<String, u32>) -> BTreeMap<String, u32> {
    let mut new = after.clone();
    for (reason, count) in before {
        *new.entry(reason.clone()).or_default() -= count;
    }
    new.retain(|_, count| *count > 0);
    new
}

/// Milliseconds of the processors that the process has used so far.
fn cpu(gateway: &Gateway) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", gateway.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    ticks * 10
}

/// Kilobytes of memory.
fn memory(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Sends it, and reads until the gateway ends the connection. The first byte it says, and how long all of it took.
fn say(port: u16, bytes: &[u8]) -> (Option<u8>, Duration) {
    let started = Instant::now();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    // It may have heard enough before all is said.
    let _ = stream.write_all(bytes);
    let mut first = [0];
    let said = stream.read(&mut first).unwrap_or(0) == 1;
    if said && first[0] == HANDSHAKE {
        // It goes on: that was all we wanted to know.
        return (Some(HANDSHAKE), started.elapsed());
    }
    let _ = stream.read_to_end(&mut Vec::new());
    (said.then_some(first[0]), started.elapsed())
}

const TIMES: u32 = 10;

/// What is sent, whether the gateway answers with a handshake of its own (`None`: AWS-LC does, OpenSSL does not), and the
/// reasons that a failure may have.
type Bytes = (&'static str, Vec<u8>, Option<bool>, &'static [&'static str]);

/// What is shown, leaf first, and the reasons that the failure may have.
type Chain = (String, Vec<Vec<u8>>, &'static [&'static str]);

#[test]
fn hostile_bytes_before_the_handshake_end_with_a_reason_and_others_are_served() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[]);
    let gateway = site.start();
    assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200);
    let hello = client_hello();
    let whole = record(HANDSHAKE, &hello);
    let many: Vec<(u16, &[u8])> = (0..150).map(|number| (0x5000 + number, &b"unknown"[..])).collect();
    let large = [0; 12_000];
    let larger = vec![0; 60_000];
    let warning = record(ALERT, &[1, 90]);
    let cases: Vec<Bytes> = vec![
        ("a hello, one byte a record", records(HANDSHAKE, &hello, 1), Some(true), &["disconnected"]),
        (
            "a hello with 150 unknown extensions",
            record(HANDSHAKE, &hello_with(&many)),
            Some(true),
            &["disconnected"],
        ),
        (
            "a hello of 12 KB",
            record(HANDSHAKE, &hello_with(&[(0x5000, &large)])),
            Some(true),
            &["disconnected"],
        ),
        (
            "a hello of 60 KB",
            records(HANDSHAKE, &hello_with(&[(0x5000, &larger)]), 8000),
            None,
            &["protocol", "disconnected"],
        ),
        (
            "a hello that says it has 16 MB",
            record(HANDSHAKE, &[1, 255, 255, 255, 3, 3]),
            Some(false),
            &["protocol", "chain_too_long"],
        ),
        (
            "an extension twice",
            record(HANDSHAKE, &hello_with(&[(0x5000, b""), (0x5000, b"")])),
            // OpenSSL passes over those that it does not know.
            None,
            &["protocol", "disconnected"],
        ),
        (
            "the server name twice",
            record(HANDSHAKE, &hello_with(&[(0, b"\0\x04\0\0\x01a"), (0, b"\0\x04\0\0\x01b")])),
            Some(false),
            &["protocol"],
        ),
        (
            "a second server name that is cut off",
            record(HANDSHAKE, &hello_with(&[(0, b"\0\x09\0\0\x06a")])),
            None,
            &["protocol", "disconnected"],
        ),
        ("another message first", record(HANDSHAKE, &message(20, &[0; 32])), Some(false), &["protocol"]),
        ("the server's hello", record(HANDSHAKE, &message(2, &hello[4..])), Some(false), &["protocol"]),
        ("a key update first", record(HANDSHAKE, &message(24, &[1])), Some(false), &["protocol"]),
        ("data first", record(DATA, &[0; 64]), Some(false), &["protocol"]),
        ("two hellos", [whole.clone(), whole.clone()].concat(), Some(true), &["disconnected", "protocol"]),
        (
            "early data after a hello without any",
            [whole.clone(), record(DATA, &[0; 64]).repeat(100)].concat(),
            Some(true),
            &["protocol", "disconnected"],
        ),
        (
            "a megabyte of early data",
            [record(HANDSHAKE, &hello_with(&[(42, b"")])), record(DATA, &[0; 16_000]).repeat(64)].concat(),
            Some(true),
            &["protocol", "disconnected"],
        ),
        (
            "garbage",
            (0..4096_u32).map(|number| ((number * 7919) >> 3) as u8).collect(),
            Some(false),
            &["protocol"],
        ),
        ("zeros", vec![0; 4096], Some(false), &["protocol"]),
        ("plain HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), Some(false), &["plain_http"]),
        ("SSH", b"SSH-2.0-OpenSSH_9.2p1\r\n".to_vec(), Some(false), &["protocol"]),
        (
            "a hello of SSL 2",
            b"\x80\x2e\x01\0\x02\0\x15\0\0\0\x10\x01\0\x80".repeat(4),
            Some(false),
            &["protocol", "no_shared_version"],
        ),
        (
            "a record that says it has 64 KB",
            [&[HANDSHAKE, 3, 3, 255, 255][..], &[0; 4096]].concat(),
            Some(false),
            &["protocol"],
        ),
        ("a record of nothing", record(HANDSHAKE, &[]), Some(false), &["protocol", "timeout"]),
        ("records of nothing", record(HANDSHAKE, &[]).repeat(5000), Some(false), &["protocol"]),
        ("warnings", warning.repeat(5000), Some(false), &["protocol"]),
        (
            "a warning before each byte of a hello",
            hello.chunks(1).flat_map(|byte| [warning.clone(), record(HANDSHAKE, byte)].concat()).collect(),
            None,
            &["protocol", "disconnected"],
        ),
        ("changes of cipher", record(CHANGE_CIPHER_SPEC, &[1]).repeat(5000), Some(false), &["protocol"]),
        (
            "changes of cipher after a hello",
            [whole.clone(), record(CHANGE_CIPHER_SPEC, &[1]).repeat(5000)].concat(),
            Some(true),
            &["protocol", "disconnected"],
        ),
        ("a fatal alert", record(ALERT, &[2, 40]), Some(false), &["client_alert", "protocol"]),
        (
            "a closing alert",
            record(ALERT, &[1, 0]),
            Some(false),
            &["disconnected", "client_alert", "protocol"],
        ),
    ];
    let memory_before = memory(&gateway);
    for (name, bytes, goes_on, reasons) in &cases {
        let (before, used) = (failures(&gateway), cpu(&gateway));
        for _ in 0..TIMES {
            let (first, took) = say(site.port, bytes);
            assert!(goes_on.is_none_or(|it| it == (first == Some(HANDSHAKE))), "{name}: {first:?}");
            assert!(took < Duration::from_secs(5), "{name}: {took:?}");
        }
        let mut new = BTreeMap::new();
        eventually(name, || {
            new = since(&before, &failures(&gateway));
            (new.values().sum::<u32>() == TIMES).then_some(())
        });
        assert!(new.keys().all(|reason| reasons.contains(&reason.as_str())), "{name}: {new:?}");
        let used = (cpu(&gateway) - used) / u64::from(TIMES);
        eprintln!("{name}: {} bytes, {new:?}, {used} ms each", bytes.len());
        assert!(used < 30, "{name}: {used} ms");
        assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200, "{name}");
    }
    let grown = memory(&gateway).saturating_sub(memory_before);
    eprintln!("{grown} kB more than before");
    assert!(grown < 32 * 1024, "{grown} kB");
    assert!(gateway.metric("portcullis_panics_total") < 0.1);
}

/// An authority that the test can make sign anything.
struct Authority {
    name: openssl::x509::X509,
    key: openssl::pkey::PKey<openssl::pkey::Private>,
}

impl Authority {
    fn of(site: &Site) -> Self {
        let read = |file: &str| std::fs::read(site.path().join(file)).unwrap();
        let name = openssl::x509::X509::from_pem(&read("ca.crt")).unwrap();
        Self { name, key: openssl::pkey::PKey::private_key_from_pem(&read("ca.key")).unwrap() }
    }

    /// A certificate about any key, of a client or of an authority.
    fn sign<T: openssl::pkey::HasPublic>(
        &self,
        subject: &str,
        key: &openssl::pkey::PKeyRef<T>,
        is_authority: bool,
        names: usize,
    ) -> openssl::x509::X509 {
        use openssl::x509::extension::{BasicConstraints, ExtendedKeyUsage, SubjectAlternativeName};
        let mut builder = openssl::x509::X509Builder::new().unwrap();
        builder.set_version(2).unwrap();
        let serial = openssl::bn::BigNum::from_u32(rand_serial()).unwrap();
        builder.set_serial_number(&serial.to_asn1_integer().unwrap()).unwrap();
        let mut name = openssl::x509::X509Name::builder().unwrap();
        name.append_entry_by_text("CN", subject).unwrap();
        builder.set_subject_name(&name.build()).unwrap();
        builder.set_issuer_name(self.name.subject_name()).unwrap();
        builder.set_pubkey(key).unwrap();
        let day = |days: i64| openssl::asn1::Asn1Time::from_unix(seconds() + days * 86_400).unwrap();
        builder.set_not_before(&day(-1)).unwrap();
        builder.set_not_after(&day(1)).unwrap();
        if is_authority {
            builder.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
        } else {
            builder.append_extension(ExtendedKeyUsage::new().client_auth().build().unwrap()).unwrap();
        }
        if names > 0 {
            let mut all = SubjectAlternativeName::new();
            for number in 0..names {
                all.dns(&format!("{number:x}"));
            }
            builder.append_extension(all.build(&builder.x509v3_context(None, None)).unwrap()).unwrap();
        }
        builder.sign(&self.key, openssl::hash::MessageDigest::sha256()).unwrap();
        builder.build()
    }
}

fn rand_serial() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0x4000_0000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn seconds() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64
}

fn p256() -> openssl::pkey::PKey<openssl::pkey::Private> {
    use openssl::ec::{EcGroup, EcKey};
    let group = EcGroup::from_curve_name(openssl::nid::Nid::X9_62_PRIME256V1).unwrap();
    openssl::pkey::PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

/// A public key of so many bits, which nobody has the private one of.
fn rsa(bits: i32) -> openssl::pkey::PKey<openssl::pkey::Public> {
    use openssl::bn::{BigNum, MsbOption};
    let mut modulus = BigNum::new().unwrap();
    modulus.rand(bits, MsbOption::ONE, true).unwrap();
    let exponent = BigNum::from_u32(65_537).unwrap();
    let key = openssl::rsa::Rsa::from_public_components(modulus, exponent).unwrap();
    openssl::pkey::PKey::from_rsa(key).unwrap()
}

/// A leaf below so many authorities.
fn chain(site: &Site, authorities: usize) -> Vec<Vec<u8>> {
    let mut issuer = Authority::of(site);
    let mut chain = Vec::new();
    for depth in 0..authorities {
        let key = p256();
        let name = issuer.sign(&format!("authority {depth}"), &key, true, 0);
        chain.push(name.to_der().unwrap());
        issuer = Authority { name, key };
    }
    chain.push(issuer.sign("leaf", &p256(), false, 0).to_der().unwrap());
    chain.reverse();
    chain
}

/// One that the program `openssl` makes: of keys and digests that our own library may not know.
fn exotic(site: &Site, key: &[&str], digest: &str) -> Option<Vec<u8>> {
    let openssl = |arguments: &[&str]| {
        let output = std::process::Command::new("openssl").args(arguments).current_dir(site.path()).output();
        let output = output.unwrap();
        output.status.success().then_some(()).or_else(|| {
            eprintln!("not here: openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            None
        })
    };
    openssl(&[&["genpkey", "-out", "exotic.key"], key].concat())?;
    openssl(&["req", "-new", "-key", "exotic.key", "-subj", "/CN=exotic", "-out", "exotic.csr"])?;
    openssl(&[
        "x509",
        "-req",
        "-in",
        "exotic.csr",
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-days",
        "1",
        digest,
        "-outform",
        "DER",
        "-out",
        "exotic.der",
    ])?;
    Some(std::fs::read(site.path().join("exotic.der")).unwrap())
}

#[test]
fn hostile_certificates_end_with_a_reason_within_their_budget() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[]);
    let gateway = site.start();
    let ca = Authority::of(&site);
    let der = |certificate: openssl::x509::X509| certificate.to_der().unwrap();
    let good = der(ca.sign("good", &p256(), false, 0));
    let large_authority = ca.sign("large", &rsa(16_384), true, 0);
    // Signed by a key that nobody has: its signature is as long as the key, and wrong.
    let below = |authority: &openssl::x509::X509| {
        der(Authority { name: authority.clone(), key: ca.key.clone() }.sign("below", &p256(), false, 0))
    };
    // A chain that is believed is followed by a signature that proves nothing.
    let unproven = &["bad_signature", "protocol"][..];
    let mut cases: Vec<Chain> = vec![
        ("nothing wrong but the proof".into(), vec![good.clone()], unproven),
        ("a chain of 10".into(), chain(&site, 9), &["chain_too_long"]),
        ("a chain of 100".into(), chain(&site, 99), &["chain_too_long"]),
        ("the same certificate 200 times".into(), vec![good.clone(); 200], &["chain_too_long"]),
        (
            "90 KB of certificates".into(),
            vec![vec![0x30; 9_000]; 10],
            &["chain_too_long", "malformed", "protocol"],
        ),
        ("a message of 1 MB".into(), vec![vec![0x30; 100_000]; 10], &["protocol", "chain_too_long"]),
        ("5,000 names".into(), vec![der(ca.sign("names", &p256(), false, 5_000))], unproven),
        (
            "10,000 names".into(),
            vec![der(ca.sign("names", &p256(), false, 10_000))],
            &["bad_signature", "protocol", "chain_too_long"],
        ),
        (
            "a key of RSA with 16,384 bits".into(),
            vec![der(ca.sign("rsa", &rsa(16_384), false, 0))],
            &["not_accepted"],
        ),
        (
            "an authority with 16,384 bits".into(),
            vec![below(&large_authority), der(large_authority)],
            &["bad_signature", "not_accepted", "unknown_issuer"],
        ),
        (
            "a key of RSA with 1,024 bits".into(),
            vec![der(ca.sign("rsa", &rsa(1_024), false, 0))],
            &["not_accepted"],
        ),
        ("no certificate at all".into(), vec![], &["no_certificate"]),
        ("an empty certificate".into(), vec![vec![]], &["malformed", "protocol"]),
        ("one byte too many".into(), vec![[&good[..], &[0]].concat()], &["malformed", "protocol"]),
        ("one byte too few".into(), vec![good[..good.len() - 1].to_vec()], &["malformed", "protocol"]),
        ("text".into(), vec![b"-----BEGIN CERTIFICATE-----".to_vec()], &["malformed", "protocol"]),
    ];
    let curve = |name: &str| {
        vec!["-algorithm".into(), "EC".into(), "-pkeyopt".into(), format!("ec_paramgen_curve:{name}")]
    };
    let algorithm = |name: &str| vec!["-algorithm".to_owned(), name.to_owned()];
    for (name, key, digest) in [
        ("P-521", curve("P-521"), "-sha256"),
        ("P-224", curve("secp224r1"), "-sha256"),
        ("P-192", curve("prime192v1"), "-sha256"),
        ("secp256k1", curve("secp256k1"), "-sha256"),
        ("brainpool", curve("brainpoolP256r1"), "-sha256"),
        ("sect571k1", curve("sect571k1"), "-sha256"),
        ("Ed25519", algorithm("ED25519"), "-sha256"),
        ("Ed448", algorithm("ED448"), "-sha256"),
        ("a digest of SHA-1", curve("P-256"), "-sha1"),
        ("a digest of MD5", curve("P-256"), "-md5"),
    ] {
        let key: Vec<&str> = key.iter().map(String::as_str).collect();
        if let Some(der) = exotic(&site, &key, digest) {
            let reasons =
                &["not_accepted", "malformed", "bad_signature", "protocol", "unknown_issuer", "wrong_usage"]
                    [..];
            cases.push((name.into(), vec![der], reasons));
        }
    }
    assert!(cases.len() > 20);
    let memory_before = memory(&gateway);
    for (name, chain, reasons) in &cases {
        let (before, used) = (failures(&gateway), cpu(&gateway));
        let mut endings = BTreeMap::new();
        for _ in 0..TIMES {
            let mut client = Hijacked::before_certificate(&site);
            client.show(chain);
            *endings.entry(client.ending()).or_insert(0) += 1;
        }
        let mut new = BTreeMap::new();
        eventually(name, || {
            new = since(&before, &failures(&gateway));
            (new.values().sum::<u32>() == TIMES).then_some(())
        });
        let used = (cpu(&gateway) - used) / u64::from(TIMES);
        eprintln!("{name}: {new:?} {endings:?}, {used} ms each");
        assert!(new.keys().all(|reason| reasons.contains(&reason.as_str())), "{name}: {new:?}");
        assert!(used < 50, "{name}: {used} ms");
    }
    // Each byte in turn is another one. It may be nobody's fault but the proof's.
    let step = 5;
    let before = failures(&gateway);
    for at in (0..good.len()).step_by(step) {
        let mut broken = good.clone();
        broken[at] ^= 0x41;
        let mut client = Hijacked::before_certificate(&site);
        client.show(&[broken]);
        client.ending();
    }
    let new = eventually("all mutations are counted", || {
        let new = since(&before, &failures(&gateway));
        (new.values().sum::<u32>() as usize == good.len().div_ceil(step)).then_some(new)
    });
    eprintln!("one byte changed: {new:?}");
    assert!(!new.contains_key("internal") && !new.contains_key("timeout"), "{new:?}");
    assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200);
    let grown = memory(&gateway).saturating_sub(memory_before);
    eprintln!("{grown} kB more than before");
    assert!(grown < 48 * 1024, "{grown} kB");
    assert!(gateway.metric("portcullis_panics_total") < 0.1);
}

/// The next record of it.
type Flood = fn(&mut Hijacked) -> Vec<u8>;

#[test]
fn keys_are_changed_now_and_then_but_not_without_end() {
    let (site, origin) = (Site::new(), Origin::start());
    site.configure(&origin.address, &[]);
    let gateway = site.start();
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut client = Hijacked::after_handshake(&site, "sensor-1");
    for _ in 0..50 {
        let update = client.sealer.key_update(true);
        assert!(client.send(&update));
    }
    // With padding, which carries nothing either, but in a record that does.
    let sealed = client.sealer.seal(DATA, request, 8000);
    assert!(client.send(&sealed));
    let mut answer = [0; 15];
    client.tls.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");

    let floods: [(&str, Flood); 3] = [
        ("changes of keys", |client| client.sealer.key_update(true)),
        ("changes of keys that want no answer", |client| client.sealer.key_update(false)),
        ("padding", |client| client.sealer.seal(DATA, b"", 100)),
    ];
    for (name, flood) in floods {
        let refused = "portcullis_refusals_total{reason=\"flood\"}";
        let (before, used) = (gateway.metric(refused), cpu(&gateway));
        let mut client = Hijacked::after_handshake(&site, "sensor-1");
        let mut sent = 0;
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let records: Vec<u8> = (0..100).flat_map(|_| flood(&mut client)).collect();
            if !client.send(&records) || Instant::now() > until {
                break;
            }
            sent += 100;
        }
        assert!(Instant::now() < until, "{name}: {sent} were taken");
        eprintln!("{name}: it ended after {sent} were sent, {} ms", cpu(&gateway) - used);
        // Records of nothing but padding the library ends by itself.
        if name != "padding" {
            eventually(name, || (gateway.metric(refused) > before).then_some(()));
        }
        assert_eq!(site.curl(Some("sensor-1"), &[], "/").status, 200, "{name}");
    }
}
