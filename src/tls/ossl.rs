//! OpenSSL (3.0 and later): the callbacks that the `openssl` crate does not offer.
//!
//! Sources: `SSL_CTX_set_cert_verify_callback(3)`, `SSL_CTX_set_session_ticket_cb(3)`, `SSL_get_error(3)`.

#![allow(unsafe_code)]

mod appdata;

use std::ffi::{c_int, c_long, c_uchar, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use foreign_types::ForeignTypeRef;
use openssl::error::ErrorStack;
use openssl::pkey::{PKeyRef, Private};
use openssl::ssl::{SslContextBuilder, SslMethod, SslOptions, SslRef, SslVerifyMode};
use openssl::stack::StackRef;
use openssl::x509::{X509, X509Ref, X509StoreContext, X509StoreContextRef, X509VerifyResult};
use openssl_sys as ffi;

use self::appdata::TicketData;
use super::ocsp::Staple;
use super::ticket::TicketKeys;
use super::{ClientCheck, now};
use crate::telemetry::HandshakeFailure;
use crate::trust::{Rejection, RejectionReason, TrustSet};

type ChainCallback = unsafe extern "C" fn(*mut ffi::X509_STORE_CTX, *mut c_void) -> c_int;
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

/// `SSL_CTX_set_tlsext_ticket_keys` is a macro over `SSL_CTX_ctrl` with this command (`tls1.h`).
const SSL_CTRL_SET_TLSEXT_TICKET_KEYS: c_int = 59;

/// `SSL_TICKET_STATUS` and `SSL_TICKET_RETURN` of `ssl.h`.
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

/// Makes the library ask for our verdict on a chain, also when a session is resumed.
pub(super) fn judge_chains(builder: &mut SslContextBuilder, mode: SslVerifyMode) {
    builder.set_verify(mode);
    // SAFETY: the context is alive; the callbacks are static functions and take no argument of ours.
    let set = unsafe {
        SSL_CTX_set_cert_verify_callback(builder.as_ptr(), judge_chain, std::ptr::null_mut());
        SSL_CTX_set_session_ticket_cb(builder.as_ptr(), ticket_made, ticket_read, std::ptr::null_mut())
    };
    debug_assert_eq!(set, 1);
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

pub(super) fn seal_tickets(builder: &mut SslContextBuilder, keys: &TicketKeys) -> Result<(), ErrorStack> {
    // SAFETY: the library copies the bytes out of the pointer during the call and writes nothing to it.
    let set = unsafe {
        ffi::SSL_CTX_ctrl(
            builder.as_ptr(),
            SSL_CTRL_SET_TLSEXT_TICKET_KEYS,
            TicketKeys::SIZE as c_long,
            keys.0.as_ptr().cast::<c_void>().cast_mut(),
        )
    };
    if set == 1 { Ok(()) } else { Err(ErrorStack::get()) }
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
        let verdict = check.trust.verify_x509(&chain, now());
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
        let check = super::check(ssl_ref)?;
        let full_handshake_at = check.session_began();
        let data = TicketData { full_handshake_at, intermediates: check.progress().kept.clone() };
        let bytes = appdata::encode(&data);
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

/// Called when an offered ticket was decrypted: it is honoured only if a full handshake would succeed now.
unsafe extern "C" fn ticket_read(
    ssl: *mut ffi::SSL,
    session: *mut ffi::SSL_SESSION,
    _key_name: *const c_uchar,
    _key_name_len: usize,
    status: c_int,
    _: *mut c_void,
) -> c_int {
    // SAFETY: the library hands us a live connection.
    let check = super::check(unsafe { SslRef::from_ptr(ssl) });
    if let Some(check) = check {
        check.offered();
    }
    if status != STATUS_SUCCESS && status != STATUS_SUCCESS_RENEW {
        // No ticket, or sealed under a key that we do not have: an ordinary full handshake.
        return if status < 2 { RETURN_ABORT } else { RETURN_IGNORE_RENEW };
    }
    let honoured = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the session is alive for the duration of the call.
        unsafe { resumable(check?, session) }
    }));
    match honoured.ok().flatten() {
        Some(()) if status == STATUS_SUCCESS => RETURN_USE,
        Some(()) => RETURN_USE_RENEW,
        None => RETURN_IGNORE_RENEW,
    }
}

/// SAFETY: `session` must be alive.
unsafe fn resumable(check: &ClientCheck, session: *mut ffi::SSL_SESSION) -> Option<()> {
    // SAFETY: the peer's certificate belongs to the session.
    let leaf = unsafe { SSL_SESSION_get0_peer(session) };
    let mut data = std::ptr::null_mut();
    let mut len = 0;
    // SAFETY: both out-pointers are ours; the data belongs to the session.
    let found = unsafe { SSL_SESSION_get0_ticket_appdata(session, &raw mut data, &raw mut len) };
    if found != 1 || data.is_null() {
        return None;
    }
    // SAFETY: the library vouches for `len` bytes at `data`.
    let ticket = appdata::decode(unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) })?;
    let verdict = if leaf.is_null() {
        None
    } else {
        // SAFETY: not null, owned by the session.
        let leaf = unsafe { X509Ref::from_ptr(leaf) }.to_der().ok()?;
        let mut chain: Vec<&[u8]> = vec![&leaf];
        chain.extend(ticket.intermediates.iter().map(Vec::as_slice));
        Some(check.trust.verify(&chain, now()))
    };
    check.resume(ticket.full_handshake_at, verdict, ticket.intermediates).then_some(())
}
