//! The program that measures C++ spdlog: built when it is first needed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

const HEADER: &str = "/usr/include/spdlog/spdlog.h";
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/cpp/spdlog_mark.cpp");

/// Builds the program into `dir`, unless it is there.
pub fn built(dir: &Path) -> Result<PathBuf> {
    let program = dir.join("spdlog-mark");
    if program.exists() {
        return Ok(program);
    }
    ensure!(
        Path::new(HEADER).exists(),
        "the Debian package libspdlog-dev is not installed"
    );
    let mut compiler = Command::new("g++");
    compiler
        .args(["-O3", "-std=c++17", SOURCE, "-o"])
        .arg(&program);
    compiler.args(["-lfmt", "-pthread"]);
    let output = compiler.output().context("g++ cannot be run")?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!("g++ failed: {}", text.lines().next().unwrap_or_default());
    }
    Ok(program)
}
