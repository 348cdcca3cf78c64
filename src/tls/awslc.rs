//! AWS-LC: the callbacks that the `openssl` crate does not offer.
//!
//! Certificates come as buffers of DER, so nothing is encoded anew. There is no callback between a ticket that was
//! decrypted and the session made of it; therefore we seal tickets ourselves, see what is in them, and judge the chain
//! before the library is given the session.
//!
//! Sources: `openssl/ssl.h` of AWS-LC on `SSL_CTX_set_custom_verify` and `SSL_TICKET_AEAD_METHOD`.

#![allow(unsafe_code)]

mod cipher;
mod sealed;

use std::ffi::{CString, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use foreign_types::ForeignTypeRef;
use openssl::error::ErrorStack;
use openssl::pkey::{PKeyRef, Private};
use openssl::ssl::{NameType, SslContextBuilder, SslMethod, SslOptions, SslRef, SslVerifyMode};
use openssl::x509::X509;
use openssl_sys as ffi;

use self::sealed::{Head, Position};
use super::keys::TicketKeys;
use super::now;
use super::ocsp::Staple;
use crate::telemetry::{Declined, HandshakeFailure};
use crate::trust::{RejectionReason, TrustSet};

pub(super) use self::cipher::TicketCipher;

/// Its sessions keep the whole chain.
#[derive(Default)]
pub(super) struct Kept;

/// Certificates are bytes for it: it makes no objects of them, which would cost a tenth of a handshake, and which nobody
/// would look at.
pub(super) fn server_method() -> SslMethod {
    // SAFETY: the method is static.
    unsafe { SslMethod::from_ptr(ffi::TLS_with_buffers_method().cast_mut()) }
}

/// The chain that is shown to clients, leaf first, with the leaf's key; fails where the two do not belong together.
pub(super) fn show(
    builder: &mut SslContextBuilder,
    chain: &[X509],
    key: &PKeyRef<Private>,
) -> Result<(), ErrorStack> {
    let buffers = chain.iter().map(|certificate| Buffer::new(&certificate.to_der()?));
    let buffers = buffers.collect::<Result<Vec<_>, _>>()?;
    let pointers: Vec<_> = buffers.iter().map(|buffer| buffer.0).collect();
    // SAFETY: context, buffers and key are alive; the library takes references of its own to buffers and key.
    let set = unsafe {
        ffi::SSL_CTX_set_chain_and_key(
            builder.as_ptr(),
            pointers.as_ptr(),
            pointers.len(),
            key.as_ptr(),
            std::ptr::null(),
        )
    };
    if set == 1 { Ok(()) } else { Err(ErrorStack::get()) }
}

/// The response lies in the context once. Who asks for it gets it while the callback agrees.
pub(super) fn staple(builder: &mut SslContextBuilder, staple: &Staple) -> Result<(), ErrorStack> {
    let response = &staple.response;
    // SAFETY: the context is alive, and the library copies the bytes.
    let set = unsafe { ffi::SSL_CTX_set_ocsp_response(builder.as_ptr(), response.as_ptr(), response.len()) };
    if set != 1 {
        return Err(ErrorStack::get());
    }
    let staple = staple.clone();
    builder.set_status_callback(move |_| Ok(staple.is_believed(now())))
}

/// The names of the authorities whose clients are welcome.
pub(super) fn name_authorities(builder: &mut SslContextBuilder, trust: &TrustSet) -> Result<(), ErrorStack> {
    let names = trust.ca_names().into_iter().map(Buffer::new).collect::<Result<Vec<_>, _>>()?;
    // SAFETY: the stack is new, and each pointer in it carries a reference that it owns; the context takes the stack.
    unsafe {
        let stack = ffi::OPENSSL_sk_new_null();
        if stack.is_null() {
            return Err(ErrorStack::get());
        }
        for name in names {
            ffi::OPENSSL_sk_push(stack, name.into_raw().cast());
        }
        ffi::SSL_CTX_set0_client_CAs(builder.as_ptr(), stack.cast());
    }
    Ok(())
}

/// Bytes that the library owns.
struct Buffer(*mut ffi::CRYPTO_BUFFER);

impl Buffer {
    fn new(bytes: &[u8]) -> Result<Self, ErrorStack> {
        // SAFETY: the library copies the bytes.
        let buffer = unsafe { ffi::CRYPTO_BUFFER_new(bytes.as_ptr(), bytes.len(), std::ptr::null_mut()) };
        if buffer.is_null() { Err(ErrorStack::get()) } else { Ok(Self(buffer)) }
    }

    fn into_raw(self) -> *mut ffi::CRYPTO_BUFFER {
        std::mem::ManuallyDrop::new(self).0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: it holds one reference, and gives that one back.
        unsafe { ffi::CRYPTO_BUFFER_free(self.0) }
    }
}

/// Makes the library ask for our verdict on a chain.
pub(super) fn judge_chains(builder: &mut SslContextBuilder, mode: SslVerifyMode) {
    // SAFETY: the context is alive; the callback is a static function, and the library copies the list.
    unsafe {
        ffi::SSL_CTX_set_custom_verify(builder.as_ptr(), mode.bits(), Some(judge_chain));
        let set =
            ffi::SSL_CTX_set_verify_algorithm_prefs(builder.as_ptr(), SIGNATURES.as_ptr(), SIGNATURES.len());
        debug_assert_eq!(set, 1);
    }
}

/// What a client may sign its handshake with: the library's own list has SHA-1 in it, and not Ed25519, whose clients
/// would find no certificate of theirs to show.
const SIGNATURES: [u16; 10] = [
    ffi::SSL_SIGN_ECDSA_SECP256R1_SHA256 as u16,
    ffi::SSL_SIGN_ED25519 as u16,
    ffi::SSL_SIGN_RSA_PSS_RSAE_SHA256 as u16,
    ffi::SSL_SIGN_RSA_PKCS1_SHA256 as u16,
    ffi::SSL_SIGN_ECDSA_SECP384R1_SHA384 as u16,
    ffi::SSL_SIGN_RSA_PSS_RSAE_SHA384 as u16,
    ffi::SSL_SIGN_RSA_PKCS1_SHA384 as u16,
    ffi::SSL_SIGN_ECDSA_SECP521R1_SHA512 as u16,
    ffi::SSL_SIGN_RSA_PSS_RSAE_SHA512 as u16,
    ffi::SSL_SIGN_RSA_PKCS1_SHA512 as u16,
];

pub(super) fn set_tls13_ciphers(builder: &mut SslContextBuilder, names: &str) -> Result<(), ErrorStack> {
    let names = CString::new(names).map_err(|_| ErrorStack::get())?;
    // SAFETY: the context is alive, and the library copies what it keeps of the text.
    match unsafe { ffi::SSL_CTX_set_ciphersuites(builder.as_ptr(), names.as_ptr()) } {
        1 => Ok(()),
        _ => Err(ErrorStack::get()),
    }
}

pub(super) fn set_tickets(builder: &mut SslContextBuilder, count: usize) {
    // SAFETY: the context is alive; the number is all it takes.
    let set = unsafe { ffi::SSL_CTX_set_num_tickets(builder.as_ptr(), count) };
    debug_assert_eq!(set, 1);
}

pub(super) fn set_session_lifetime(builder: &mut SslContextBuilder, seconds: u32) {
    // SAFETY: the context is alive; the number is all they take. TLS 1.2 has the first, TLS 1.3 the second.
    unsafe {
        ffi::SSL_CTX_set_timeout(builder.as_ptr(), seconds);
        ffi::SSL_CTX_set_session_psk_dhe_timeout(builder.as_ptr(), seconds);
    }
}

pub(super) fn seal_tickets(builder: &mut SslContextBuilder, keys: Arc<TicketKeys>) -> Result<(), ErrorStack> {
    builder.set_ex_data(super::keys_index()?, keys);
    // SAFETY: the context is alive; the table of functions is static.
    unsafe { ffi::SSL_CTX_set_ticket_aead_method(builder.as_ptr(), &raw const TICKETS) };
    Ok(())
}

/// Names an error of the library by its reason code.
pub(super) fn failure(reason: c_int, ssl: &SslRef) -> Option<HandshakeFailure> {
    Some(match reason {
        // Too large before anything was agreed on: no TLS at all.
        ffi::SSL_R_EXCESSIVE_MESSAGE_SIZE if !has_cipher(ssl) => return None,
        // Looked at before our verdict is asked for: a CA's certificate, say, that may sign certificates only.
        ffi::SSL_R_KEY_USAGE_BIT_INCORRECT => HandshakeFailure::WrongUsage,
        // Too short to be encrypted: the alert of an OpenSSL client that does not believe us, which it sends in the clear.
        ffi::SSL_R_BAD_PACKET_LENGTH if ssl.version_str() == "TLSv1.3" => HandshakeFailure::ClientAlert,
        ffi::SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE => HandshakeFailure::NoCertificate,
        ffi::SSL_R_NO_SHARED_CIPHER => HandshakeFailure::NoSharedCipher,
        ffi::SSL_R_NO_SHARED_GROUP => HandshakeFailure::NoSharedGroup,
        ffi::SSL_R_EXCESSIVE_MESSAGE_SIZE => HandshakeFailure::ChainTooLong,
        ffi::SSL_R_HTTP_REQUEST | ffi::SSL_R_HTTPS_PROXY_REQUEST => HandshakeFailure::PlainHttp,
        ffi::SSL_R_UNSUPPORTED_PROTOCOL | ffi::SSL_R_UNKNOWN_PROTOCOL => HandshakeFailure::NoSharedVersion,
        // A verdict is looked for first: the check itself did not run.
        ffi::SSL_R_CERTIFICATE_VERIFY_FAILED => HandshakeFailure::Internal,
        _ => return None,
    })
}

fn has_cipher(ssl: &SslRef) -> bool {
    // SAFETY: the connection is alive.
    unsafe { !ffi::SSL_get_pending_cipher(ssl.as_ptr()).is_null() }
}

/// What must be off, beyond what is off in every library. It has no compression at all.
pub(super) const OFF: SslOptions = SslOptions::empty();

pub(super) fn is_established(ssl: &SslRef) -> bool {
    // SAFETY: the connection is alive.
    unsafe { ffi::SSL_in_init(ssl.as_ptr()) == 0 }
}

/// `ERR_LIB_SSL` of `openssl/err.h`.
pub(super) const LIBRARY_SSL: c_int = ffi::ERR_LIB_SSL;

/// Replaces the library's own verification.
unsafe extern "C" fn judge_chain(ssl: *mut ffi::SSL, alert: *mut u8) -> ffi::ssl_verify_result_t {
    let judged = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the library hands us a live connection.
        let ssl = unsafe { SslRef::from_ptr(ssl) };
        let check = super::check(ssl)?;
        let verdict = check.trust()?.verify(&presented(ssl), now());
        let reason = verdict.as_ref().err().map(|rejection| rejection.reason);
        check.shown(verdict, Kept);
        Some(reason)
    }));
    // A panic or a connection without a check is refused like an unknown certificate.
    match judged.ok().flatten() {
        Some(None) => ffi::ssl_verify_result_t_ssl_verify_ok,
        refused => {
            // SAFETY: the library hands us a place for one byte.
            unsafe { *alert = alert_for(refused.flatten()) };
            ffi::ssl_verify_result_t_ssl_verify_invalid
        }
    }
}

