//! Small file systems of our own, for tests of a full disk. Root only.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// What a small file system is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Tmpfs,
    Ext4,
    /// Copies on write.
    Btrfs,
    /// Can neither reserve space nor say how much there is; it has no bound.
    Ramfs,
}

/// A mounted file system of 64 MiB (btrfs: 128 MiB); unmounted when it is dropped.
#[derive(Debug)]
pub struct Mount {
    /// The mount point, and the image of ext4.
    temp: tempfile::TempDir,
}

impl Mount {
    /// Mounts one. `None`, with the reason on standard error, where that is not possible.
    pub fn new(kind: Kind) -> Option<Self> {
        Self::in_dir(tempfile::tempdir().unwrap(), kind)
    }

    /// A tmpfs for `files` files, directories included.
    pub fn with_files(files: u32) -> Option<Self> {
        let temp = tempfile::tempdir().unwrap();
        let point = temp.path().join("fs");
        std::fs::create_dir(&point).unwrap();
        let options = format!("size=64m,mode=700,nr_inodes={files}");
        let mut mount = Command::new("mount");
        run(mount
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(&point))?;
        Some(Self { temp })
    }

    /// Mounts one whose image, if it has one, is in `temp`.
    pub fn in_dir(temp: tempfile::TempDir, kind: Kind) -> Option<Self> {
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
            Kind::Btrfs => {
                let image = temp.path().join("image");
                File::create(&image).unwrap().set_len(128 << 20).unwrap();
                let mut make = Command::new("mkfs.btrfs");
                run(make
                    .args(["-q", "-d", "single", "-m", "single"])
                    .arg(&image))?;
                // Its cleaner comes with the commits, of which there is one in 30 s otherwise.
                mount.args(["-o", "loop,commit=1"]).arg(&image);
            }
            Kind::Ramfs => {
                mount.args(["-t", "ramfs", "-o", "mode=700", "ramfs"]);
            }
        }
        run(mount.arg(&point))?;
        Some(Self { temp })
    }

    /// A btrfs that gives no more than `bytes` to its files: `EDQUOT`, with space that is free.
    /// Quotas of users are no use to a test that mounts, because root may pass them.
    pub fn with_quota(bytes: usize) -> Option<Self> {
        let mount = Self::new(Kind::Btrfs)?;
        let btrfs = |words: &[&str]| run(Command::new("btrfs").args(words).arg(mount.path()));
        btrfs(&["quota", "enable"])?;
        btrfs(&["qgroup", "limit", &bytes.to_string()])?;
        Some(mount)
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
        self.fill_but(0)
    }

    /// Takes all the space that is left, but for about `bytes` bytes.
    pub fn fill_but(&self, bytes: usize) -> Filler {
        let spare = self.path().join("spare");
        std::fs::write(&spare, vec![0x55; bytes]).unwrap();
        let path = self.path().join("filler");
        let options = OpenOptions::new().create(true).append(true).open(&path);
        let mut file = options.unwrap();
        for piece in [1 << 20, 4096, 1] {
            while file.write_all(&vec![0xaa; piece]).is_ok() {}
        }
        std::fs::remove_file(spare).unwrap();
        self.settle();
        Filler(path)
    }

    /// Waits until space that was given back can be had: btrfs needs some commits for that.
    pub fn wait_for_space(&self) {
        let path = self.path().join("probe");
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            self.settle();
            let had = std::fs::write(&path, vec![0x33; 8 << 20]).is_ok();
            // There is none if it could not even be created.
            std::fs::remove_file(&path).ok();
            if had {
                return self.settle();
            }
            assert!(Instant::now() < end, "the space does not come back");
        }
    }

    /// Makes space that was given back free: btrfs does that when it commits.
    pub fn settle(&self) {
        let synced = Command::new("sync").arg("-f").arg(self.path()).status();
        assert!(synced.is_ok());
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
