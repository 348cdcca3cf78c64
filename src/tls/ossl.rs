//! OpenSSL (3.0 and later): the callbacks that the `openssl` crate does not offer.
//!
//! Sources: `SSL_CTX_set_cert_verify_callback(3)`, `SSL_CTX_set_tlsext_ticket_key_evp_cb(3)`,
//! `SSL_CTX_set_session_ticket_cb(3)`, `SSL_get_error(3)`.

#![allow(unsafe_code)]

mod appdata;
mod cipher;

use std::ffi::{c_int, c_long, c_uchar, c_uint, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use foreign_types::ForeignTypeRef;
use openssl::error::ErrorStack;
use openssl::pkey::{PKeyRef, Private};
use openssl::ssl::{NameType, SslContextBuilder, SslMethod, SslOptions, SslRef, SslVerifyMode, SslVersion};
use openssl::stack::StackRef;
use openssl::x509::{X509, X509Ref, X509StoreContext, X509StoreContextRef, X509VerifyResult};
use openssl_sys as ffi;

use self::cipher::{Direction, IV};
use super::check::ClientCheck;
use super::keys::{TicketKey, TicketKeys};
use super::now;
use super::ocsp::Staple;
use crate::telemetry::{Declined, HandshakeFailure};
use crate::trust::{Rejection, RejectionReason, TrustSet};

pub(super) use self::cipher::TicketCipher;

type ChainCallback = unsafe extern "C" fn(*mut ffi::X509_STORE_CTX, *mut c_void) -> c_int;
type TicketKeyCallback = unsafe extern "C" fn(
    *mut ffi::SSL,
    *mut c_uchar,
    *mut c_uchar,
    *mut ffi::EVP_CIPHER_CTX,
    *mut ffi::EVP_MAC_CTX,
    c_int,
) -> c_int;
type TicketMade = unsafe extern "C" fn(*mut ffi::SSL, *mut c_void) -> c_int;
type TicketRead = unsafe extern "C" fn(
    *mut ffi::SSL,
    *mut ffi::SSL_SESSION,
    *const c_uchar,
    usize,
    c_int,
    *mut c_void,
) -> c_int;

unsafe extern "C" {
    fn SSL_CTX_set_cert_verify_callback(ctx: *mut ffi::SSL_CTX, callback: ChainCallback, arg: *mut c_void);
    fn SSL_CTX_set_session_ticket_cb(
        ctx: *mut ffi::SSL_CTX,
        made: TicketMade,
        read: TicketRead,
        arg: *mut c_void,
    ) -> c_int;
    fn SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx: *mut ffi::SSL_CTX, callback: TicketKeyCallback) -> c_int;
    fn SSL_client_hello_get0_ext(
        ssl: *mut ffi::SSL,
        extension: c_uint,
        data: *mut *const c_uchar,
        len: *mut usize,
    ) -> c_int;
    fn SSL_CTX_set_timeout(ctx: *mut ffi::SSL_CTX, seconds: c_long) -> c_long;
    fn SSL_SESSION_set1_ticket_appdata(
        session: *mut ffi::SSL_SESSION,
        data: *const c_void,
        len: usize,
    ) -> c_int;
    fn SSL_SESSION_get0_ticket_appdata(
        session: *mut ffi::SSL_SESSION,
        data: *mut *mut c_void,
        len: *mut usize,
    ) -> c_int;
    fn SSL_SESSION_get0_peer(session: *mut ffi::SSL_SESSION) -> *mut ffi::X509;
    fn X509_STORE_CTX_get0_cert(ctx: *const ffi::X509_STORE_CTX) -> *mut ffi::X509;
    fn X509_STORE_CTX_get0_untrusted(ctx: *const ffi::X509_STORE_CTX) -> *mut ffi::stack_st_X509;
}