/// The chain of the handshake or of the session, leaf first; empty where the client presented none.
fn presented(ssl: &SslRef) -> Vec<&[u8]> {
    // SAFETY: the stack and the buffers in it belong to the connection's session. They live as long as the borrow,
    // because only the library's own handshake code, which needs the connection exclusively, could replace it.
    unsafe {
        let stack = ffi::SSL_get0_peer_certificates(ssl.as_ptr());
        if stack.is_null() {
            return Vec::new();
        }
        let stack = stack.cast();
        let buffers = (0..ffi::OPENSSL_sk_num(stack)).map(|index| ffi::OPENSSL_sk_value(stack, index).cast());
        let bytes = |buffer| {
            std::slice::from_raw_parts(ffi::CRYPTO_BUFFER_data(buffer), ffi::CRYPTO_BUFFER_len(buffer))
        };
        buffers.map(|buffer: *mut ffi::CRYPTO_BUFFER| bytes(buffer.cast_const())).collect()
    }
}

/// What the client is told (RFC 8446, section 6.2); the same alerts that OpenSSL sends.
fn alert_for(reason: Option<RejectionReason>) -> u8 {
    let alert = match reason {
        Some(
            RejectionReason::UnknownIssuer
            | RejectionReason::RevocationUnknown
            | RejectionReason::ChainTooLong
            | RejectionReason::ChainTooLarge,
        ) => ffi::SSL_AD_UNKNOWN_CA,
        Some(RejectionReason::BadSignature) => ffi::SSL_AD_DECRYPT_ERROR,
        Some(RejectionReason::Expired) => ffi::SSL_AD_CERTIFICATE_EXPIRED,
        Some(RejectionReason::NotYetValid | RejectionReason::Malformed) => ffi::SSL_AD_BAD_CERTIFICATE,
        Some(RejectionReason::Revoked | RejectionReason::Denied) => ffi::SSL_AD_CERTIFICATE_REVOKED,
        Some(RejectionReason::WrongUsage | RejectionReason::LeafIsCa) => ffi::SSL_AD_UNSUPPORTED_CERTIFICATE,
        _ => ffi::SSL_AD_HANDSHAKE_FAILURE,
    };
    alert as u8
}

