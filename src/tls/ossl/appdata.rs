//! What we add to the contents of a ticket.

use crate::UnixTime;

/// What a ticket carries besides the TLS session itself. OpenSSL's session keeps only the leaf and renews its own
/// lifetime at every resumption; both would make a resumed session worth something else than a fresh one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TicketData {
    pub(super) full_handshake_at: UnixTime,
    /// DER, in the order presented, without the leaf.
    pub(super) intermediates: Vec<Vec<u8>>,
}

const FORMAT: u8 = 1;
/// A ticket must stay well below 64 KiB, or TLS cannot carry it; a chain that does not fit is left out, and the
/// client will make a full handshake.
const LARGEST_CHAIN: usize = 16 * 1024;

pub(super) fn encode(data: &TicketData) -> Vec<u8> {
    let mut bytes = vec![FORMAT];
    bytes.extend(data.full_handshake_at.to_be_bytes());
    if data.intermediates.iter().map(Vec::len).sum::<usize>() <= LARGEST_CHAIN {
        for der in &data.intermediates {
            bytes.extend((der.len() as u32).to_be_bytes());
            bytes.extend(der);
        }
    }
    bytes
}

/// `None` for anything that [`encode`] did not write.
pub(super) fn decode(bytes: &[u8]) -> Option<TicketData> {
    let (&FORMAT, rest) = bytes.split_first()? else { return None };
    let (time, mut rest) = rest.split_first_chunk::<8>()?;
    let mut intermediates = Vec::new();
    while !rest.is_empty() {
        let (len, tail) = rest.split_first_chunk::<4>()?;
        let (der, tail) = tail.split_at_checked(u32::from_be_bytes(*len) as usize)?;
        intermediates.push(der.to_vec());
        rest = tail;
    }
    Some(TicketData { full_handshake_at: UnixTime::from_be_bytes(*time), intermediates })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            full_handshake_at in any::<i64>(),
            intermediates in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..5),
        ) {
            let data = TicketData { full_handshake_at, intermediates };
            prop_assert_eq!(decode(&encode(&data)), Some(data));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn a_chain_too_large_for_a_ticket_is_left_out() {
        let data = TicketData { full_handshake_at: 7, intermediates: vec![vec![0; LARGEST_CHAIN + 1]] };
        assert_eq!(decode(&encode(&data)), Some(TicketData { full_handshake_at: 7, intermediates: vec![] }));
    }
}
