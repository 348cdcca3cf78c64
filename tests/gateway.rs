//! The gateway as its users meet it: the real binary, real clients, one behaviour a test.

#[path = "support/mod.rs"]
mod support;

#[path = "behaviour/balancer.rs"]
mod balancer;
#[path = "behaviour/blocking.rs"]
mod blocking;
#[path = "behaviour/both_ways.rs"]
mod both_ways;
#[path = "behaviour/census.rs"]
mod census;
#[path = "behaviour/deny.rs"]
mod deny;
#[path = "behaviour/door.rs"]
mod door;
#[path = "behaviour/drills.rs"]
mod drills;
#[path = "behaviour/ending.rs"]
mod ending;
#[path = "behaviour/faults.rs"]
mod faults;
#[path = "behaviour/fetching.rs"]
mod fetching;
#[path = "behaviour/forwarding.rs"]
mod forwarding;
#[path = "behaviour/frames.rs"]
mod frames;
#[path = "behaviour/handshake.rs"]
mod handshake;
#[path = "behaviour/hostile_tls.rs"]
mod hostile_tls;
#[path = "behaviour/limits.rs"]
mod limits;
#[path = "behaviour/operating.rs"]
mod operating;
#[path = "behaviour/operation.rs"]
mod operation;
#[path = "behaviour/panics.rs"]
mod panics;
#[path = "behaviour/quarantine.rs"]
mod quarantine;
#[path = "behaviour/relay.rs"]
mod relay;
#[path = "behaviour/resumption.rs"]
mod resumption;
#[path = "behaviour/revocation.rs"]
mod revocation;
#[path = "behaviour/sandbox.rs"]
mod sandbox;
#[path = "behaviour/stapling.rs"]
mod stapling;
#[path = "behaviour/storm.rs"]
mod storm;
#[path = "behaviour/strictness.rs"]
mod strictness;
#[path = "behaviour/tickets.rs"]
mod tickets;
#[path = "behaviour/trust.rs"]
mod trust;
#[path = "behaviour/upstream.rs"]
mod upstream;
#[path = "behaviour/walkthrough.rs"]
mod walkthrough;
#[path = "behaviour/watching.rs"]
mod watching;
