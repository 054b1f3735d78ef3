//! Small file systems of our own, for tests of a full disk. Root only.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a small file system is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Tmpfs,
    Ext4,
}

/// A mounted file system of 64 MiB; unmounted when it is dropped.
#[derive(Debug)]
pub struct Mount {
    /// The mount point, and the image of ext4.
    temp: tempfile::TempDir,
}

impl Mount {
    /// Mounts one. `None`, with the reason on standard error, where that is not possible.
    pub fn new(kind: Kind) -> Option<Self> {
        let temp = tempfile::tempdir().unwrap();
        let point = temp.path().join("fs");
        std::fs::create_dir(&point).unwrap();
        let mut mount = Command::new("mount");
        match kind {
            Kind::Tmpfs => {
                mount.args(["-t", "tmpfs", "-o", "size=64m,mode=700", "tmpfs"]);
            }
            Kind::Ext4 => {
                let image = temp.path().join("image");
                File::create(&image).unwrap().set_len(64 << 20).unwrap();
                run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
                mount.args(["-o", "loop,errors=remount-ro"]).arg(&image);
            }
        }
        run(mount.arg(&point))?;
        Some(Self { temp })
    }

    /// The mount point.
    pub fn path(&self) -> PathBuf {
        self.temp.path().join("fs")
    }

    /// Makes ext4 read-only at once, as an I/O error does. False where the kernel does not let us.
    pub fn fail(&self) -> bool {
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        let point = self.path();
        let line = mounts.lines().find(|line| {
            let mut words = line.split(' ');
            words.nth(1).map(Path::new) == Some(&point)
        });
        let device = line.and_then(|line| line.split(' ').next());
        let Some(name) = device.and_then(|device| device.strip_prefix("/dev/loop")) else {
            return false;
        };
        std::fs::write(format!("/sys/fs/ext4/loop{name}/trigger_fs_error"), "1").is_ok()
    }

    /// Takes all the space that is left, but for a few bytes.
    pub fn fill(&self) -> Filler {
        let path = self.path().join("filler");
        let options = OpenOptions::new().create(true).append(true).open(&path);
        let mut file = options.unwrap();
        for piece in [1 << 20, 4096, 1] {
            while file.write_all(&vec![0xaa; piece]).is_ok() {}
        }
        Filler(path)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: whoever still holds a file of it keeps it, and nobody finds it any more.
        let done = run(Command::new("umount").arg("-l").arg(self.path()));
        assert!(done.is_some() || std::thread::panicking(), "cannot unmount");
    }
}

/// A file that takes all the space; removed when it is dropped.
#[derive(Debug)]
pub struct Filler(PathBuf);

impl Drop for Filler {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

fn run(command: &mut Command) -> Option<()> {
    let said = match command.output() {
        Ok(output) if output.status.success() => return Some(()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    let program = command.get_program().display();
    eprintln!("skipped, {program} failed: {said}");
    None
}
