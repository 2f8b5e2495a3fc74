//! The kernel's announcements of changes to links, addresses, routes and neighbours.

use std::io;

use netlink_sys::{Socket, SocketAddr};

use super::channel::{NetlinkError, ROUTE};

/// Groups of rtnetlink.h: links, neighbours, IPv4 addresses and routes, IPv6 addresses and routes.
const GROUPS: [u32; 6] = [1, 3, 5, 7, 9, 11];
/// Announcements are thrown away unread: what matters is that there was one.
const RECEIVE: usize = 64 * 1024;

/// A socket that hears of every change in its namespace.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
}

impl Monitor {
    /// Listens in the namespace of the calling thread.
    pub fn open() -> Result<Self, NetlinkError> {
        let failed = |error: io::Error| NetlinkError::io("listen to the kernel's announcements", &error);
        let mut socket = Socket::new(ROUTE).map_err(failed)?;
        socket.bind(&SocketAddr::new(0, 0)).map_err(failed)?;
        for group in GROUPS {
            socket.add_membership(group).map_err(failed)?;
        }
        Ok(Self { socket })
    }

    /// Waits for the next change. Announcements that were lost for want of room are a change too.
    pub fn wait(&self) -> Result<(), NetlinkError> {
        let mut buffer: Vec<u8> = Vec::with_capacity(RECEIVE);
        loop {
            match self.socket.recv(&mut buffer, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(NetlinkError::io("hear of changes", &error)),
            }
        }
    }
}
