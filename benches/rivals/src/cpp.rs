//! The program that measures C++ spdlog: built when it is first needed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

const HEADER: &str = "/usr/include/spdlog/spdlog.h";
const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/cpp/spdlog_mark.cpp");

/// The program, which lies beside this one. It is built when it is not there, or older than this
/// one, which knows the same arguments and figures.
pub fn built() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let program = own.with_file_name("spdlog-mark");
    let time = |path: &Path| path.metadata().and_then(|data| data.modified());
    if time(&program).is_ok_and(|built| time(&own).is_ok_and(|own| own < built)) {
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
        bail!("g++ failed: {}", text.trim_end());
    }
    Ok(program)
}
