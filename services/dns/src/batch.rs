//! Receives and sends packets in batches, by `recvmmsg` and `sendmmsg`: two system calls per batch instead of three per
//! packet. This module holds the only unsafe code of the daemon.
//!
//! # Safety
//!
//! Each call gets pointers to buffers that a [`Batch`] owns, with their true lengths. The code makes these pointers for
//! one call, from exclusive borrows. It reads a buffer up to the length that the kernel reports, and never beyond its
//! end. It reads an address as IPv4 or IPv6 only if the reported length is large enough. All bytes of addresses and
//! control messages are initialised.

#![allow(
    unsafe_code,
    reason = "recvmmsg and sendmmsg have no safe wrapper that keeps its buffers between calls"
)]

use std::{
    io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    os::fd::AsRawFd,
    ptr,
};

/// Packets per batch.
const SIZE: usize = 32;
/// Queries are short. The kernel cuts longer packets, and the decoder then refuses them.
const MAX_QUERY: usize = 1500;
/// Size of the control message with the local address of a packet.
const CONTROL: usize = 64;

/// Buffers for the packets of one loop.
pub(crate) struct Batch {
    slots: Vec<Slot>,
    received: usize,
    /// Whether each packet carries its local address, from which the answer must go out.
    uses_pktinfo: bool,
}

struct Slot {
    query: [u8; MAX_QUERY],
    length: usize,
    peer: libc::sockaddr_storage,
    peer_length: libc::socklen_t,
    control: Control,
    control_length: usize,
    answer: Vec<u8>,
}

/// A buffer with the alignment of control messages.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