static TICKETS: ffi::ssl_ticket_aead_method_st = ffi::ssl_ticket_aead_method_st {
    max_overhead: Some(ticket_overhead),
    seal: Some(seal_ticket),
    open: Some(open_ticket),
};

unsafe extern "C" fn ticket_overhead(_: *mut ffi::SSL) -> usize {
    sealed::OVERHEAD
}

/// Called when a ticket is about to be handed out, with the session in the library's encoding.
unsafe extern "C" fn seal_ticket(
    ssl: *mut ffi::SSL,
    out: *mut u8,
    out_len: *mut usize,
    max_out_len: usize,
    session: *const u8,
    session_len: usize,
) -> c_int {
    let sealed = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the library hands us a live connection, and vouches for the bytes of the session.
        let (ssl, bytes) =
            unsafe { (SslRef::from_ptr(ssl), std::slice::from_raw_parts(session, session_len)) };
        let chain = Position::of_all(&presented(ssl), bytes);
        let after = max_out_len.checked_sub(sealed::START + session_len)?;
        // SAFETY: `out` has room for `max_out_len` bytes, which are all written to. It may be the same place as `session`,
        // of which no borrow is used any more.
        let buffer = unsafe {
            std::ptr::copy(session, out.add(sealed::START), session_len);
            out.write_bytes(0, sealed::START);
            out.add(sealed::START + session_len).write_bytes(0, after);
            std::slice::from_raw_parts_mut(out, max_out_len)
        };
        let keys = super::keys(ssl)?.load();
        let Some(key) = keys.sealing() else {
            // A reload took the tickets away during the handshake, which must not fail for that.
            return Some(sealed::START);
        };
        super::check(ssl)?.ticket(ssl.session_reused(), server_name(ssl), |data, _| {
            sealed::seal(key, buffer, session_len, chain.as_deref(), data)
        })
    }));
    let Some(len) = sealed.ok().flatten() else { return 0 };
    // SAFETY: the library hands us a place for the length.
    unsafe { *out_len = len };
    1
}

