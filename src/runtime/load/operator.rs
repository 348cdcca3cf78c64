//! What operators need: the token of the admin endpoints.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::Loader;
use crate::admin::Token;

impl Loader<'_> {
    pub(super) fn admin_token(&mut self, file: &Path) -> Option<Arc<Token>> {
        let at = "admin.token_file";
        let bytes = Zeroizing::new(self.read(at, file)?);
        // A group may read it: that is how systemd passes what it was given with `LoadCredential=`.
        let mode = std::fs::metadata(file).map_or(0, |metadata| metadata.permissions().mode());
        if mode & 0o027 != 0 {
            let found =
                format!("`{}` has mode {:03o}: others may know the token", file.display(), mode & 0o777);
            self.problem(at, found, Some("a file that its owner only can read"), Some("chmod 600"));
        }
        let expected = format!("{} visible characters or more", Token::SHORTEST);
        match Token::parse(&bytes) {
            Ok(token) => Some(Arc::new(token)),
            Err(error) => {
                let found = format!("`{}`: {error}", file.display());
                self.problem(at, found, Some(&expected), Some("`openssl rand -hex 32` makes one"));
                None
            }
        }
    }
}
