//! The end of a connection on which we had the last word.
//!
//! A socket that is closed while the client still sends is reset by the kernel, and what we said last is lost: an alert
//! that tells why a handshake failed, a 400. So, where we refuse, we say that nothing more comes, and read on for a
//! moment without looking.

use std::net::Shutdown;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Never longer than this.
const TIME: Duration = Duration::from_secs(1);

/// Nor for more bytes.
const BYTES: usize = 2 * 1024 * 1024;

/// Nor for more connections at a time: the others are closed at once.
const CONNECTIONS: usize = 256;

static LINGERING: AtomicUsize = AtomicUsize::new(0);

/// One of those that linger, until dropped.
struct Place;

impl Place {
    fn take() -> Option<Self> {
        let next = |taken| (taken < CONNECTIONS).then_some(taken + 1);
        LINGERING.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok().then(|| Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        LINGERING.fetch_sub(1, Ordering::Release);
    }
}

/// Connections of which the end is still awaited.
pub(super) fn count() -> usize {
    LINGERING.load(Ordering::Acquire)
}

/// Keeps the connection open behind the back of whoever is about to drop `tcp`.
pub(super) fn linger(tcp: &TcpStream) {
    let (Ok(runtime), Some(place)) = (tokio::runtime::Handle::try_current(), Place::take()) else { return };
    let Ok(kept) = tcp.as_fd().try_clone_to_owned().map(std::net::TcpStream::from) else { return };
    // What was written goes before it.
    if kept.shutdown(Shutdown::Write).is_err() {
        return;
    }
    runtime.spawn(async move {
        let _place = place;
        let Ok(tcp) = TcpStream::from_std(kept) else { return };
        let _ = tokio::time::timeout(TIME, read_on(tcp)).await;
    });
}

async fn read_on(mut tcp: TcpStream) {
    let mut scratch = vec![0; 16 * 1024];
    let mut read = 0;
    while read < BYTES {
        match tcp.read(&mut scratch).await {
            Ok(more @ 1..) => read += more,
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_few_and_are_given_back() {
        let places: Vec<_> = (0..CONNECTIONS).map(|_| Place::take().unwrap()).collect();
        assert!(Place::take().is_none());
        drop(places);
        assert!(Place::take().is_some());
    }
}
