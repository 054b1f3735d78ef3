//! The command line tool, as a user runs it.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value as Json;

/// The tool with these words, in `dir`.
pub fn stormlog(dir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stormlog"));
    command.env_remove("DEBUG_LOG_DIR").env_remove("DEBUG_MODE");
    command.current_dir(dir).args(words);
    command
}

pub fn run(dir: &Path, words: &[&str]) -> Output {
    stormlog(dir, words).output().unwrap()
}

pub fn json(output: &Output) -> Json {
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {errors}"))
}
