//! What the fuzz targets may know of tickets.

use super::ticket::TicketData;

/// Whatever is read of a ticket is what was written.
pub fn ticket(bytes: &[u8]) {
    let Some((before, data)) = TicketData::split(bytes) else { return };
    let mut again = before.to_vec();
    assert!(data.write(&mut again).is_ok());
    assert_eq!(again, bytes);
}

/// One for a client that asked for `server_name`, behind the session's own bytes.
pub fn sample_ticket(session: &[u8], server_name: &[u8]) -> Vec<u8> {
    let data = TicketData { began: 1_767_225_600, policy: &[1; 32], voucher: &[2; 32], server_name };
    let mut ticket = session.to_vec();
    // A name that is too long makes none, which is a sample too.
    let _ = data.write(&mut ticket);
    ticket
}
