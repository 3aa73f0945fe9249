//! Frames that bring memory files along, from a parent to its runner and never the other way.
//!
//! The descriptors go with the first byte of a frame (`SCM_RIGHTS`, unix(7)). The runner knows from the message how many
//! belong to it, and takes no other number and none at any later byte. A parent reads without room for descriptors, so
//! that the kernel closes whatever a runner attaches.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::unix::OwnedWriteHalf;

use crate::wire::{Carries, MAX_FRAME, checked_length, decode, encode};

/// The most descriptors that come with a frame.
pub const MOST: usize = 4;

/// A frame and what goes with its first byte. It keeps the files open until it was sent.
pub(crate) struct Frame {
    bytes: Vec<u8>,
    files: Vec<Arc<File>>,
}

impl Frame {
    /// A message with its files, in the order that it names them in.
    pub(crate) fn new<T: Serialize + Carries>(
        message: &T,
        files: Vec<Arc<File>>,
    ) -> io::Result<Self> {
        if files.len() != message.files() || files.len() > MOST {
            return Err(io::Error::other("a frame with too few or too many files"));
        }
        Ok(Self {
            bytes: encode(message)?,
            files,
        })
    }

    /// Sends all of it. After an error the stream is of no use any more.
    pub(crate) async fn send(&self, writer: &mut OwnedWriteHalf) -> io::Result<()> {
        let mut sent = 0;
        while sent == 0 && !self.files.is_empty() {
            writer.writable().await?;
            let socket = writer.as_ref();
            // The kernel takes the descriptors with the first bytes that it takes, and neither where it would block.
            match socket.try_io(Interest::WRITABLE, || self.start(socket)) {
                Ok(length) => sent = length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        writer.write_all(&self.bytes[sent..]).await
    }

    fn start(&self, socket: &tokio::net::UnixStream) -> io::Result<usize> {
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut control = SendAncillaryBuffer::new(&mut room);
        let descriptors: Vec<_> = self.files.iter().map(|file| file.as_fd()).collect();
        if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::Error::other("too many files for a frame"));
        }
        let bytes = [IoSlice::new(&self.bytes)];
        Ok(sendmsg(socket, &bytes, &mut control, SendFlags::NOSIGNAL)?)
    }
}

/// Reads one message and its files, in a runner; none at the end of the stream.
///
/// # Errors
///
/// Where the other side breaks off, sends what is no frame, or not the files that belong to it.
pub fn receive<T: DeserializeOwned + Carries>(
    socket: &UnixStream,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut length = [0; 4];
    // One byte: files of a later one would come together with it.
    let (read, files) = part(socket, &mut length[..1])?;
    if read == 0 {
        return Ok(None);
    }
    let mut rest = Rest(socket);
    rest.read_exact(&mut length[read..])?;
    let length = checked_length(length, MAX_FRAME)?;
    let mut bytes = Vec::new();
    if rest.take(length as u64).read_to_end(&mut bytes)? < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let message: T = decode(&bytes)?;
    if files.len() != message.files() {
        return Err(io::Error::other(format!(
            "{} files came with a frame that has {}",
            files.len(),
            message.files()
        )));
    }
    Ok(Some((message, files)))
}

/// The files of a message, one by one.
///
/// # Errors
///
/// Where they are not as many; [`receive`] has seen to that they are.
pub fn files<const N: usize>(received: Vec<OwnedFd>) -> io::Result<[OwnedFd; N]> {
    received
        .try_into()
        .map_err(|_| io::Error::other("a message with other files than it names"))
}

/// All of a frame but its start: nothing comes with it but bytes.
struct Rest<'a>(&'a UnixStream);

impl Read for Rest<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match part(self.0, buffer)? {
            (read, files) if files.is_empty() => Ok(read),
            _ => Err(io::Error::other("a file came in the middle of a frame")),
        }
    }
}

