//! Arguments to exit code; nothing else.

use std::process::ExitCode;

use clap::Parser;

/// Chosen by measurement, for the TLS library too: 4 % less CPU time than glibc's for an HTTP/1.1 request, 6 % for an HTTP/2
/// request, 3 % for a resumed handshake; no difference for a full one or for an idle connection.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The allocator asks for huge pages, of which the kernel hands out whole ones where a connection uses a part. Without
    // them an idle HTTP/2 connection holds a third less, and nothing costs more (docs/performance.md). Where the kernel
    // does not know this, memory stays as it was.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    // Wrong usage ends in clap with exit code 2, `--help` with 0.
    portcullis::cli::run(portcullis::cli::Arguments::parse())
}
