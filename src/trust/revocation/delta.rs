//! Delta lists (RFC 5280, section 5.2.4): what has changed since a complete list, put together with it.

use std::sync::Arc;

use super::{RevocationList, number_text, rank};
use crate::trust::TrustError;

/// The order in which they are applied: each may follow the one before.
pub(super) fn in_sequence(deltas: &mut [Arc<RevocationList>]) {
    deltas.sort_by(|one, other| one.number.as_ref().map(rank).cmp(&other.number.as_ref().map(rank)));
}

/// `list`: the complete list of the same issuer and scope, which may be put together already. One that is newer than the
/// delta knows all that the delta says. One that is older than its base cannot be made whole by it: to believe either of
/// them would be to overlook whoever was revoked in between.
pub(super) fn apply(
    list: Option<&mut Arc<RevocationList>>,
    delta: &RevocationList,
) -> Result<(), TrustError> {
    let (Some(base), Some(number)) = (&delta.base, &delta.number) else { return Ok(()) };
    let without_base = |found: String| TrustError::DeltaWithoutBase {
        issuer: delta.issuer.clone(),
        number: number.to_string(),
        base: base.to_string(),
        found,
    };
    let Some(list) = list else {
        return Err(without_base("there is no complete list of this issuer and scope".to_owned()));
    };
    match &list.number {
        Some(known) if rank(known) >= rank(number) => return Ok(()),
        Some(known) if rank(known) >= rank(base) => {}
        _ => return Err(without_base(format!("the newest complete list is {}", number_text(list)))),
    }
    let entries = list.entries.amended(&delta.entries).map_err(|_| TrustError::NoMemory)?;
    *list = Arc::new(RevocationList {
        issuer: list.issuer.clone(),
        issuer_key: list.issuer_key.clone(),
        issuer_raw: list.issuer_raw.clone(),
        // The next thing that the issuer promised is another delta.
        this_update: delta.this_update,
        next_update: delta.next_update.or(list.next_update),
        number: delta.number.clone(),
        base: None,
        scope: list.scope.clone(),
        entries,
    });
    Ok(())
}
