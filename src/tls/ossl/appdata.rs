//! What we add to the contents of a ticket: the chain without its leaf, which is all of it that OpenSSL's session keeps,
//! and what we know about the session.

use crate::tls::ticket::TicketData;

/// A ticket must stay well below 64 KiB, or TLS cannot carry it; a chain that does not fit is left out, and the
/// client will make a full handshake.
const LARGEST_CHAIN: usize = 16 * 1024;

/// `intermediates` are DER, in the order presented. `None`: no ticket can say that.
pub(super) fn encode(intermediates: &[Vec<u8>], data: &TicketData<'_>) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    if intermediates.iter().map(Vec::len).sum::<usize>() <= LARGEST_CHAIN {
        for der in intermediates {
            bytes.extend((der.len() as u32).to_be_bytes());
            bytes.extend(der);
        }
    }
    data.write(&mut bytes).ok()?;
    Some(bytes)
}

/// `None` for anything that [`encode`] did not write.
pub(super) fn decode(bytes: &[u8]) -> Option<(Vec<&[u8]>, TicketData<'_>)> {
    let (mut rest, data) = TicketData::split(bytes)?;
    let mut intermediates = Vec::new();
    while !rest.is_empty() {
        let (len, tail) = rest.split_first_chunk::<4>()?;
        let (der, tail) = tail.split_at_checked(u32::from_be_bytes(*len) as usize)?;
        intermediates.push(der);
        rest = tail;
    }
    Some((intermediates, data))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DATA: TicketData<'_> =
        TicketData { began: 7, policy: &[1; 32], voucher: &[2; 32], server_name: b"a.test" };

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            intermediates in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..5),
        ) {
            let bytes = encode(&intermediates, &DATA).unwrap();
            prop_assert_eq!(decode(&bytes), Some((intermediates.iter().map(Vec::as_slice).collect(), DATA)));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn a_chain_too_large_for_a_ticket_is_left_out() {
        let bytes = encode(&[vec![0; LARGEST_CHAIN + 1]], &DATA).unwrap();
        assert_eq!(decode(&bytes), Some((vec![], DATA)));
    }
}
