//! What is done with the reasons for which a route does not match: told all, or the first one ends the matter.

use std::fmt::Display;
use std::ops::ControlFlow;

/// `Continue` as long as nothing missed that ends the matter.
pub(super) type Checked = ControlFlow<()>;

pub(super) trait Misses {
    fn missed(&mut self, reason: impl FnOnce() -> String) -> Checked;

    fn require(&mut self, holds: bool, reason: impl FnOnce() -> String) -> Checked {
        if holds { Checked::Continue(()) } else { self.missed(reason) }
    }
}

/// For deciding: no reason is ever put into words.
pub(super) struct StopAtFirst;

impl Misses for StopAtFirst {
    fn missed(&mut self, _: impl FnOnce() -> String) -> Checked {
        Checked::Break(())
    }
}

/// For explaining.
impl Misses for Vec<String> {
    fn missed(&mut self, reason: impl FnOnce() -> String) -> Checked {
        self.push(reason());
        Checked::Continue(())
    }
}

/// Values that a certificate or a request has, or that a rule wants, past these are counted only.
const SHOWN: usize = 8;

/// "`a`, `b` or `c`".
pub(super) fn any_of<T: Display>(values: impl IntoIterator<Item = T>) -> String {
    join(values, "or")
}

/// "`a`, `b` and `c`".
pub(super) fn all_of<T: Display>(values: impl IntoIterator<Item = T>) -> String {
    join(values, "and")
}

fn join<T: Display>(values: impl IntoIterator<Item = T>, word: &str) -> String {
    let mut values = values.into_iter();
    let mut shown: Vec<String> = values.by_ref().take(SHOWN).map(|value| format!("`{value}`")).collect();
    match values.count() {
        0 => {}
        more => shown.push(format!("{more} more")),
    }
    match shown.as_slice() {
        [] => "nothing".to_owned(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} {word} {last}", first.join(", ")),
    }
}