/// Called when a ticket is offered: it is honoured only if a full handshake would succeed now.
unsafe extern "C" fn open_ticket(
    ssl: *mut ffi::SSL,
    out: *mut u8,
    out_len: *mut usize,
    max_out_len: usize,
    ticket: *const u8,
    ticket_len: usize,
) -> ffi::ssl_ticket_aead_result_t {
    let opened = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the library hands us a live connection, and vouches for the bytes of the ticket.
        let (ssl, bytes) = unsafe { (SslRef::from_ptr(ssl), std::slice::from_raw_parts(ticket, ticket_len)) };
        let check = super::check(ssl)?;
        let Some((head, sealed)) = Head::split(bytes).filter(|(_, sealed)| sealed.len() <= max_out_len)
        else {
            check.declined(Some(Declined::Malformed));
            return None;
        };
        let sealed_len = sealed.len();
        // SAFETY: `out` has room for as many bytes, which are all written to. It may be the same place as `ticket`, of
        // which no borrow is used any more.
        let buffer = unsafe {
            std::ptr::copy(sealed.as_ptr(), out, sealed_len);
            std::slice::from_raw_parts_mut(out, sealed_len)
        };
        let keys = super::keys(ssl)?.load();
        let opened = head.open(&keys, buffer).inspect_err(|cause| check.declined(Some(*cause))).ok()?;
        check.resume(&opened.data, &opened.chain, server_name(ssl), Kept).ok()?;
        // It stands at the beginning of the buffer.
        Some(opened.session.len())
    }));
    let Some(len) = opened.ok().flatten() else {
        // An ordinary full handshake.
        return ffi::ssl_ticket_aead_result_t_ssl_ticket_aead_ignore_ticket;
    };
    // SAFETY: the library hands us a place for the length.
    unsafe { *out_len = len };
    ffi::ssl_ticket_aead_result_t_ssl_ticket_aead_success
}

/// Empty where the client named none.
fn server_name(ssl: &SslRef) -> &[u8] {
    ssl.servername_raw(NameType::HOST_NAME).unwrap_or_default()
}
