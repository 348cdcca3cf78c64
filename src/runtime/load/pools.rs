//! Pools, and whom they believe.

use std::path::Path;
use std::sync::Arc;

use openssl::x509::X509;

use super::Loader;
use crate::config::{PoolConfig, UpstreamVerify};
use crate::upstream::{LoadedUpstreamTls, Pools, UpstreamPool};

impl Loader<'_> {
    pub(super) fn pools(&mut self, pools: &[PoolConfig]) -> Pools {
        let mut built = Pools::default();
        for pool in pools {
            let Some(tls) = self.upstream_tls(pool) else { continue };
            let previous = self.previous.and_then(|runtime| runtime.pools.named(&pool.name));
            let (built_pool, warnings) =
                UpstreamPool::build(pool, tls, previous.map(Arc::as_ref), &self.surroundings.metrics);
            self.warnings.extend(warnings);
            built.add(built_pool);
        }
        built
    }

    fn upstream_tls(&mut self, pool: &PoolConfig) -> Option<LoadedUpstreamTls> {
        let Some(tls) = &pool.tls else { return Some(LoadedUpstreamTls::default()) };
        let at = format!("pools.{}.tls.verify", pool.name);
        let ca = match &tls.verify {
            UpstreamVerify::Off => None,
            UpstreamVerify::Ca(path) => Some(self.authorities(&at, path)?),
        };
        let client = match &tls.client {
            Some(files) => Some(self.key_pair(files)?),
            None => None,
        };
        Some(LoadedUpstreamTls { ca, client })
    }

    /// Whom to believe of those whom the gateway itself connects to.
    pub(super) fn authorities(&mut self, at: &str, file: &Path) -> Option<Vec<X509>> {
        let pem = self.read(at, file)?;
        let ca = X509::stack_from_pem(&pem).unwrap_or_default();
        if ca.is_empty() {
            self.problem(at, format!("`{}` holds no certificate", file.display()), None, None);
            return None;
        }
        Some(ca)
    }
}
