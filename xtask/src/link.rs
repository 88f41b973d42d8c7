//! A network between two guests of one run: a cable, and who is at its ends.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

/// One end of the cable.
pub struct End {
    number: u8,
    socket: UnixStream,
}

impl End {
    /// Both ends of a cable: a pair of sockets without a name, which nobody else can connect to.
    pub fn both() -> io::Result<[Self; 2]> {
        let (one, other) = UnixStream::pair()?;
        Ok([Self { number: 1, socket: one }, Self { number: 2, socket: other }])
    }

    /// What the guest here is called, by the guest there too: node1 or node2.
    pub fn name(&self) -> String {
        format!("node{}", self.number)
    }

    /// What QEMU must inherit.
    pub fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// What QEMU must be told.
    pub fn options(&self) -> [String; 4] {
        [
            "-netdev".to_owned(),
            format!("socket,id=link,fd={}", self.descriptor()),
            "-device".to_owned(),
            // A page of RoCE payload with its headers fits into this MTU.
            format!("virtio-net-pci,netdev=link,mac=02:00:00:00:00:0{},host_mtu=4200", self.number),
        ]
    }
}