impl Batch {
    /// Prepares a blocking socket. A socket that is bound to every address must answer from the address that the query was
    /// sent to, because the client ignores an answer from another address.
    ///
    /// # Errors
    /// When the kernel refuses a socket option.
    pub(crate) fn new(socket: &UdpSocket) -> io::Result<Self> {
        let address = socket.local_addr()?.ip();
        let uses_pktinfo = address.is_unspecified();
        let (level, pktinfo) = match address {
            IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO),
            IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
        };
        if uses_pktinfo {
            set(socket, level, pktinfo, 1)?;
        }
        // Ignores path MTU messages: a forged one could make the server send fragments, which attackers can replace.
        match address {
            IpAddr::V4(_) => set(socket, level, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_OMIT)?,
            IpAddr::V6(_) => set(socket, level, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_OMIT)?,
        }
        Ok(Self { slots: (0..SIZE).map(|_| Slot::new()).collect(), received: 0, uses_pktinfo })
    }

    /// Waits for packets and receives up to a whole batch. Receives none when the socket's time-out ends.
    ///
    /// # Errors
    /// When the socket fails.
    pub(crate) fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.received = 0;
        let uses_pktinfo = self.uses_pktinfo;
        let mut parts: [libc::iovec; SIZE] = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; SIZE];
        // SAFETY: zeroes are a valid mmsghdr: null pointers and no lengths.
        let mut headers: [libc::mmsghdr; SIZE] = unsafe { mem::zeroed() };
        for ((slot, part), header) in self.slots.iter_mut().zip(&mut parts).zip(&mut headers) {
            part.iov_base = slot.query.as_mut_ptr().cast();
            part.iov_len = slot.query.len();
            let header = &mut header.msg_hdr;
            header.msg_name = (&raw mut slot.peer).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_iov = part;
            header.msg_iovlen = 1;
            if uses_pktinfo {
                header.msg_control = slot.control.0.as_mut_ptr().cast();
                header.msg_controllen = CONTROL;
            }
        }
        // SAFETY: see the module. MSG_WAITFORONE: wait for the first packet only.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                SIZE as libc::c_uint,
                libc::MSG_WAITFORONE,
                ptr::null_mut(),
            )
        };
        let Ok(received) = usize::try_from(received) else {
            let error = io::Error::last_os_error();
            return match error.kind() {
                // An ICMP error for an earlier answer. The socket still works.
                io::ErrorKind::WouldBlock
                | io::ErrorKind::Interrupted
                | io::ErrorKind::ConnectionRefused
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable => Ok(0),
                _ => Err(error),
            };
        };
        self.received = received.min(SIZE);
        for (slot, header) in self.slots.iter_mut().zip(&mut headers).take(self.received) {
            slot.length = (header.msg_len as usize).min(MAX_QUERY);
            slot.peer_length = header.msg_hdr.msg_namelen;
            slot.control_length = 0;
            if uses_pktinfo {
                set_reply_source(&mut header.msg_hdr);
                slot.control_length = header.msg_hdr.msg_controllen.min(CONTROL);
            }
        }
        Ok(self.received)
    }

    /// Calls `answer` for each packet. `answer` writes the answer to its last argument and returns whether there is
    /// one.
    pub(crate) fn answer(&mut self, mut answer: impl FnMut(&[u8], IpAddr, &mut Vec<u8>) -> bool) {
        for slot in &mut self.slots[..self.received] {
            let answered =
                slot.peer().is_some_and(|peer| answer(&slot.query[..slot.length], peer, &mut slot.answer));
            if !answered {
                slot.answer.clear();
            }
        }
    }

    /// Sends the answers and returns the number that could not be sent. A full send buffer drops answers, as a network
    /// may; clients ask again.
    pub(crate) fn send(&mut self, socket: &UdpSocket) -> u64 {
        let mut parts: [libc::iovec; SIZE] = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; SIZE];
        // SAFETY: zeroes are a valid mmsghdr: null pointers and no lengths.
        let mut headers: [libc::mmsghdr; SIZE] = unsafe { mem::zeroed() };
        let mut count = 0;
        for slot in self.slots[..self.received].iter_mut().filter(|slot| !slot.answer.is_empty()) {
            let part = &mut parts[count];
            part.iov_base = slot.answer.as_mut_ptr().cast();
            part.iov_len = slot.answer.len();
            let header = &mut headers[count].msg_hdr;
            header.msg_name = (&raw mut slot.peer).cast();
            header.msg_namelen = slot.peer_length;
            header.msg_iov = part;
            header.msg_iovlen = 1;
            if slot.control_length > 0 {
                header.msg_control = slot.control.0.as_mut_ptr().cast();
                header.msg_controllen = slot.control_length;
            }
            count += 1;
        }
        let (mut sent, mut unsent) = (0, 0);
        while sent < count {
            let rest = &mut headers[sent..count];
            // SAFETY: see the module.
            let done = unsafe {
                let (first, length) = (rest.as_mut_ptr(), rest.len() as libc::c_uint);
                libc::sendmmsg(socket.as_raw_fd(), first, length, libc::MSG_DONTWAIT)
            };
            match usize::try_from(done) {
                Ok(done) if done > 0 => sent += done,
                // The first of the remaining answers cannot be sent.
                _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                _ => {
                    sent += 1;
                    unsent += 1;
                }
            }
        }
        unsent
    }
}

impl Slot {
    fn new() -> Self {
        Self {
            query: [0; MAX_QUERY],
            length: 0,
            // SAFETY: zeroes are a valid address with an unspecified family.
            peer: unsafe { mem::zeroed() },
            peer_length: 0,
            control: Control([0; CONTROL]),
            control_length: 0,
            answer: Vec::with_capacity(MAX_QUERY),
        }
    }

    fn peer(&self) -> Option<IpAddr> {
        let at_least = |length: usize| self.peer_length as usize >= length;
        match libc::c_int::from(self.peer.ss_family) {
            libc::AF_INET if at_least(size_of::<libc::sockaddr_in>()) => {
                // SAFETY: the family field matches, and the storage is large and aligned enough for every family.
                let peer = unsafe { &*(&raw const self.peer).cast::<libc::sockaddr_in>() };
                Some(Ipv4Addr::from(u32::from_be(peer.sin_addr.s_addr)).into())
            }
            libc::AF_INET6 if at_least(size_of::<libc::sockaddr_in6>()) => {
                // SAFETY: as above.
                let peer = unsafe { &*(&raw const self.peer).cast::<libc::sockaddr_in6>() };
                Some(Ipv6Addr::from(peer.sin6_addr.s6_addr).into())
            }
            _ => None,
        }
    }
}