/// `SSL_TICKET_STATUS` and `SSL_TICKET_RETURN` of `ssl.h`.
const STATUS_EMPTY: c_int = 3;
const STATUS_NO_DECRYPT: c_int = 4;
const STATUS_SUCCESS: c_int = 5;
const STATUS_SUCCESS_RENEW: c_int = 6;
const RETURN_ABORT: c_int = 0;
const RETURN_IGNORE_RENEW: c_int = 2;
const RETURN_USE: c_int = 3;
const RETURN_USE_RENEW: c_int = 4;

/// Its sessions keep the leaf alone; these are the intermediates, in DER.
pub(super) type Kept = Vec<Vec<u8>>;

pub(super) fn server_method() -> SslMethod {
    SslMethod::tls_server()
}

/// The chain that is shown to clients, leaf first, with the leaf's key; fails where the two do not belong together.
pub(super) fn show(
    builder: &mut SslContextBuilder,
    chain: &[X509],
    key: &PKeyRef<Private>,
) -> Result<(), ErrorStack> {
    let mut chain = chain.iter();
    if let Some(leaf) = chain.next() {
        builder.set_certificate(leaf)?;
    }
    for intermediate in chain {
        builder.add_extra_chain_cert(intermediate.clone())?;
    }
    builder.set_private_key(key)?;
    builder.check_private_key()
}

/// The library asks for the response in each handshake of a client that wants it, and takes a copy.
pub(super) fn staple(builder: &mut SslContextBuilder, staple: &Staple) -> Result<(), ErrorStack> {
    let staple = staple.clone();
    builder.set_status_callback(move |ssl| {
        let is_believed = staple.is_believed(now());
        if is_believed {
            ssl.set_ocsp_status(&staple.response)?;
        }
        Ok(is_believed)
    })
}

/// The names of the authorities whose clients are welcome.
pub(super) fn name_authorities(builder: &mut SslContextBuilder, trust: &TrustSet) -> Result<(), ErrorStack> {
    trust.anchor_certificates().into_iter().try_for_each(|anchor| builder.add_client_ca(anchor))
}

/// Makes the library ask for our verdict on a chain.
pub(super) fn judge_chains(builder: &mut SslContextBuilder, mode: SslVerifyMode) {
    builder.set_verify(mode);
    // SAFETY: the context is alive; the callback is a static function and takes no argument of ours.
    unsafe { SSL_CTX_set_cert_verify_callback(builder.as_ptr(), judge_chain, std::ptr::null_mut()) };
}

pub(super) fn set_tls13_ciphers(builder: &mut SslContextBuilder, names: &str) -> Result<(), ErrorStack> {
    builder.set_ciphersuites(names)
}

pub(super) fn set_tickets(builder: &mut SslContextBuilder, count: usize) {
    // SAFETY: the context is alive; the number is all it takes.
    let set = unsafe { ffi::SSL_CTX_set_num_tickets(builder.as_ptr(), count) };
    debug_assert_eq!(set, 1);
}

pub(super) fn set_session_lifetime(builder: &mut SslContextBuilder, seconds: u32) {
    // SAFETY: the context is alive; the number is all it takes.
    unsafe { SSL_CTX_set_timeout(builder.as_ptr(), seconds.into()) };
}

pub(super) fn seal_tickets(builder: &mut SslContextBuilder, keys: Arc<TicketKeys>) -> Result<(), ErrorStack> {
    builder.set_ex_data(super::keys_index()?, keys);
    // SAFETY: the context is alive; the callbacks are static functions and take no argument of ours.
    let set = unsafe {
        [
            SSL_CTX_set_tlsext_ticket_key_evp_cb(builder.as_ptr(), ticket_key),
            SSL_CTX_set_session_ticket_cb(builder.as_ptr(), ticket_made, ticket_read, std::ptr::null_mut()),
        ]
    };
    if set == [1, 1] { Ok(()) } else { Err(ErrorStack::get()) }
}

