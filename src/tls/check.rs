//! Whom one connection may trust, and what became of its client: of the chain it showed, or of the ticket it offered.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::library::Kept;
use super::now;
use super::terms::{Digest, SessionTerms};
use super::ticket::TicketData;
use crate::UnixTime;
use crate::telemetry::Declined;
use crate::trust::{ClientIdentity, Rejection, TrustSet};

/// What a chain was judged to be.
pub type Verdict = Result<Arc<ClientIdentity>, Rejection>;

/// Rides on each `Ssl`.
pub struct ClientCheck {
    /// `None`: clients are asked for no certificate.
    trust: Option<Arc<TrustSet>>,
    terms: SessionTerms,
    progress: Mutex<Progress>,
}

/// How far a handshake came. Of several tickets that a client offers, only the one looked at last can be the one that
/// is resumed: what an earlier one said is forgotten, or one client could bring another one's ticket along and be taken
/// for it.
#[derive(Default)]
struct Progress {
    /// The chain shown in this handshake.
    full: Option<Verdict>,
    /// The client of the TLS session that was offered, judged anew.
    resumed: Option<Arc<ClientIdentity>>,
    /// Why it was not taken up.
    declined: Option<Declined>,
    /// When the full handshake took place from which the session descends.
    began: Option<UnixTime>,
    /// What the library's sessions do not keep of the chain.
    kept: Kept,
}

