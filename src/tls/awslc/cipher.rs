//! AES-256-GCM-SIV (RFC 8452), as AWS-LC does it.
//!
//! Not AES-GCM: with nonces made at random that one may seal 2^32 tickets under one key (NIST SP 800-38D, section 8.3),
//! which nodes that share a key reach in days. This one derives a key for each nonce, and a nonce that comes twice tells
//! only whether two tickets are the same, which they never are.

use std::ptr::NonNull;

use openssl::error::ErrorStack;
use openssl_sys as ffi;

pub(super) const NONCE: usize = 12;
pub(super) const TAG: usize = 16;

/// A key with its schedule. The library wipes it when it is freed.
pub(in crate::tls) struct TicketCipher(NonNull<ffi::EVP_AEAD_CTX>);

// SAFETY: sealing and opening take the context as constant and may happen at the same time (`openssl/aead.h`).
unsafe impl Send for TicketCipher {}
// SAFETY: as above.
unsafe impl Sync for TicketCipher {}

impl TicketCipher {
    /// The second half of `secret` is what OpenSSL needs besides.
    pub(in crate::tls) fn new(secret: &[u8; 64]) -> Result<Self, ErrorStack> {
        const KEY: usize = 32;
        // SAFETY: the library reads 32 bytes of the 64, and copies what it keeps.
        let context =
            unsafe { ffi::EVP_AEAD_CTX_new(ffi::EVP_aead_aes_256_gcm_siv(), secret.as_ptr(), KEY, TAG) };
        NonNull::new(context).map(Self).ok_or_else(ErrorStack::get)
    }

    /// Seals the first `len` bytes where they are; the tag follows them.
    pub(super) fn seal(
        &self,
        nonce: &[u8; NONCE],
        name: &[u8],
        buffer: &mut [u8],
        len: usize,
    ) -> Option<usize> {
        let mut sealed = 0;
        let done = len <= buffer.len()
            // SAFETY: `len` bytes are in the buffer; the library writes no more than its length, and may do so in place.
            && unsafe {
                ffi::EVP_AEAD_CTX_seal(
                    self.0.as_ptr(),
                    buffer.as_mut_ptr(),
                    &raw mut sealed,
                    buffer.len(),
                    nonce.as_ptr(),
                    NONCE,
                    buffer.as_ptr(),
                    len,
                    name.as_ptr(),
                    name.len(),
                )
            } == 1;
        done.then_some(sealed)
    }

    /// Opens the buffer where it is; `None` where anything about it is not what was sealed.
    pub(super) fn open<'a>(
        &self,
        nonce: &[u8; NONCE],
        name: &[u8],
        buffer: &'a mut [u8],
    ) -> Option<&'a mut [u8]> {
        let mut len = 0;
        // SAFETY: the library writes no more than the buffer's length, and may do so in place.
        let opened = unsafe {
            ffi::EVP_AEAD_CTX_open(
                self.0.as_ptr(),
                buffer.as_mut_ptr(),
                &raw mut len,
                buffer.len(),
                nonce.as_ptr(),
                NONCE,
                buffer.as_ptr(),
                buffer.len(),
                name.as_ptr(),
                name.len(),
            )
        };
        if opened != 1 {
            // Forged or damaged; the library's note of it is nobody's business but ours.
            let _ = ErrorStack::get();
            return None;
        }
        buffer.get_mut(..len)
    }
}

impl Drop for TicketCipher {
    fn drop(&mut self) {
        // SAFETY: it is ours alone.
        unsafe { ffi::EVP_AEAD_CTX_free(self.0.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8452, appendix C.2: the case of 8 bytes without additional data.
    #[test]
    fn it_is_the_construction_of_the_rfc() {
        let mut secret = [0; 64];
        secret[0] = 1;
        let cipher = TicketCipher::new(&secret).unwrap();
        let mut nonce = [0; NONCE];
        nonce[0] = 3;
        let mut buffer = [0; 24];
        buffer[0] = 1;
        let len = cipher.seal(&nonce, b"", &mut buffer, 8).unwrap();
        assert_eq!(len, 24);
        let expected: [u8; 24] = [
            0xc2, 0xef, 0x32, 0x8e, 0x5c, 0x71, 0xc8, 0x3b, 0x84, 0x31, 0x22, 0x13, 0x0f, 0x73, 0x64, 0xb7,
            0x61, 0xe0, 0xb9, 0x74, 0x27, 0xe3, 0xdf, 0x28,
        ];
        assert_eq!(buffer, expected);
        assert_eq!(cipher.open(&nonce, b"", &mut buffer).unwrap(), [1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(cipher.seal(&nonce, b"", &mut [0; 8], 8), None);
        assert_eq!(cipher.seal(&nonce, b"", &mut [0; 8], 9), None);
    }
}
