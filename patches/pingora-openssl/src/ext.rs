//! Calls Pingora makes that the `openssl` crate has no safe form of.
//!
//! What differs between the two libraries is confined to [`sys`]; all else is
//! common to both.

use foreign_types::ForeignTypeRef;
use libc::{c_char, c_int, c_long, c_void};
use openssl::error::ErrorStack;
use openssl::pkey::{HasPrivate, PKeyRef};
use openssl::ssl::{Error as SslError, Ssl, SslAcceptor, SslRef};
use openssl::x509::store::X509StoreRef;
use openssl::x509::verify::X509VerifyParamRef;
use openssl::x509::X509Ref;
use std::ffi::CString;
use std::ptr;

/// AWS-LC: all of these are functions, and `openssl-sys` re-exports their
/// generated bindings. They must not be declared by hand, since libcrypto's
/// symbols carry a prefix with the library's version.
#[cfg(awslc)]
mod sys {
    pub use openssl_sys::{
        SSL_add1_chain_cert, SSL_set1_groups_list, SSL_set1_verify_cert_store, SSL_set_cert_cb,
        SSL_use_PrivateKey, SSL_use_certificate, X509_VERIFY_PARAM_add1_host,
    };
}

/// OpenSSL: some of these are macros over `SSL_ctrl`, and `openssl-sys` leaves
/// some functions out.
#[cfg(not(awslc))]
mod sys {
    use libc::{c_char, c_int, c_long, c_void, size_t};
    use openssl_sys::{SSL_ctrl, SSL, X509, X509_STORE, X509_VERIFY_PARAM};
    pub use openssl_sys::{SSL_use_PrivateKey, SSL_use_certificate};

    // As defined in <openssl/ssl.h>.
    const CTRL_CHAIN_CERT: c_int = 89;
    const CTRL_SET_GROUPS_LIST: c_int = 92;
    const CTRL_SET_VERIFY_CERT_STORE: c_int = 106;

    /// In the control calls that take an object: "add a reference of your own"
    /// (the `set1` and `add1` forms).
    const TAKE_A_REFERENCE: c_long = 1;

    pub type CertCb = unsafe extern "C" fn(ssl: *mut SSL, arg: *mut c_void) -> c_int;

    extern "C" {
        pub fn SSL_set_cert_cb(ssl: *mut SSL, cb: Option<CertCb>, arg: *mut c_void);
        pub fn X509_VERIFY_PARAM_add1_host(
            param: *mut X509_VERIFY_PARAM,
            name: *const c_char,
            name_len: size_t,
        ) -> c_int;
    }

    #[allow(non_snake_case)]
    pub unsafe fn SSL_set1_groups_list(ssl: *mut SSL, list: *const c_char) -> c_long {
        // SAFETY: the caller passes a live `SSL` and a NUL-terminated string,
        // which the call only reads.
        unsafe { SSL_ctrl(ssl, CTRL_SET_GROUPS_LIST, 0, list as *mut c_void) }
    }

    #[allow(non_snake_case)]
    pub unsafe fn SSL_set1_verify_cert_store(ssl: *mut SSL, store: *mut X509_STORE) -> c_long {
        // SAFETY: the caller passes live objects; the call adds a reference.
        unsafe { SSL_ctrl(ssl, CTRL_SET_VERIFY_CERT_STORE, TAKE_A_REFERENCE, store.cast()) }
    }

    #[allow(non_snake_case)]
    pub unsafe fn SSL_add1_chain_cert(ssl: *mut SSL, cert: *mut X509) -> c_long {
        // SAFETY: the caller passes live objects; the call adds a reference.
        unsafe { SSL_ctrl(ssl, CTRL_CHAIN_CERT, TAKE_A_REFERENCE, cert.cast()) }
    }
}

/// One means success in every call used here; the library's error queue tells
/// the rest.
fn succeeded(outcome: impl Into<c_long>) -> Result<(), ErrorStack> {
    match outcome.into() {
        1 => Ok(()),
        _ => Err(ErrorStack::get()),
    }
}

