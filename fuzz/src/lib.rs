//! Every parser of what strangers send, each with what must be true of whatever it makes of their bytes.
//!
//! A target is a plain function of bytes that panics when something is not as it must be. Two drivers run them: `guided`
//! (LLVM's libFuzzer, led by what code an input reaches) and `blind`, which only mutates what is known, but needs nothing
//! beyond what the gateway's tests have compiled already.

pub mod authority;
pub mod certificates;
pub mod der;
pub mod door;
pub mod files;
pub mod lists;
pub mod mutation;
pub mod requests;
pub mod responses;

/// A parser, and inputs to begin with.
pub struct Target {
    pub name: &'static str,
    pub about: &'static str,
    pub run: fn(&[u8]),
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// In the order in which strangers' bytes arrive.
pub const TARGETS: &[&Target] = &[
    &door::INTRODUCTION,
    &certificates::CERTIFICATE,
    &certificates::CHAIN,
    &certificates::IDENTITY,
    &certificates::NAME_TEXT,
    &responses::TICKET,
    &requests::HEAD,
    &requests::TARGET,
    &requests::CHUNKS,
    &requests::FRAMES,
    &requests::FORWARDING,
    &responses::ANSWER,
    &responses::OCSP,
    &lists::FILE,
    &lists::SIGNED,
    &lists::DENY,
    &files::PEM,
    &files::CONFIGURATION,
    &files::TABLE,
    &files::PARAMETERS,
];

pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name).copied()
}
