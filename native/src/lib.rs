//! The compiled part of dspy-live: plain text goes from an LM's socket to a client's without a step in Python.

pub mod cut;
pub mod plain;
#[cfg(target_os = "linux")]
pub mod splicer;
pub mod stream;

#[cfg(all(target_os = "linux", feature = "extension-module"))]
mod python;
