//! Portcullis: a reverse proxy for services that only known machines and people may reach.
//!
//! The modules in reading order; `ARCHITECTURE.md` draws which of them may use which.

pub mod admin;
pub mod census;
pub mod certificate;
pub mod cli;
pub mod config;
pub mod confinement;
pub mod csv_line;
pub mod demo;
pub mod explain;
pub mod fetch;
pub mod fields;
pub mod framing;
pub mod gateway;
pub mod headers;
pub mod health;
pub mod limits;
pub mod listener;
pub mod panics;
pub mod pattern;
pub mod pki;
pub mod proxy_protocol;
pub mod relay;
pub mod reload;
pub mod route;
pub mod runtime;
pub mod server;
pub mod shard;
pub mod telemetry;
pub mod tls;
pub mod trust;
pub mod upstream;

/// Seconds since 1970-01-01 00:00:00 UTC.
pub type UnixTime = i64;
