//! What a ticket carries besides the TLS session itself.

use std::io::{self, Write};

use super::terms::Digest;
use crate::UnixTime;

/// OpenSSL's sessions renew their own lifetime at every resumption, and no library's says who vouched for the client, or
/// compares the server name. Each of that would make a resumed session worth something else than a fresh one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TicketData<'a> {
    /// When the full handshake was.
    pub(super) began: UnixTime,
    pub(super) policy: &'a Digest,
    pub(super) voucher: &'a Digest,
    /// As the client sent it; empty where it sent none.
    pub(super) server_name: &'a [u8],
}

const FORMAT: u8 = 2;

impl<'a> TicketData<'a> {
    /// The most that is [written](Self::write).
    #[cfg_attr(not(feature = "aws-lc"), allow(dead_code, reason = "OpenSSL makes the room by itself"))]
    pub(super) const LONGEST: usize = u8::MAX as usize + 32 + 32 + 8 + 1 + 1;

    /// Made to be read from the end, so that whatever stands before it may begin at the beginning.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        // No DNS name is longer (RFC 1035, section 2.3.4); the libraries refuse such a client.
        let len = u8::try_from(self.server_name.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        out.write_all(self.server_name)?;
        out.write_all(self.voucher)?;
        out.write_all(self.policy)?;
        out.write_all(&self.began.to_be_bytes())?;
        out.write_all(&[len, FORMAT])
    }

    /// What stands before it, and it; `None` for anything that [`write`](Self::write) did not write.
    pub(super) fn split(bytes: &'a [u8]) -> Option<(&'a [u8], Self)> {
        let (rest, &[len, FORMAT]) = bytes.split_last_chunk()? else { return None };
        let (rest, began) = rest.split_last_chunk()?;
        let (rest, policy) = rest.split_last_chunk()?;
        let (rest, voucher) = rest.split_last_chunk()?;
        let (rest, server_name) = rest.split_at_checked(rest.len().checked_sub(len.into())?)?;
        Some((rest, Self { began: UnixTime::from_be_bytes(*began), policy, voucher, server_name }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            before in proptest::collection::vec(any::<u8>(), 0..50),
            began in any::<i64>(),
            policy in any::<Digest>(),
            voucher in any::<Digest>(),
            server_name in proptest::collection::vec(any::<u8>(), 0..=255),
        ) {
            let data = TicketData { began, policy: &policy, voucher: &voucher, server_name: &server_name };
            let mut bytes = before.clone();
            data.write(&mut bytes).unwrap();
            prop_assert!(bytes.len() <= before.len() + TicketData::LONGEST);
            prop_assert_eq!(TicketData::split(&bytes), Some((before.as_slice(), data)));
            // Cut off anywhere, it is read as something else or not at all.
            for len in 0..bytes.len() {
                prop_assert_ne!(TicketData::split(&bytes[..len]), Some((before.as_slice(), data)));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = TicketData::split(&bytes);
        }
    }

    #[test]
    fn a_name_that_is_none_makes_no_ticket() {
        let data = TicketData { began: 7, policy: &[0; 32], voucher: &[0; 32], server_name: &[b'a'; 256] };
        assert!(data.write(&mut Vec::new()).is_err());
    }
}
