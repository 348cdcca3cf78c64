//! What is written about an operator who changes something, and about somebody who tried to.

use std::time::SystemTime;

use log::Level;

use super::line::Line;
use super::record::bound;
use crate::admin::{Action, Caller, Outcome, moment};

/// One request to an admin endpoint that changes something.
pub struct ActionRecord {
    pub time: SystemTime,
    by: Caller,
    action: Action,
}

impl ActionRecord {
    pub fn new(by: Caller, mut action: Action) -> Self {
        if let Some(selector) = &mut action.selector {
            bound(selector);
        }
        if let Outcome::Failed(why) | Outcome::Refused(why) = &mut action.outcome {
            bound(why);
        }
        Self { time: SystemTime::now(), by, action }
    }

    pub(super) fn level(&self) -> Level {
        if self.action.outcome == Outcome::Done { Level::Info } else { Level::Warn }
    }

    pub(super) fn write(&self, line: &mut Line<'_>) {
        let action = &self.action;
        line.text("action", action.name);
        line.text(
            "result",
            match action.outcome {
                Outcome::Done => "ok",
                Outcome::Failed(_) => "failed",
                Outcome::Refused(_) => "refused",
            },
        );
        line.shown("by", self.by);
        line.text_if_any("selector", action.selector.as_deref());
        line.text_if_any("reason", action.reason.as_deref());
        line.text_if_any("until", action.until.and_then(moment).as_deref());
        if let Some(connections) = action.connections {
            line.plain("connections", connections);
        }
        if let Outcome::Failed(why) | Outcome::Refused(why) = &action.outcome {
            line.text("message", why);
        }
    }
}