/// Adds a name to those of which the peer's certificate must carry one.
///
/// An empty name adds nothing.
pub fn add_host(verify_param: &mut X509VerifyParamRef, host: &str) -> Result<(), ErrorStack> {
    if host.is_empty() {
        return Ok(());
    }
    // SAFETY: the pointer comes from a live exclusive reference; the name is
    // copied, and its length goes along, so it needs no NUL at its end.
    succeeded(unsafe {
        sys::X509_VERIFY_PARAM_add1_host(verify_param.as_ptr(), host.as_ptr().cast::<c_char>(), host.len())
    })
}

/// Replaces, for this connection alone, the store the peer is verified against.
pub fn ssl_set_verify_cert_store(ssl: &mut SslRef, cert_store: &X509StoreRef) -> Result<(), ErrorStack> {
    // SAFETY: both pointers come from live references; `ssl` takes a reference
    // of its own to the store.
    succeeded(unsafe { sys::SSL_set1_verify_cert_store(ssl.as_ptr(), cert_store.as_ptr()) })
}

/// Sets the leaf certificate this connection presents.
pub fn ssl_use_certificate(ssl: &mut SslRef, cert: &X509Ref) -> Result<(), ErrorStack> {
    // SAFETY: both pointers come from live references; `ssl` takes a reference
    // of its own to the certificate.
    succeeded(unsafe { sys::SSL_use_certificate(ssl.as_ptr(), cert.as_ptr()) })
}

/// Sets the private key that belongs to the leaf certificate.
pub fn ssl_use_private_key<T>(ssl: &mut SslRef, key: &PKeyRef<T>) -> Result<(), ErrorStack>
where
    T: HasPrivate,
{
    // SAFETY: both pointers come from live references; `ssl` takes a reference
    // of its own to the key.
    succeeded(unsafe { sys::SSL_use_PrivateKey(ssl.as_ptr(), key.as_ptr()) })
}

/// Appends an intermediate certificate to the chain this connection presents.
pub fn ssl_add_chain_cert(ssl: &mut SslRef, cert: &X509Ref) -> Result<(), ErrorStack> {
    // SAFETY: both pointers come from live references; `ssl` takes a reference
    // of its own to the certificate.
    succeeded(unsafe { sys::SSL_add1_chain_cert(ssl.as_ptr(), cert.as_ptr()) })
}

/// Lets a TLS 1.2 server renegotiate as often as it likes.
///
/// OpenSSL allows it without being asked; AWS-LC refuses it unless told, and
/// even then insists that the server keeps its certificate.
pub fn ssl_set_renegotiate_mode_freely(ssl: &mut SslRef) {
    #[cfg(awslc)]
    // SAFETY: a live exclusive reference, and a mode the library defines.
    unsafe {
        openssl_sys::SSL_set_renegotiate_mode(
            ssl.as_ptr(),
            openssl_sys::ssl_renegotiate_mode_t_ssl_renegotiate_freely,
        );
    }
    #[cfg(not(awslc))]
    let _ = ssl;
}

/// Sets the key exchange groups of this connection, by name, most wanted first,
/// separated by colons.
pub fn ssl_set_groups_list(ssl: &mut SslRef, groups: &str) -> Result<(), ErrorStack> {
    let Ok(groups) = CString::new(groups) else {
        return Err(ErrorStack::get()); // a NUL inside
    };
    // SAFETY: a live exclusive reference and a NUL-terminated string, which is
    // only read during the call.
    succeeded(unsafe { sys::SSL_set1_groups_list(ssl.as_ptr(), groups.as_ptr()) })
}

/// Would tell whether a client sends a classical key share beside a
/// post-quantum one. Neither library has such a switch, so it does nothing.
pub fn ssl_use_second_key_share(_ssl: &mut SslRef, _enabled: bool) {}

/// Empties this thread's queue of library errors, so that none left behind is
/// taken for the outcome of the next call.
pub fn clear_error_stack() {
    drop(ErrorStack::get());
}