/// Reads what is there, and the descriptors that come with it.
fn part(socket: &UnixStream, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let received = rustix::io::retry_on_intr(|| {
        let mut buffers = [IoSliceMut::new(buffer)];
        recvmsg(socket, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut files = Vec::new();
    for message in control.drain() {
        match message {
            RecvAncillaryMessage::ScmRights(descriptors) => files.extend(descriptors),
            _ => return Err(io::Error::other("a control message that is no file came")),
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) || files.len() > MOST {
        return Err(io::Error::other("more files came than a frame may have"));
    }
    Ok((received.bytes, files))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::{AsRawFd as _, BorrowedFd};
    use std::thread;

    use super::*;
    use crate::memory_file::{MemoryFile, Space};
    use crate::wire::CompileRequest;

    /// Bytes, and how many files go with them.
    #[derive(Debug, Serialize, serde::Deserialize)]
    struct Long(#[serde(with = "serde_bytes")] Vec<u8>, usize);

    impl Carries for Long {
        fn files(&self) -> usize {
            self.1
        }
    }

    /// A parent's end, as a runtime has it, and a runner's.
    fn pair() -> (OwnedWriteHalf, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("makes");
        ours.set_nonblocking(true).expect("sets");
        let ours = tokio::net::UnixStream::from_std(ours).expect("takes");
        (ours.into_split().1, theirs)
    }

    fn send_with(socket: &UnixStream, bytes: &[u8], files: &[BorrowedFd<'_>]) {
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut room);
        assert!(files.is_empty() || control.push(SendAncillaryMessage::ScmRights(files)));
        let sent = sendmsg(
            socket,
            &[IoSlice::new(bytes)],
            &mut control,
            SendFlags::empty(),
        );
        assert_eq!(sent.expect("sends"), bytes.len());
    }

    fn refusal<T: DeserializeOwned + Carries + std::fmt::Debug>(socket: &UnixStream) -> String {
        let received = receive::<T>(socket);
        received.expect_err("is refused").to_string()
    }

    #[tokio::test]
    async fn files_arrive_with_their_frame_in_order_and_are_closed_on_exec() {
        let (mut writer, socket) = pair();
        let file = MemoryFile::holding(b"the component").expect("makes");
        let space = Space::new().expect("makes");
        let files = vec![file.descriptor(), space.descriptor()];
        let frame = Frame::new(&CompileRequest::Compile, files).expect("encodes");
        frame.send(&mut writer).await.expect("sends");
        let (message, files) = receive::<CompileRequest>(&socket)
            .expect("is a frame")
            .expect("is there");
        assert!(matches!(message, CompileRequest::Compile));
        let [component, output] = super::files(files).expect("are two");
        for descriptor in [&component, &output] {
            let flags = rustix::io::fcntl_getfd(descriptor).expect("asks");
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        }
        let component = MemoryFile::received(component).expect("is sealed");
        assert_eq!(component.to_vec().expect("reads"), b"the component");
        assert_eq!(Space::received(output).fill(b"x").expect("writes"), 1);
        drop(writer);
        assert!(receive::<CompileRequest>(&socket).expect("ends").is_none());
    }

    #[tokio::test]
    async fn a_frame_longer_than_the_sockets_buffer_arrives_whole_and_its_files_once() {
        let (mut writer, socket) = pair();
        let sent: Vec<_> = [(9 << 20, 1), (5, 0), (3 << 20, 2)]
            .map(|(length, files)| Long(vec![7; length], files))
            .into();
        let expected: Vec<_> = sent.iter().map(|long| (long.0.len(), long.1)).collect();
        let reader = thread::spawn(move || {
            let next = || {
                receive::<Long>(&socket)
                    .expect("is a frame")
                    .expect("is there")
            };
            [(); 3].map(|()| next()).map(|(long, files)| {
                assert_eq!(long.1, files.len());
                (long.0.len(), files.len())
            })
        });
        let file = MemoryFile::holding(b"x").expect("makes");
        for long in sent {
            let files = vec![file.descriptor(); long.1];
            let frame = Frame::new(&long, files).expect("encodes");
            frame.send(&mut writer).await.expect("sends");
        }
        let read = tokio::task::spawn_blocking(|| reader.join());
        assert_eq!(read.await.expect("runs").expect("reads").to_vec(), expected);
    }

    #[test]
    fn too_few_too_many_and_late_files_are_refused() {
        let file = MemoryFile::holding(b"x").expect("makes").descriptor();
        let frame = encode(&CompileRequest::Compile).expect("encodes");
        for number in [0, 1, 3, 4, 5, 8] {
            let (parent, runner) = UnixStream::pair().expect("makes");
            send_with(&parent, &frame, &vec![file.as_fd(); number]);
            let refusal = refusal::<CompileRequest>(&runner);
            assert!(refusal.contains("files came"), "{number}: {refusal}");
        }
        // The kernel cuts what has no room, and the rest must not pass for a message with as many.
        let frame = encode(&Long(vec![], MOST)).expect("encodes");
        for number in [MOST + 1, MOST + 2, MOST + 4] {
            let (parent, runner) = UnixStream::pair().expect("makes");
            send_with(&parent, &frame, &vec![file.as_fd(); number]);
            assert_eq!(
                refusal::<Long>(&runner),
                "more files came than a frame may have",
                "{number}"
            );
        }
        for split in [1, 4, 6] {
            let (mut parent, runner) = UnixStream::pair().expect("makes");
            parent.write_all(&frame[..split]).expect("sends");
            send_with(&parent, &frame[split..], &[file.as_fd(), file.as_fd()]);
            assert_eq!(
                refusal::<CompileRequest>(&runner),
                "a file came in the middle of a frame",
                "{split}"
            );
        }
    }

    #[test]
    fn half_a_frame_is_no_frame() {
        let frame = encode(&CompileRequest::Compile).expect("encodes");
        for length in [1, 4, frame.len() - 1] {
            let (mut parent, runner) = UnixStream::pair().expect("makes");
            parent.write_all(&frame[..length]).expect("sends");
            drop(parent);
            assert!(receive::<CompileRequest>(&runner).is_err(), "{length}");
        }
    }

    #[test]
    fn refused_files_are_closed() {
        let open = |file: &File| {
            let own = std::fs::metadata(format!("/proc/self/fd/{}", file.as_raw_fd()));
            let own = std::os::unix::fs::MetadataExt::ino(&own.expect("is open"));
            let entries = std::fs::read_dir("/proc/self/fd").expect("reads").flatten();
            entries
                .filter_map(|entry| std::fs::metadata(entry.path()).ok())
                .filter(|found| std::os::unix::fs::MetadataExt::ino(found) == own)
                .count()
        };
        let file = MemoryFile::holding(b"x").expect("makes").descriptor();
        let frame = encode(&CompileRequest::Compile).expect("encodes");
        for number in [1, 4, 8] {
            let (parent, runner) = UnixStream::pair().expect("makes");
            send_with(&parent, &frame, &vec![file.as_fd(); number]);
            refusal::<CompileRequest>(&runner);
            assert_eq!(open(&file), 1, "{number}");
        }
    }
}
