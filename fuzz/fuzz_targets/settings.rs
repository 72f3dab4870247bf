//! The sidecar's settings: a plan or mistakes, and each mistake with its place.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rollcall::config::{Environment, parse};
use rollcall::sidecar::SidecarSettings;

fuzz_target!(|text: &str| {
    match parse(text, &Environment::empty(), SidecarSettings::plan) {
        Ok(_plan) => {}
        Err(mistakes) => {
            assert!(!mistakes.is_empty());
            for mistake in mistakes {
                assert!(!mistake.to_string().is_empty());
            }
        }
    }
});
