//! The harness: `MLXCTL_FUZZ_TARGET` names the parser. `cargo xtask fuzz` runs it over all of them.

#![no_main]

use std::sync::OnceLock;

#[path = "../targets.rs"]
mod targets;

static CHOSEN: OnceLock<fn(&[u8])> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let chosen = CHOSEN.get_or_init(|| {
        let name = std::env::var("MLXCTL_FUZZ_TARGET").unwrap_or_default();
        let found = targets::TARGETS.iter().find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("MLXCTL_FUZZ_TARGET names no target: {name:?}")).1
    });
    chosen(bytes);
});