/// Names an error of the library by its reason code (`openssl/sslerr.h`).
pub(super) fn failure(reason: c_int, _: &SslRef) -> Option<HandshakeFailure> {
    Some(match reason {
        199 => HandshakeFailure::NoCertificate, // PEER_DID_NOT_RETURN_A_CERTIFICATE
        193 => HandshakeFailure::NoSharedCipher, // NO_SHARED_CIPHER
        101 | 341 => HandshakeFailure::NoSharedGroup, // NO_SUITABLE_KEY_SHARE, NO_SUITABLE_GROUPS
        152 => HandshakeFailure::ChainTooLong,  // EXCESSIVE_MESSAGE_SIZE
        155 | 156 => HandshakeFailure::PlainHttp, // HTTPS_PROXY_REQUEST, HTTP_REQUEST
        252 | 258 | 266 => HandshakeFailure::NoSharedVersion, // UNKNOWN_PROTOCOL, UNSUPPORTED_PROTOCOL, …
        294 => HandshakeFailure::Disconnected,  // UNEXPECTED_EOF_WHILE_READING
        // A verdict is looked for first: the check itself did not run.
        134 => HandshakeFailure::Internal, // CERTIFICATE_VERIFY_FAILED
        _ => return None,
    })
}

/// What must be off, beyond what is off in every library: compression (CRIME) is a matter of how OpenSSL was built.
pub(super) const OFF: SslOptions = SslOptions::NO_COMPRESSION;

pub(super) fn is_established(ssl: &SslRef) -> bool {
    ssl.is_init_finished()
}

/// `ERR_LIB_SSL` of `openssl/err.h`.
pub(super) const LIBRARY_SSL: c_int = 20;

/// Replaces the library's own verification: returns 1 to go on, or 0 with the error that picks the alert.
unsafe extern "C" fn judge_chain(ctx: *mut ffi::X509_STORE_CTX, _: *mut c_void) -> c_int {
    // SAFETY: the library hands us a live store context for the duration of the call.
    let context = unsafe { X509StoreContextRef::from_ptr_mut(ctx) };
    let judged = catch_unwind(AssertUnwindSafe(|| {
        let check = super::check(connection(context)?)?;
        // SAFETY: both pointers belong to the context and live as long as it does.
        let chain = unsafe { presented(ctx) };
        let verdict = check.trust()?.verify_x509(&chain, now());
        let result = alert_for(verdict.as_ref().err());
        check.shown(verdict, chain.iter().skip(1).filter_map(|x509| x509.to_der().ok()).collect());
        Some(result)
    }));
    // A panic or a connection without a check is refused like an unknown certificate.
    let result = judged.ok().flatten().unwrap_or(X509VerifyResult::APPLICATION_VERIFICATION);
    context.set_error(result);
    c_int::from(result == X509VerifyResult::OK)
}

fn connection(context: &X509StoreContextRef) -> Option<&SslRef> {
    context.ex_data(X509StoreContext::ssl_idx().ok()?)
}

/// The chain as presented, leaf first.
///
/// SAFETY: `ctx` must be alive, and outlive the result.
unsafe fn presented<'a>(ctx: *mut ffi::X509_STORE_CTX) -> Vec<&'a X509Ref> {
    let mut chain = Vec::with_capacity(4);
    // SAFETY: the leaf is owned by the context; it may be null.
    let leaf = unsafe { X509_STORE_CTX_get0_cert(ctx) };
    if leaf.is_null() {
        return chain;
    }
    // SAFETY: not null, alive as long as the context.
    let leaf: &'a X509Ref = unsafe { X509Ref::from_ptr(leaf) };
    chain.push(leaf);
    // SAFETY: the stack is owned by the context; it may be null.
    let rest = unsafe { X509_STORE_CTX_get0_untrusted(ctx) };
    if !rest.is_null() {
        // SAFETY: not null, alive as long as the context.
        let rest: &'a StackRef<X509> = unsafe { StackRef::from_ptr(rest) };
        // The stack repeats the leaf, as the same object.
        chain.extend(rest.iter().filter(|x509| !std::ptr::eq(x509.as_ptr(), leaf.as_ptr())));
    }
    chain
}

