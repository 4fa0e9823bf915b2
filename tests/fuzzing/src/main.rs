//! One program for all targets: `MAINSTAY_FUZZ_TARGET` names the one.
#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("MAINSTAY_FUZZ_TARGET").unwrap_or_default();
    mainstay_tests::fuzz_targets::target(&name).unwrap_or_else(|| panic!("no target {name:?}"))
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET(data));
