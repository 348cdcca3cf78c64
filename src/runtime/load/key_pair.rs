//! A certificate and its private key.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use openssl::pkey::{PKey, Private};
use openssl::x509::X509;
use zeroize::Zeroizing;

use super::Loader;
use crate::config::CertificateFiles;

impl Loader<'_> {
    pub(super) fn key_pair(&mut self, files: &CertificateFiles) -> Option<(Vec<X509>, PKey<Private>)> {
        let (at_chain, at_key) = (format!("{}.chain", files.at), format!("{}.key", files.at));
        let chain = self.read(&at_chain, &files.chain);
        let key = self.secret(&at_key, &files.key);
        let (chain, key) = (chain?, key?);
        let chain = X509::stack_from_pem(&chain).unwrap_or_default();
        if chain.is_empty() {
            let found = format!("`{}` holds no certificate", files.chain.display());
            self.problem(at_chain, found, Some("PEM blocks of type CERTIFICATE, leaf first"), None);
            return None;
        }
        // An encrypted key must fail, not wait for somebody to type at a terminal.
        let Ok(key) = PKey::private_key_from_pem_callback(&key, |_| Ok(0)) else {
            let found = format!("`{}` holds no private key that can be read", files.key.display());
            self.problem(at_key, found, Some("an unencrypted PEM private key"), None);
            return None;
        };
        if !chain[0].public_key().is_ok_and(|public| public.public_eq(&key)) {
            let found = format!("`{}` is not the key of `{}`", files.key.display(), files.chain.display());
            let hint = Some("the leaf must be the first certificate of the chain file");
            self.problem(at_key, found, None, hint);
            return None;
        }
        Some((chain, key))
    }

    /// What is read is wiped when it is no longer needed. Whoever else may know it is told of; orchestrators that mount
    /// secrets readable by everybody, in a container where there is nobody else, are no reason not to start.
    fn secret(&mut self, at: &str, file: &Path) -> Option<Zeroizing<Vec<u8>>> {
        match read(file) {
            Ok((text, _)) if text.is_empty() => {
                self.problem(at, format!("`{}` is empty", file.display()), None, None);
                None
            }
            Ok((text, mode)) => {
                if let Some(who) = others(mode) {
                    self.warnings.push(format!(
                        "{at}: `{}` is a private key that {who} (hint: chmod 600, or 640 with a group of its own)",
                        file.display()
                    ));
                }
                Some(text)
            }
            Err(error) => {
                self.problem(at, format!("`{}` cannot be read: {error}", file.display()), None, None);
                None
            }
        }
    }
}

fn others(mode: u32) -> Option<&'static str> {
    match mode {
        mode if mode & 0o007 != 0 => Some("everybody on the machine may read or change"),
        mode if mode & 0o020 != 0 => Some("its group may change"),
        _ => None,
    }
}

/// In one piece: a buffer that grows would leave copies behind.
fn read(file: &Path) -> std::io::Result<(Zeroizing<Vec<u8>>, u32)> {
    let mut file = std::fs::File::open(file)?;
    let found = file.metadata()?;
    // A byte more, so that the end is found without another buffer.
    let mut text = Zeroizing::new(Vec::with_capacity(found.len() as usize + 1));
    file.read_to_end(&mut text)?;
    Ok((text, found.mode()))
}
