//! A file system that does not answer.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A folder, as the mount of a server that went away: whoever asks for anything in it waits where no signal reaches it,
/// until this is dropped.
#[derive(Debug)]
pub struct SilentFolder {
    path: PathBuf,
    over: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl SilentFolder {
    /// Makes the folder. Says that the test is left out where it cannot be had.
    ///
    /// # Panics
    ///
    /// Where something is there already.
    #[must_use]
    pub fn make(path: &Path) -> Option<Self> {
        std::fs::create_dir(path).expect("makes a folder");
        let device = File::options()
            .read(true)
            .write(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open("/dev/fuse");
        let mounted = device.and_then(|device| {
            let options = format!(
                "fd={},rootmode=40755,user_id=0,group_id=0,allow_other",
                device.as_raw_fd()
            );
            mount(
                Some("silent"),
                path,
                Some("fuse.silent"),
                MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
                Some(options.as_str()),
            )?;
            Ok(device)
        });
        match mounted {
            Ok(device) => {
                let over = Arc::new(AtomicBool::new(false));
                let asked = Arc::clone(&over);
                Some(Self {
                    path: path.to_owned(),
                    over,
                    server: Some(std::thread::spawn(move || serve(device, &asked))),
                })
            }
            Err(error) => {
                eprintln!("LEFT OUT: no file system can be served here: {error}");
                None
            }
        }
    }
}

/// Agrees on the protocol, then takes what is asked and answers nothing: of a request that was taken the kernel waits for
/// the answer, whatever signal comes. <https://docs.kernel.org/filesystems/fuse/fuse.html>
fn serve(mut device: File, over: &AtomicBool) {
    const INIT: u32 = 26;
    // More than the kernel's least, 8 KiB.
    let mut request = vec![0; 1 << 18];
    while !over.load(Ordering::Relaxed) {
        match device.read(&mut request) {
            Ok(length) if length >= 16 => {
                if request[4..8] == INIT.to_ne_bytes() {
                    let mut answer = Vec::new();
                    // fuse_out_header: length, error, and the request's own number.
                    answer.extend(40_u32.to_ne_bytes());
                    answer.extend(0_i32.to_ne_bytes());
                    answer.extend_from_slice(&request[8..16]);
                    // fuse_init_out of version 7.12: read-ahead, flags, requests in the background, largest write.
                    for word in [7_u32, 12, 0, 0, 0, 4096] {
                        answer.extend(word.to_ne_bytes());
                    }
                    device.write_all(&answer).expect("the kernel agrees");
                }
            }
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

impl Drop for SilentFolder {
    fn drop(&mut self) {
        let _left_to_the_machine = umount2(&self.path, MntFlags::MNT_DETACH);
        self.over.store(true, Ordering::Relaxed);
        // The device is closed with its thread. Then every request fails, and who waited goes on.
        let _panicked = self.server.take().map(JoinHandle::join);
    }
}