impl ClientCheck {
    pub fn new(trust: Option<Arc<TrustSet>>, terms: SessionTerms) -> Self {
        Self { trust, terms, progress: Mutex::default() }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        // Each change is one assignment: a panic elsewhere leaves nothing half-done.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` where no certificate is asked for.
    pub(super) fn trust(&self) -> Option<&TrustSet> {
        self.trust.as_deref()
    }

    /// The client presented its chain.
    pub(super) fn shown(&self, verdict: Verdict, kept: Kept) {
        let mut progress = self.progress();
        *progress =
            Progress { full: Some(verdict), kept, declined: progress.declined, ..Progress::default() };
    }

    /// The client offered a ticket that is not taken up; `None`: it offered an empty one.
    pub(super) fn declined(&self, cause: Option<Declined>) {
        *self.progress() = Progress { declined: cause, ..Progress::default() };
    }

    /// Takes a session up again, if it would be admitted by a full handshake now. `chain` is that of its client, leaf
    /// first, empty for one that had shown none.
    pub(super) fn resume(
        &self,
        ticket: &TicketData<'_>,
        chain: &[&[u8]],
        server_name: &[u8],
        kept: Kept,
    ) -> Result<(), Declined> {
        let judged = self.judge(ticket, chain, server_name, now());
        *self.progress() = match &judged {
            Ok(client) => {
                Progress { resumed: client.clone(), began: Some(ticket.began), kept, ..Progress::default() }
            }
            Err(cause) => Progress { declined: Some(*cause), ..Progress::default() },
        };
        judged.map(|_| ())
    }

    fn judge(
        &self,
        ticket: &TicketData<'_>,
        chain: &[&[u8]],
        server_name: &[u8],
        now: UnixTime,
    ) -> Result<Option<Arc<ClientIdentity>>, Declined> {
        if ticket.policy != self.terms.policy() {
            return Err(Declined::Policy);
        }
        if !ticket.server_name.eq_ignore_ascii_case(server_name) {
            return Err(Declined::ServerName);
        }
        // Also where it lies in the future: a clock was set back, or another node's is ahead.
        let age = now.checked_sub(ticket.began).unwrap_or(-1);
        if !(0..=self.terms.lifetime()).contains(&age) {
            return Err(Declined::TooOld);
        }
        let client = match (&self.trust, chain) {
            (_, []) => None,
            (Some(trust), chain) => {
                let verdict = trust.verify(chain, now);
                Some(verdict.map_err(|rejection| Declined::from(rejection.reason))?)
            }
            // Nobody can judge the client.
            (None, _) => return Err(Declined::Policy),
        };
        // The anchor that vouched may be gone, and another one vouch: then a full handshake says who the client is.
        if ticket.voucher != self.terms.voucher(client.as_deref()) {
            return Err(Declined::TrustRemoved);
        }
        Ok(client)
    }

    /// What the session that this connection is about to hand out must say, and what its chain lacks in it. One that was
    /// resumed began long ago.
    pub(super) fn ticket<T>(
        &self,
        resumed: bool,
        server_name: &[u8],
        make: impl FnOnce(&TicketData<'_>, &Kept) -> T,
    ) -> T {
        let progress = self.progress();
        let (began, client) = if resumed {
            (progress.began.unwrap_or(UnixTime::MIN), progress.resumed.as_ref())
        } else {
            (now(), progress.full.as_ref().and_then(|verdict| verdict.as_ref().ok()))
        };
        let voucher: &Digest = self.terms.voucher(client.map(Arc::as_ref));
        make(&TicketData { began, policy: self.terms.policy(), voucher, server_name }, &progress.kept)
    }

    /// The client of this connection; after a resumption as it was judged *now*.
    pub(super) fn verdict(&self, resumed: bool) -> Option<Verdict> {
        let progress = self.progress();
        if resumed { progress.resumed.clone().map(Ok) } else { progress.full.clone() }
    }

    /// Why its chain was not believed.
    pub(super) fn rejection(&self) -> Option<Rejection> {
        self.progress().full.clone()?.err()
    }

    /// Why a ticket of its was not taken up.
    pub(super) fn why_declined(&self) -> Option<Declined> {
        self.progress().declined
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::trust::mint::{DAY, Minted, NOW, Plan};
    use crate::trust::{TrustDomain, TrustPolicy};

    const HOUR: i64 = 3600;

    fn trust(domain: &str, anchors: &[&Minted]) -> Arc<TrustSet> {
        let anchors = anchors.iter().map(|anchor| anchor.certificate()).collect();
        let domain = TrustDomain::build(domain, anchors, vec![], TrustPolicy::default()).unwrap();
        Arc::new(TrustSet::new(vec![Arc::new(domain)]))
    }

    fn check(trust: Option<Arc<TrustSet>>, policy: &[u8]) -> ClientCheck {
        let anchors = trust.iter().flat_map(|trust| trust.anchors());
        let strangers = anchors.map(|(_, anchor)| anchor.fingerprint.0.as_slice());
        let terms = SessionTerms::new([policy], strangers, Duration::from_secs(HOUR as u64));
        ClientCheck::new(trust, terms)
    }

    #[allow(clippy::default_constructed_unit_structs, reason = "it is one with AWS-LC only")]
    /// What `resuming` makes of a session that began at `began` at `before`, with `chain`.
    fn resume(
        before: &ClientCheck,
        resuming: &ClientCheck,
        chain: &[&[u8]],
        times: (UnixTime, UnixTime),
    ) -> Result<bool, Declined> {
        let (began, now) = times;
        if let (Some(trust), [_, ..]) = (before.trust(), chain) {
            before.shown(trust.verify(chain, began), Kept::default());
        }
        let judged = before.ticket(false, b"a.test", |ticket, _| {
            resuming.judge(&TicketData { began, ..*ticket }, chain, b"A.test", now)
        });
        judged.map(|client| client.is_some())
    }

    #[test]
    fn a_session_is_resumed_only_if_a_full_handshake_would_make_the_same_of_it() {
        let (ca, other_ca) = (Plan::ca("CN=CA").self_signed(), Plan::ca("CN=Other").self_signed());
        let leaf = Plan::leaf("CN=a").signed_by(&ca);
        let der = leaf.x509.to_der().unwrap();
        let chain: &[&[u8]] = &[&der];
        let soon = (NOW, NOW + 5);
        let before = check(Some(trust("fleet", &[&ca])), b"policy");
        let after = |domain: &str, anchors: &[&Minted], policy: &[u8]| {
            resume(&before, &check(Some(trust(domain, anchors)), policy), chain, soon)
        };
        assert_eq!(resume(&before, &before, chain, soon), Ok(true));
        assert_eq!(after("fleet", &[&other_ca, &ca], b"policy"), Ok(true));
        assert_eq!(after("fleet", &[&ca], b"another"), Err(Declined::Policy));
        assert_eq!(after("fleet", &[&other_ca], b"policy"), Err(Declined::TrustRemoved));
        assert_eq!(after("staff", &[&ca], b"policy"), Err(Declined::TrustRemoved));
        let times = |began, now| resume(&before, &before, chain, (began, now));
        assert_eq!(times(NOW, NOW + HOUR), Ok(true));
        assert_eq!(times(NOW, NOW + HOUR + 1), Err(Declined::TooOld));
        assert_eq!(times(NOW + 1, NOW), Err(Declined::TooOld));
        assert_eq!(times(UnixTime::MIN, NOW), Err(Declined::TooOld));
        let expiry = NOW + 365 * DAY;
        assert_eq!(times(expiry - 9, expiry), Ok(true));
        assert_eq!(times(expiry - 9, expiry + 1), Err(Declined::Expired));
        // Where nobody is asked for a certificate, nobody has one.
        assert_eq!(resume(&before, &check(None, b"policy"), chain, soon), Err(Declined::Policy));
    }

    #[test]
    fn a_session_without_a_certificate_ends_when_there_are_others_to_show_one_for() {
        let (ca, other_ca) = (Plan::ca("CN=CA").self_signed(), Plan::ca("CN=Other").self_signed());
        let soon = (NOW, NOW + 5);
        let asks = check(Some(trust("fleet", &[&ca])), b"policy");
        let asks_more = check(Some(trust("fleet", &[&ca, &other_ca])), b"policy");
        let nobody = check(None, b"policy");
        assert_eq!(resume(&asks, &asks, &[], soon), Ok(false));
        assert_eq!(resume(&nobody, &nobody, &[], soon), Ok(false));
        assert_eq!(resume(&asks, &asks_more, &[], soon), Err(Declined::TrustRemoved));
        assert_eq!(resume(&nobody, &asks, &[], soon), Err(Declined::TrustRemoved));
    }

    #[test]
    fn a_session_of_another_server_name_or_of_a_listener_without_tickets_is_not_resumed() {
        let check = check(None, b"policy");
        let judged =
            |name: &[u8]| check.ticket(false, b"a.test", |ticket, _| check.judge(ticket, &[], name, now()));
        assert_eq!(judged(b"a.test"), Ok(None));
        for name in [b"b.test".as_slice(), b"", b"a.test."] {
            assert_eq!(judged(name), Err(Declined::ServerName));
        }
        let none = ClientCheck::new(None, SessionTerms::none());
        let judged = none.ticket(false, b"", |ticket, _| none.judge(ticket, &[], b"", now()));
        assert_eq!(judged, Err(Declined::TooOld));
    }
}