/// Derives keying material from the connection (RFC 5705, RFC 8446 section 7.5).
pub fn ssl_export_keying_material(
    ssl: &SslRef,
    out: &mut [u8],
    label: &str,
    context: Option<&[u8]>,
) -> Result<(), ErrorStack> {
    ssl.export_keying_material(out, label, context)
}

/// Makes a connection object with an acceptor's settings.
pub fn ssl_from_acceptor(acceptor: &SslAcceptor) -> Result<Ssl, ErrorStack> {
    Ssl::new(acceptor.context())
}

/// Makes the handshake stop where a certificate is to be chosen, with an error
/// that [`is_suspended_for_cert`] recognises.
///
/// Call [`unblock_ssl_cert`] before taking the handshake up again.
pub fn suspend_when_need_ssl_cert(ssl: &mut SslRef) {
    // SAFETY: a live exclusive reference; the callback uses neither argument.
    unsafe { sys::SSL_set_cert_cb(ssl.as_ptr(), Some(stop_for_cert), ptr::null_mut()) }
}

/// Undoes [`suspend_when_need_ssl_cert`].
pub fn unblock_ssl_cert(ssl: &mut SslRef) {
    // SAFETY: a live exclusive reference; no callback is left set.
    unsafe { sys::SSL_set_cert_cb(ssl.as_ptr(), None, ptr::null_mut()) }
}

/// A negative answer means "not yet" to both libraries.
unsafe extern "C" fn stop_for_cert(_ssl: *mut openssl_sys::SSL, _arg: *mut c_void) -> c_int {
    -1
}

/// Whether a handshake error only says that it waits for a certificate.
pub fn is_suspended_for_cert(error: &SslError) -> bool {
    error.code().as_raw() == openssl_sys::SSL_ERROR_WANT_X509_LOOKUP
}

/// Turns a shared reference into an exclusive one, which streams do not hand
/// out even when they are exclusively held.
///
/// # Safety
///
/// The caller must hold the stream (or whatever owns the `Ssl`) exclusively for
/// as long as the result lives.
#[allow(clippy::mut_from_ref)]
pub unsafe fn ssl_mut(ssl: &SslRef) -> &mut SslRef {
    // SAFETY: the pointer is that of a live `Ssl`; the caller vouches for
    // exclusiveness.
    unsafe { SslRef::from_ptr_mut(ssl.as_ptr()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openssl::ssl::{SslContext, SslMethod};
    use openssl::x509::store::X509StoreBuilder;

    fn new_ssl() -> Ssl {
        let context = SslContext::builder(SslMethod::tls()).unwrap().build();
        Ssl::new(&context).unwrap()
    }

    #[test]
    fn groups_by_name() {
        let mut ssl = new_ssl();
        assert!(ssl_set_groups_list(&mut ssl, "X25519:P-256:P-384").is_ok());
        assert!(ssl_set_groups_list(&mut ssl, "P-256\0P-384").is_err());
        assert!(ssl_set_groups_list(&mut ssl, "no-such-group").is_err());
    }

    #[cfg(awslc)]
    #[test]
    fn post_quantum_group_by_name() {
        assert!(ssl_set_groups_list(&mut new_ssl(), "X25519MLKEM768:X25519").is_ok());
    }

    #[test]
    fn a_store_may_go_before_the_connection() {
        let mut ssl = new_ssl();
        let store = X509StoreBuilder::new().unwrap().build();
        ssl_set_verify_cert_store(&mut ssl, &store).unwrap();
        drop(store);
        let another = X509StoreBuilder::new().unwrap().build();
        ssl_set_verify_cert_store(&mut ssl, &another).unwrap();
    }

    #[test]
    fn several_host_names() {
        let mut ssl = new_ssl();
        let param = ssl.param_mut();
        assert!(add_host(param, "").is_ok());
        assert!(add_host(param, "a.example").is_ok());
        assert!(add_host(param, "b.example").is_ok());
        assert!(add_host(param, "nul\0.example").is_err());
    }

    #[test]
    fn no_keying_material_before_the_handshake() {
        let mut out = [0; 32];
        assert!(ssl_export_keying_material(&new_ssl(), &mut out, "label", None).is_err());
    }
}
