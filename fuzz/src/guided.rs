//! Runs one target under LLVM's libFuzzer: the environment names it (`FUZZ_TARGET`), so that there is one binary for all.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use portcullis_fuzz::{Target, find};

fn target() -> &'static Target {
    static TARGET: OnceLock<&Target> = OnceLock::new();
    TARGET.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        find(&name).unwrap_or_else(|| panic!("FUZZ_TARGET names no target: `{name}`"))
    })
}

fuzz_target!(|bytes: &[u8]| (target().run)(bytes));