/// Turns the control message with the destination of a packet into the one with the source of its answer. The routing
/// table chooses the interface.
fn set_reply_source(header: &mut libc::msghdr) {
    // SAFETY: the kernel has just filled this control buffer up to this length, and the macros stay within it. The data
    // is written where the kernel has written a value of the same type.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while !message.is_null() {
            match ((*message).cmsg_level, (*message).cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = libc::CMSG_DATA(message).cast::<libc::in_pktinfo>();
                    let mut reply_info = info.read_unaligned();
                    reply_info.ipi_spec_dst = reply_info.ipi_addr;
                    reply_info.ipi_ifindex = 0;
                    info.write_unaligned(reply_info);
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = libc::CMSG_DATA(message).cast::<libc::in6_pktinfo>();
                    let mut reply_info = info.read_unaligned();
                    // A link-local address needs its interface.
                    if reply_info.ipi6_addr.s6_addr[..2] != [0xfe, 0x80] {
                        reply_info.ipi6_ifindex = 0;
                    }
                    info.write_unaligned(reply_info);
                }
                _ => {}
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
}

fn set(socket: &UdpSocket, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: these options take a c_int, and the pointer and length describe one.
    let done = unsafe {
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TEST_TIMEOUT: Duration = Duration::from_secs(30);

    fn echo(batch: &mut Batch, socket: &UdpSocket, mut packets: usize) {
        while packets > 0 {
            packets -= batch.receive(socket).unwrap();
            batch.answer(|query, from, out| {
                assert!(from.to_canonical().is_loopback());
                out.clear();
                out.extend_from_slice(query);
                !query.is_empty()
            });
            assert_eq!(batch.send(socket), 0);
        }
    }

    #[test]
    fn answers_return_to_their_senders() {
        for (bound, from, at) in [
            ("127.0.0.1:0", "127.0.0.1:0", "127.0.0.1"),
            ("0.0.0.0:0", "127.0.0.1:0", "127.0.0.5"),
            ("[::]:0", "[::1]:0", "[::1]"),
        ] {
            // The machine has no IPv6.
            let (Ok(server), Ok(_)) = (UdpSocket::bind(bound), UdpSocket::bind(from)) else { continue };
            server.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
            let mut batch = Batch::new(&server).unwrap();
            let server_address = format!("{at}:{}", server.local_addr().unwrap().port());
            let clients: Vec<UdpSocket> = (0..3)
                .map(|_| {
                    let client = UdpSocket::bind(from).unwrap();
                    client.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
                    // A connected socket receives packets from this address only.
                    client.connect(&server_address).unwrap();
                    client
                })
                .collect();
            for round in 0u8..20 {
                for (n, client) in clients.iter().enumerate() {
                    client.send(&[round, n as u8]).unwrap();
                }
            }
            echo(&mut batch, &server, 60);
            for round in 0u8..20 {
                for (n, client) in clients.iter().enumerate() {
                    let mut answer = [0; 8];
                    assert_eq!(client.recv(&mut answer).unwrap(), 2);
                    assert_eq!(answer[..2], [round, n as u8]);
                }
            }
        }
    }

    #[test]
    fn empty_and_oversized_packets_are_received() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        let mut batch = Batch::new(&server).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(server.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        client.send(&[]).unwrap();
        client.send(&[7; 4000]).unwrap();
        echo(&mut batch, &server, 2);
        let mut answer = [0; 8000];
        assert_eq!(client.recv(&mut answer).unwrap(), MAX_QUERY);
    }

    #[test]
    fn receive_returns_zero_on_timeout() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        assert_eq!(Batch::new(&server).unwrap().receive(&server).unwrap(), 0);
    }
}
