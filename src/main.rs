//! Arguments to exit code; nothing else.

use std::process::ExitCode;

use clap::Parser;

/// Not yet chosen by measurement: a default that is known to do well with many small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Wrong usage ends in clap with exit code 2, `--help` with 0.
    portcullis::cli::run(portcullis::cli::Arguments::parse())
}
