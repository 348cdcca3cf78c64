//! The keys that seal a listener's session tickets, as its configuration wants them.

use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use zeroize::Zeroizing;

use crate::UnixTime;
use crate::config::{Problem, TicketKeySource, TlsConfig};
use crate::telemetry::ListenerMetrics;
use crate::tls::{KeyRing, KeySchedule, TicketKeys};

/// More than any key file holds.
const LARGEST_FILE: u64 = 64 * 1024;

/// Of one listener.
#[derive(Clone)]
pub struct ListenerTickets {
    /// The same under each configuration.
    keys: Arc<TicketKeys>,
    /// `None`: they come from a file, or there are none.
    schedule: Option<KeySchedule>,
    /// What they become when this configuration takes effect, once: kept no longer, or a key that was given up would still
    /// lie in the memory of whoever holds an old configuration.
    next: Arc<Mutex<Option<KeyRing>>>,
}

impl ListenerTickets {
    /// `at` is where `tls` stands in the configuration. Changes nothing yet.
    pub(super) fn load(tls: &TlsConfig, at: &str, previous: Option<&Self>) -> Result<Self, Problem> {
        let keys = previous.map_or_else(|| Arc::new(TicketKeys::new(KeyRing::empty())), |p| p.keys.clone());
        let (next, schedule) = match &tls.ticket_keys {
            _ if !tls.session_tickets => (Some(KeyRing::empty()), None),
            TicketKeySource::Generated { rotate } => {
                // A reload leaves them as they are, or every client would have to make a full handshake.
                let missing = (!keys.current().is_generated()).then(|| KeyRing::generate(Instant::now()));
                let random =
                    |error| problem(at, format!("the TLS library makes no key: {error}"), None, None);
                let schedule = KeySchedule { rotate: *rotate, lifetime: tls.ticket_lifetime };
                (missing.transpose().map_err(random)?, Some(schedule))
            }
            TicketKeySource::File(path) => (Some(read(path, &format!("{at}.ticket_keys.file"))?), None),
        };
        Ok(Self { keys, schedule, next: Arc::new(Mutex::new(next)) })
    }

    pub fn keys(&self) -> &Arc<TicketKeys> {
        &self.keys
    }

    /// Its configuration is in force from now on.
    pub(super) fn take_effect(&self, listener: &str, metrics: &ListenerMetrics) {
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(next) = next {
            if !next.has_keys_of(&self.keys.current()) {
                log::info!(
                    "listener `{listener}`: {} ticket keys, {} seals",
                    next.len(),
                    if next.is_empty() { "none".to_owned() } else { format!("`{}…`", next.sealing_name()) }
                );
            }
            self.keys.replace(next);
        }
        self.show(metrics);
    }

    /// Makes a new key and gives old ones up, if it is time; when it will be.
    pub(super) fn rotate(&self, now: Instant, listener: &str, metrics: &ListenerMetrics) -> Option<Instant> {
        let schedule = self.schedule?;
        match self.keys.rotate(schedule, now) {
            Ok(true) => self.show(metrics),
            Ok(false) => {}
            Err(error) => log::error!("listener `{listener}`: the ticket key could not be replaced: {error}"),
        }
        self.keys.current().due(schedule)
    }

    fn show(&self, metrics: &ListenerMetrics) {
        let ring = self.keys.current();
        metrics.set_ticket_keys(ring.len(), ring.made_at());
    }
}

/// Whoever has a key can make a ticket for every client: a file that others may read is no secret, and is not used.
fn read(path: &Path, at: &str) -> Result<KeyRing, Problem> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| {
        let hint = "`openssl rand -hex 80` prints a key; all nodes need the same file";
        problem(at, format!("`{shown}` cannot be read: {error}"), None, Some(hint))
    };
    // Not to wait for a writer, should it be a pipe.
    let file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let mut file = file.map_err(unreadable)?;
    let found = file.metadata().map_err(unreadable)?;
    if !found.is_file() || found.len() > LARGEST_FILE {
        let expected = "a file of one key a line, each as `openssl rand -hex 80` prints it";
        return Err(problem(at, format!("`{shown}` is no key file"), Some(expected), None));
    }
    let fault = match found.mode() {
        mode if mode & 0o007 != 0 => "everybody may read or change",
        mode if mode & 0o020 != 0 => "its group may change",
        _ => "",
    };
    if !fault.is_empty() {
        let hint =
            "`chmod 640`, or `defaultMode: 0440` of a Kubernetes volume: whoever has a key can be any client";
        return Err(problem(at, format!("`{shown}` is a file that {fault}"), None, Some(hint)));
    }
    let mut text = Zeroizing::new(Vec::with_capacity(found.len() as usize + 1));
    file.by_ref().take(LARGEST_FILE).read_to_end(&mut text).map_err(unreadable)?;
    KeyRing::from_file(&text, found.mtime() as UnixTime).map_err(|error| {
        let expected = "one key a line, each as `openssl rand -hex 80` prints it; the first one seals";
        problem(at, format!("`{shown}` cannot be used: {error}"), Some(expected), None)
    })
}

fn problem(at: &str, found: String, expected: Option<&str>, hint: Option<&str>) -> Problem {
    Problem { at: at.into(), found, expected: expected.map(str::to_owned), hint: hint.map(str::to_owned) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Config;
    use crate::telemetry::Metrics;

    fn tls(ticket_keys: &str) -> TlsConfig {
        let yaml = format!(
            "version: 1\nlisteners: [{{ address: \"127.0.0.1:1\", tls: {{ certificates: [{{ chain: a, key: a }}], \
             ticket_keys: {ticket_keys} }}, client_auth: {{ mode: off }} }}]\n\
             pools: {{ p: {{ endpoints: [\"127.0.0.1:1\"] }} }}\nroutes: [{{ client: anyone, pool: p }}]\n"
        );
        Config::parse(Path::new("x.yaml"), &yaml).unwrap().listeners.remove(0).tls
    }

    #[test]
    fn keys_are_put_in_place_once_and_stay_as_they_were_rotated_since() {
        let metrics = Metrics::new().listener("edge");
        let tls = tls("{ rotate: 1h }");
        let first = ListenerTickets::load(&tls, "at", None).unwrap();
        assert!(first.keys.current().is_empty());
        first.take_effect("edge", &metrics);
        let name = || first.keys.current().sealing_name();
        let made_first = name();
        first.rotate(Instant::now() + Duration::from_secs(3601), "edge", &metrics);
        let rotated = name();
        assert_ne!(made_first, rotated);
        // What a change of lists makes of the configuration, and what a reload does.
        first.clone().take_effect("edge", &metrics);
        let reloaded = ListenerTickets::load(&tls, "at", Some(&first)).unwrap();
        reloaded.take_effect("edge", &metrics);
        assert_eq!(name(), rotated);
        assert!(Arc::ptr_eq(first.keys(), reloaded.keys()));
        // Without tickets there is nothing left to open one with.
        let off =
            ListenerTickets::load(&TlsConfig { session_tickets: false, ..tls }, "at", Some(&first)).unwrap();
        assert_eq!(name(), rotated);
        off.take_effect("edge", &metrics);
        assert!(first.keys.current().is_empty());
    }
}