/// The library turns a verify result into the alert the client is sent (RFC 8446, section 6.2). The numbers are those
/// of `x509_vfy.h`.
fn alert_for(rejection: Option<&Rejection>) -> X509VerifyResult {
    let number = match rejection.map(|rejection| rejection.reason) {
        None => return X509VerifyResult::OK,
        Some(RejectionReason::UnknownIssuer) => 20,
        Some(RejectionReason::BadSignature) => 7,
        Some(RejectionReason::Expired) => 10,
        Some(RejectionReason::NotYetValid) => 9,
        Some(RejectionReason::Revoked | RejectionReason::Denied) => 23,
        Some(RejectionReason::RevocationUnknown) => 3,
        Some(RejectionReason::WrongUsage | RejectionReason::LeafIsCa) => 26,
        Some(RejectionReason::ChainTooLong | RejectionReason::ChainTooLarge) => 22,
        Some(RejectionReason::Malformed) => 28,
        Some(_) => return X509VerifyResult::APPLICATION_VERIFICATION,
    };
    // SAFETY: the type is a plain number, and these are its documented values.
    unsafe { X509VerifyResult::from_raw(number) }
}

/// Called when a ticket is about to be sealed: what the session alone would lose goes along inside it.
unsafe extern "C" fn ticket_made(ssl: *mut ffi::SSL, _: *mut c_void) -> c_int {
    let made = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the library hands us a live connection.
        let ssl_ref = unsafe { SslRef::from_ptr(ssl) };
        let server_name = ssl_ref.servername_raw(NameType::HOST_NAME).unwrap_or_default();
        let bytes = super::check(ssl_ref)?
            .ticket(ssl_ref.session_reused(), server_name, |data, kept| appdata::encode(kept, data))?;
        // SAFETY: the session belongs to the connection; the library copies the bytes.
        unsafe {
            let session = ffi::SSL_get_session(ssl);
            SSL_SESSION_set1_ticket_appdata(session, bytes.as_ptr().cast(), bytes.len());
        }
        Some(())
    }));
    // A ticket without our data is one that nobody will honour, so going on is safe.
    c_int::from(made.is_ok())
}

/// Called for the key that seals a ticket, or opens one that was offered: `name` stands in front of it.
unsafe extern "C" fn ticket_key(
    ssl: *mut ffi::SSL,
    name: *mut c_uchar,
    iv: *mut c_uchar,
    cipher: *mut ffi::EVP_CIPHER_CTX,
    mac: *mut ffi::EVP_MAC_CTX,
    sealing: c_int,
) -> c_int {
    const FAILED: c_int = -1;
    const NO_KEY: c_int = 0;
    const READY: c_int = 1;
    /// With a new ticket for the client.
    const READY_RENEW: c_int = 2;
    let done = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the library hands us a live connection, and room for a key's name and an IV.
        let (ssl, name, iv) = unsafe {
            (SslRef::from_ptr(ssl), &mut *name.cast::<[u8; TicketKey::NAME]>(), &mut *iv.cast::<[u8; IV]>())
        };
        let keys = super::keys(ssl)?.load();
        if sealing == 1 {
            // A reload may have taken the tickets away during the handshake, which must not fail for that.
            let Some(key) = keys.sealing() else { return Some(NO_KEY) };
            *name = key.name;
            openssl::rand::rand_bytes(iv).ok()?;
            // SAFETY: the library hands us live contexts.
            unsafe { key.cipher.prepare(Direction::Seal, iv, cipher, mac) }?;
            return Some(READY);
        }
        let Some(key) = keys.named(name) else {
            super::check(ssl)?.declined(Some(Declined::UnknownKey));
            return Some(NO_KEY);
        };
        // SAFETY: the library hands us live contexts.
        unsafe { key.cipher.prepare(Direction::Open, iv, cipher, mac) }?;
        // In TLS 1.3 each handshake brings a ticket of its own (RFC 8446, appendix C.4).
        Some(if ssl.version2() == Some(SslVersion::TLS1_3) { READY_RENEW } else { READY })
    }));
    done.ok().flatten().unwrap_or(FAILED)
}

