//! What seals a ticket in OpenSSL's own construction (RFC 5077, section 4): AES-256-CBC under a random IV, and then
//! HMAC-SHA-256 over all of it. Neither wears out by how many tickets there are.

use std::ffi::c_int;

use openssl::error::ErrorStack;
use openssl_sys as ffi;
use zeroize::Zeroizing;

/// `EVP_MAX_IV_LENGTH` of `evp.h`: the room for the IV in a ticket, all of which AES-CBC takes.
pub(super) const IV: usize = 16;

/// Wiped when it is dropped.
pub(in crate::tls) struct TicketCipher(Zeroizing<[u8; 64]>);

/// What a context is made ready for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Seal,
    Open,
}

impl TicketCipher {
    pub(in crate::tls) fn new(secret: &[u8; 64]) -> Result<Self, ErrorStack> {
        Ok(Self(Zeroizing::new(*secret)))
    }

    /// Makes the library's contexts ready for one ticket; `None` where it refuses.
    ///
    /// SAFETY: both contexts must be alive.
    pub(super) unsafe fn prepare(
        &self,
        direction: Direction,
        iv: &[u8; IV],
        cipher: *mut ffi::EVP_CIPHER_CTX,
        mac: *mut ffi::EVP_MAC_CTX,
    ) -> Option<()> {
        let (mac_key, key) = self.0.split_at(32);
        let mut name = *b"SHA256\0";
        // SAFETY: the contexts are alive; the library copies keys, IV and name during the calls, and writes to none.
        let ready: [c_int; 2] = unsafe {
            let digest = OSSL_PARAM_construct_utf8_string(c"digest".as_ptr(), name.as_mut_ptr().cast(), 0);
            let parameters = [digest, ffi::OSSL_PARAM_construct_end()];
            [
                ffi::EVP_MAC_init(mac, mac_key.as_ptr(), mac_key.len(), parameters.as_ptr()),
                ffi::EVP_CipherInit_ex(
                    cipher,
                    ffi::EVP_aes_256_cbc(),
                    std::ptr::null_mut(),
                    key.as_ptr(),
                    iv.as_ptr(),
                    c_int::from(direction == Direction::Seal),
                ),
            ]
        };
        (ready == [1, 1]).then_some(())
    }
}

unsafe extern "C" {
    fn OSSL_PARAM_construct_utf8_string(
        key: *const std::ffi::c_char,
        text: *mut std::ffi::c_char,
        size: usize,
    ) -> ffi::OSSL_PARAM;
}
