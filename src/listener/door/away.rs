//! Tells of connections that are turned away, in a few lines however many there are.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::telemetry::{HandshakeFailure, Telemetry, TurnedAwayRecord};

/// The first connection is told of at once, those that follow once in such a time.
const PERIOD: Duration = Duration::from_secs(5);

/// Those of one listener.
pub(super) struct Away {
    telemetry: Arc<Telemetry>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By reason; there are no more than reasons.
    counted: Vec<(HandshakeFailure, Counted)>,
    /// Whether a task waits to tell of them.
    is_told: bool,
}

struct Counted {
    connections: u64,
    peer: Majority,
}

/// The one that makes up more than half, if there is one (Boyer and Moore).
struct Majority {
    candidate: IpAddr,
    lead: u64,
}

impl Majority {
    fn add(&mut self, address: IpAddr) {
        if self.candidate == address {
            self.lead += 1;
        } else if self.lead == 0 {
            *self = Self { candidate: address, lead: 1 };
        } else {
            self.lead -= 1;
        }
    }
}

impl State {
    /// Whether nobody would tell of it.
    fn add(&mut self, reason: HandshakeFailure, peer: IpAddr) -> bool {
        if let Some((_, counted)) = self.counted.iter_mut().find(|(known, _)| *known == reason) {
            counted.connections += 1;
            counted.peer.add(peer);
        } else {
            let peer = Majority { candidate: peer, lead: 1 };
            self.counted.push((reason, Counted { connections: 1, peer }));
        }
        !std::mem::replace(&mut self.is_told, true)
    }

    /// What there is to tell; if that is nothing, nobody waits any more.
    fn take(&mut self) -> Vec<(HandshakeFailure, Counted)> {
        self.is_told = !self.counted.is_empty();
        std::mem::take(&mut self.counted)
    }
}

impl Away {
    pub(super) fn new(telemetry: Arc<Telemetry>) -> Self {
        Self { telemetry, state: Mutex::default() }
    }

    /// One more. Costs as much as it takes to count it.
    pub(super) fn add(self: &Arc<Self>, listener: &Arc<str>, reason: HandshakeFailure, peer: IpAddr) {
        if self.with(|state| state.add(reason, peer)) {
            self.tell(listener, Duration::ZERO);
            tokio::spawn(self.clone().keep_telling(listener.clone()));
        }
    }

    async fn keep_telling(self: Arc<Self>, listener: Arc<str>) {
        loop {
            tokio::time::sleep(PERIOD).await;
            if !self.tell(&listener, PERIOD) {
                return;
            }
        }
    }

    /// Whether there was anything.
    fn tell(&self, listener: &Arc<str>, within: Duration) -> bool {
        let told = self.with(State::take);
        for (reason, counted) in &told {
            self.telemetry.turned_away(TurnedAwayRecord {
                time: SystemTime::now(),
                listener: listener.clone(),
                reason: *reason,
                connections: counted.connections,
                within,
                peer: counted.peer.candidate,
            });
        }
        !told.is_empty()
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn a_million_connections_are_one_line_that_names_where_most_came_from() {
        let mut state = State::default();
        assert!(state.add(HandshakeFailure::AddressDenied, address(9)), "the first is told of at once");
        assert_eq!(state.take().len(), 1);
        for n in 0..1_000_000_u32 {
            let peer = if n % 3 == 0 { address((n % 200) as u8) } else { address(250) };
            assert!(!state.add(HandshakeFailure::AddressRate, peer));
        }
        assert!(!state.add(HandshakeFailure::AddressDenied, address(9)));
        let told = state.take();
        let of = |at: usize| (told[at].0, told[at].1.connections, told[at].1.peer.candidate);
        assert_eq!(told.len(), 2);
        assert_eq!(of(0), (HandshakeFailure::AddressRate, 1_000_000, address(250)));
        assert_eq!(of(1), (HandshakeFailure::AddressDenied, 1, address(9)));
        assert!(state.take().is_empty());
        assert!(state.add(HandshakeFailure::AddressRate, address(1)), "it was quiet: told of at once again");
    }
}
