//! What somebody wants to change, and what became of it.

use std::time::Duration;

use serde_json::json as object;

use super::{
    AdminRequest, AdminResponse, AdminView, BadParameter, Endpoint, Parameters, Selector, block, json,
    moment, text,
};
use crate::UnixTime;
use crate::config::Span;
use crate::trust::DenyEntry;

/// Characters of a reason.
const LONGEST_REASON: usize = 200;

/// What somebody wanted to change, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    pub name: &'static str,
    pub selector: Option<String>,
    pub reason: Option<String>,
    pub until: Option<UnixTime>,
    /// How many open connections ended by it.
    pub connections: Option<usize>,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// It could not be done, for this reason.
    Failed(String),
    /// Whoever asked may not, for this reason.
    Refused(String),
}

/// What became of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocked {
    /// Open connections that ended by it.
    pub ended: usize,
    /// The same client was blocked already, until another time or for another reason.
    pub replaced: bool,
}

/// Why nobody was blocked or unblocked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    #[error(
        "there is no place to keep it, so that a restart would let the client in again (hint: `server.state_directory`, \
         or `StateDirectory=` of systemd)"
    )]
    NoPlace,
    #[error("no trust domain is called `{0}`")]
    NoSuchDomain(String),
    /// What is kept, or where, cannot be used; nothing was changed.
    #[error("{0}")]
    Kept(String),
}

pub(super) fn change(
    endpoint: Endpoint,
    request: &AdminRequest<'_>,
    view: &impl AdminView,
    action: &mut Action,
) -> Result<AdminResponse, BadParameter> {
    if endpoint == Endpoint::Reload {
        return Ok(match view.reload() {
            Ok(generation) => text(200, &format!("generation {generation} is in force")),
            Err(problems) => text(422, &problems),
        });
    }
    let mut parameters = Parameters::parse(request.query, request.body)?;
    let selector = Selector::take(&mut parameters)?;
    action.selector = Some(selector.to_string());
    action.reason = reason(&mut parameters)?;
    match endpoint {
        Endpoint::Block => block(&selector, parameters, request, view, action),
        Endpoint::Unblock => unblock(&selector, parameters, view),
        _ => kick(&selector, parameters, view, action),
    }
}

fn kick(
    selector: &Selector,
    mut parameters: Parameters,
    view: &impl AdminView,
    action: &mut Action,
) -> Result<AdminResponse, BadParameter> {
    let grace = parameters.parsed::<Span>("grace")?.map_or(Duration::ZERO, |span| span.0);
    parameters.end(&[&["reason", "grace"], &Selector::NAMES[..]].concat())?;
    selector.names_a_client()?;
    selector.asks_for_what_there_is(&view.names())?;
    let ended = view.kick(selector, grace, action.reason.as_deref());
    action.connections = Some(ended);
    Ok(json(&object!({ "ended": ended })))
}

fn block(
    selector: &Selector,
    mut parameters: Parameters,
    request: &AdminRequest<'_>,
    view: &impl AdminView,
    action: &mut Action,
) -> Result<AdminResponse, BadParameter> {
    let until = block::end(&mut parameters, request.now)?;
    parameters.end(&[&["reason", "until", "for"], &Selector::NAMES[..]].concat())?;
    action.until = until;
    let reason = action.reason.as_deref().map(Into::into);
    let entry = DenyEntry { until, reason, ..selector.denied()? };
    Ok(match view.block(entry) {
        Ok(Blocked { ended, replaced }) => {
            action.connections = Some(ended);
            json(&object!({ "ended": ended, "replaced": replaced, "until": until.and_then(moment) }))
        }
        Err(error) => text(error.status(), &error.to_string()),
    })
}

fn unblock(
    selector: &Selector,
    parameters: Parameters,
    view: &impl AdminView,
) -> Result<AdminResponse, BadParameter> {
    parameters.end(&[&["reason"], &Selector::NAMES[..]].concat())?;
    let entry = selector.denied()?;
    Ok(match view.unblock(&entry.selector, entry.trust_domain.as_deref()) {
        Ok(Some(entry)) => json(&object!({
            "unblocked": entry.selector.to_string(),
            "until": entry.until.and_then(moment),
            "reason": entry.reason.as_deref(),
        })),
        Ok(None) => text(
            404,
            "nobody is blocked like this (hint: `portcullis blocked` shows who is, and by which name)",
        ),
        Err(error) => text(error.status(), &error.to_string()),
    })
}

impl BlockError {
    fn status(&self) -> u16 {
        match self {
            Self::NoSuchDomain(_) => 400,
            Self::NoPlace => 409,
            Self::Kept(_) => 500,
        }
    }
}

/// It stands in the log and in files: one line, not too long.
fn reason(parameters: &mut Parameters) -> Result<Option<String>, BadParameter> {
    let reason = parameters.take("reason");
    let is_fit =
        |reason: &String| reason.chars().count() <= LONGEST_REASON && !reason.chars().any(char::is_control);
    if reason.as_ref().is_none_or(is_fit) {
        return Ok(reason);
    }
    let error = format!("it is too long or no single line (expected: at most {LONGEST_REASON} characters)");
    Err(BadParameter::Wrong { name: "reason", error })
}