/// Called when an offered ticket was looked at: it is honoured only if a full handshake would succeed now.
unsafe extern "C" fn ticket_read(
    ssl: *mut ffi::SSL,
    session: *mut ffi::SSL_SESSION,
    _key_name: *const c_uchar,
    _key_name_len: usize,
    status: c_int,
    _: *mut c_void,
) -> c_int {
    let honoured = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the library hands us a live connection.
        let ssl_ref = unsafe { SslRef::from_ptr(ssl) };
        let check = super::check(ssl_ref)?;
        match status {
            // SAFETY: connection and session are alive for the duration of the call.
            STATUS_SUCCESS | STATUS_SUCCESS_RENEW => unsafe { resumable(ssl, check, session) }
                .inspect_err(|cause| check.declined(Some(*cause)))
                .ok(),
            STATUS_NO_DECRYPT => {
                let unknown = check.why_declined() == Some(Declined::UnknownKey);
                check.declined(Some(if unknown { Declined::UnknownKey } else { Declined::Malformed }));
                None
            }
            _ => {
                check.declined(None);
                None
            }
        }
    }));
    match honoured.ok().flatten() {
        Some(()) if status == STATUS_SUCCESS => RETURN_USE,
        Some(()) => RETURN_USE_RENEW,
        None if status < STATUS_EMPTY => RETURN_ABORT,
        // An ordinary full handshake.
        None => RETURN_IGNORE_RENEW,
    }
}

/// SAFETY: connection and session must be alive.
unsafe fn resumable(
    ssl: *mut ffi::SSL,
    check: &ClientCheck,
    session: *mut ffi::SSL_SESSION,
) -> Result<(), Declined> {
    // SAFETY: the peer's certificate belongs to the session.
    let leaf = unsafe { SSL_SESSION_get0_peer(session) };
    let mut data = std::ptr::null_mut();
    let mut len = 0;
    // SAFETY: both out-pointers are ours; the data belongs to the session.
    let found = unsafe { SSL_SESSION_get0_ticket_appdata(session, &raw mut data, &raw mut len) };
    if found != 1 || data.is_null() {
        return Err(Declined::Malformed);
    }
    // SAFETY: the library vouches for `len` bytes at `data`.
    let bytes = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) };
    let (intermediates, data) = appdata::decode(bytes).ok_or(Declined::Malformed)?;
    let mut chain: Vec<&[u8]> = Vec::with_capacity(1 + intermediates.len());
    let der;
    if !leaf.is_null() {
        // SAFETY: not null, owned by the session.
        der = unsafe { X509Ref::from_ptr(leaf) }.to_der().map_err(|_| Declined::Malformed)?;
        chain.push(&der);
    }
    chain.extend(&intermediates);
    let kept = intermediates.iter().map(|der| der.to_vec()).collect();
    // SAFETY: the connection is alive.
    check.resume(&data, &chain, unsafe { offered_server_name(ssl) }, kept)
}

/// What the client asks for in this handshake, empty for none. The library itself looks at it only after the ticket.
///
/// SAFETY: the connection must be alive, and its `ClientHello` not be done with while the result is used.
unsafe fn offered_server_name<'a>(ssl: *mut ffi::SSL) -> &'a [u8] {
    /// `TLSEXT_TYPE_server_name` of `tls1.h`.
    const SERVER_NAME: c_uint = 0;
    let mut data = std::ptr::null();
    let mut len = 0;
    // SAFETY: both out-pointers are ours; the data belongs to the connection.
    if unsafe { SSL_client_hello_get0_ext(ssl, SERVER_NAME, &raw mut data, &raw mut len) } != 1 || len == 0 {
        return &[];
    }
    // SAFETY: the library vouches for `len` bytes at `data`.
    host_name(unsafe { std::slice::from_raw_parts(data, len) }).unwrap_or_default()
}

/// The first name of a list (RFC 6066, section 3), which is the only one that the library takes.
fn host_name(extension: &[u8]) -> Option<&[u8]> {
    let [_, _, 0, high, low, rest @ ..] = extension else { return None };
    rest.get(..usize::from(u16::from_be_bytes([*high, *low])))
}
