//! Many datagrams with one system call, recvmmsg(2) and sendmmsg(2): the one module with unsafe code.
//!
//! No crate that is kept has a safe form of both: rustix has `sendmmsg` alone, and nix's would be a crate more that hides the
//! same pointers.
//!
//! **Why it is sound.** Headers with pointers are made anew for each call, from slices and places that are borrowed for as long as the
//! call takes; none outlives it. The kernel writes to what is borrowed mutably ([`Inbox`]) and within the lengths that it is given, and
//! only reads what is to be sent. Lengths that it returns are bounded by ours before they are used, and no octet is looked at that was
//! not initialized: buffers start as zeros.

#![expect(unsafe_code, reason = "neither std nor a crate of ours has these calls; see above")]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// The most datagrams of one call.
pub const BATCH: usize = 64;
/// Datagrams that are asked for at least; each header of a call takes some nanoseconds, whether it is filled or not.
const BATCH_MIN: usize = 8;

/// Octets of a `sockaddr_in6`, the longer of the two kinds of addresses there are here.
const NAME_OCTETS: usize = size_of::<libc::sockaddr_in6>();
/// Octets of an `in6_pktinfo`, the longer of what control messages have here.
const INFO_OCTETS: libc::c_uint = 20;
const _: () = assert!(INFO_OCTETS as usize == size_of::<libc::in6_pktinfo>(), "and no shorter");
/// Octets of a control message with one, and its padding.
// SAFETY: it computes a length from a length.
const CONTROL_OCTETS: usize = unsafe { libc::CMSG_SPACE(INFO_OCTETS) } as usize;
/// Octets of the head of a control message.
// SAFETY: as above.
const CONTROL_HEAD_OCTETS: usize = unsafe { libc::CMSG_LEN(0) } as usize;

/// Who sent a datagram, and which of our addresses it was sent to, where the socket has more than one.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    name: Name,
    name_octets: usize,
    control: Control,
    control_octets: usize,
}

/// A `sockaddr_in` or `sockaddr_in6`.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
struct Name([u8; NAME_OCTETS]);

/// A control message.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_OCTETS]);

impl Origin {
    const NONE: Self = Self {
        name: Name([0; NAME_OCTETS]),
        name_octets: 0,
        control: Control([0; CONTROL_OCTETS]),
        control_octets: 0,
    };

    /// Who sent it; `None` when it is of no family that has ports.
    pub fn client(&self) -> Option<SocketAddr> {
        let octets = self.name.0.get(..self.name_octets)?;
        let family = i32::from(u16::from_ne_bytes(*octets.first_chunk()?));
        let port = u16::from_be_bytes(*octets.get(2..)?.first_chunk()?);
        match family {
            libc::AF_INET => {
                let address: [u8; 4] = *octets.get(4..)?.first_chunk()?;
                Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(address)), port))
            }
            libc::AF_INET6 => {
                let flow = u32::from_be_bytes(*octets.get(4..)?.first_chunk()?);
                let address: [u8; 16] = *octets.get(8..)?.first_chunk()?;
                let scope = u32::from_ne_bytes(*octets.get(24..)?.first_chunk()?);
                Some(SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from(address), port, flow, scope)))
            }
            _ => None,
        }
    }

    /// Leaves the way of an answer to the routing table: of the control message no more than our own address is kept.
    fn forget_interface(&mut self) {
        let (head, info) = self.control.0.split_at_mut(CONTROL_HEAD_OCTETS);
        let word = |at: usize| head.get(at..)?.first_chunk().map(|octets| i32::from_ne_bytes(*octets));
        let level_at = size_of::<usize>();
        let interface_at = match (word(level_at), word(level_at + size_of::<i32>())) {
            (Some(libc::IPPROTO_IP), Some(libc::IP_PKTINFO)) => 0,
            (Some(libc::IPPROTO_IPV6), Some(libc::IPV6_PKTINFO)) => size_of::<libc::in6_addr>(),
            _ => {
                self.control_octets = 0;
                return;
            }
        };
        if let Some(interface) = info.get_mut(interface_at..interface_at + size_of::<i32>()) {
            interface.fill(0);
        }
    }
}

/// Datagrams that were received with one call. Their memory is used again by the next.
#[derive(Debug)]
pub struct Inbox {
    octets_max: usize,
    octets: Vec<u8>,
    lengths: [usize; BATCH],
    origins: Box<[Origin; BATCH]>,
    /// How many were received.
    count: usize,
    /// How many are asked for: twice what there was the last time.
    asked: usize,
}

impl Inbox {
    /// An empty one, for datagrams that are cut to `octets_max`.
    pub fn new(octets_max: usize) -> Self {
        Self {
            octets_max,
            octets: vec![0; BATCH * octets_max],
            lengths: [0; BATCH],
            origins: Box::new([Origin::NONE; BATCH]),
            count: 0,
            asked: BATCH_MIN,
        }
    }

    /// Receives what is there instead of what was. Whether that was all: fewer than were asked for.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] when there is nothing, or what the system says.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        self.count = 0;
        let asked = self.asked;
        let mut vectors = [const { MaybeUninit::<libc::iovec>::uninit() }; BATCH];
        let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; BATCH];
        let packets = self.octets.chunks_exact_mut(self.octets_max);
        for (((packet, origin), vector), header) in
            packets.zip(self.origins.iter_mut()).zip(&mut vectors).zip(&mut headers).take(asked)
        {
            let vector =
                vector.write(libc::iovec { iov_base: packet.as_mut_ptr().cast(), iov_len: packet.len() });
            let header = header.write(empty_header());
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = ptr::from_mut(&mut origin.name).cast();
            header.msg_hdr.msg_namelen = count_of(NAME_OCTETS);
            header.msg_hdr.msg_control = ptr::from_mut(&mut origin.control).cast();
            header.msg_hdr.msg_controllen = CONTROL_OCTETS as _;
        }
        let header_count = count_of(asked);
        let count = retried(|| {
            // SAFETY: the first `asked` headers are initialized above and point to memory that is borrowed mutably from `self` until
            // this function ends, each to its own and with its length.
            unsafe {
                libc::recvmmsg(
                    socket.as_raw_fd(),
                    headers.as_mut_ptr().cast(),
                    header_count,
                    libc::MSG_DONTWAIT as _,
                    ptr::null_mut(),
                )
            }
        })?;
        let count = count.min(asked);
        for ((header, length), origin) in
            headers.iter().zip(&mut self.lengths).zip(self.origins.iter_mut()).take(count)
        {
            // SAFETY: initialized above.
            let header = unsafe { header.assume_init_ref() };
            *length = (header.msg_len as usize).min(self.octets_max);
            origin.name_octets = (header.msg_hdr.msg_namelen as usize).min(NAME_OCTETS);
            #[expect(clippy::unnecessary_cast, reason = "its type is another in other C libraries")]
            let control_octets = header.msg_hdr.msg_controllen as usize;
            origin.control_octets = control_octets.min(CONTROL_OCTETS);
            if control_octets > 0 {
                origin.forget_interface();
            }
        }
        self.count = count;
        self.asked = (2 * count).clamp(BATCH_MIN, BATCH);
        Ok(count < asked)
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The octets of one of them.
    ///
    /// # Panics
    ///
    /// When there are not so many.
    pub fn packet(&self, at: usize) -> &[u8] {
        let start = at * self.octets_max;
        &self.octets[start..start + self.lengths[..self.count][at]]
    }

    /// Where one of them came from.
    ///
    /// # Panics
    ///
    /// When there are not so many.
    pub fn origin(&self, at: usize) -> &Origin {
        &self.origins[..self.count][at]
    }
}

/// Sends datagrams back to where others came from, [`BATCH`] at most, and says how many were sent.
///
/// # Errors
///
/// What the system says about the first of them: [`io::ErrorKind::WouldBlock`] when there is no room.
pub fn send<'a>(
    socket: BorrowedFd<'_>,
    messages: impl Iterator<Item = (&'a [u8], &'a Origin)>,
) -> io::Result<usize> {
    let mut vectors = [const { MaybeUninit::<libc::iovec>::uninit() }; BATCH];
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; BATCH];
    let mut count = 0;
    for (((octets, origin), vector), header) in messages.zip(&mut vectors).zip(&mut headers) {
        // The kernel only reads what these point to.
        let vector =
            vector.write(libc::iovec { iov_base: octets.as_ptr().cast_mut().cast(), iov_len: octets.len() });
        let header = header.write(empty_header());
        header.msg_hdr.msg_iov = vector;
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_name = ptr::from_ref(&origin.name).cast_mut().cast();
        header.msg_hdr.msg_namelen = count_of(origin.name_octets);
        if origin.control_octets > 0 {
            header.msg_hdr.msg_control = ptr::from_ref(&origin.control).cast_mut().cast();
            header.msg_hdr.msg_controllen = origin.control_octets as _;
        }
        count += 1;
    }
    if count == 0 {
        return Ok(0);
    }
    retried(|| {
        // SAFETY: the first `count` headers are initialized above and point to octets and origins that are borrowed for `'a`, which
        // outlives this call, with lengths within theirs.
        unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr().cast(),
                count,
                (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
            )
        }
    })
}

/// Has the kernel say to which of our addresses each datagram was sent, so that answers come from there: needed where a socket is bound
/// to all of them, since clients drop answers from elsewhere (RFC 1035 section 7.3, RFC 5452 section 9.1).
///
/// # Errors
///
/// What the system says.
pub fn tell_destinations(socket: BorrowedFd<'_>, is_ipv6: bool) -> io::Result<()> {
    let (level, option) = match is_ipv6 {
        true => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
        false => (libc::IPPROTO_IP, libc::IP_PKTINFO),
    };
    let on: libc::c_int = 1;
    // SAFETY: the option is an int, to which it is given a pointer and its size.
    let status = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            ptr::from_ref(&on).cast(),
            count_of(size_of::<libc::c_int>()),
        )
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A header that points nowhere.
fn empty_header() -> libc::mmsghdr {
    // SAFETY: of integers and pointers, for which zeros are values; it may have padding fields that cannot be named.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

/// A count of ours in the kernel's type: it is below some thousands.
fn count_of(count: usize) -> libc::c_uint {
    libc::c_uint::try_from(count).unwrap_or(0)
}

/// Calls until it is not a signal that interrupts; a negative number is an error.
fn retried(mut call: impl FnMut() -> libc::c_int) -> io::Result<usize> {
    loop {
        if let Ok(count) = usize::try_from(call()) {
            return Ok(count);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::time::Duration;

    use super::*;

    #[test]
    fn whatever_comes_goes_back_to_who_sent_it() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let server = UdpSocket::bind(any).unwrap();
            let clients: Vec<_> = (0..3).map(|_| client_of(&server, any)).collect();
            let mut inbox = Inbox::new(512);
            for round in 0..40_u8 {
                // More at once than are asked for, and than one call takes.
                let per_client = 1 + usize::from(round);
                for (at, client) in clients.iter().enumerate() {
                    for number in 0..per_client {
                        client.send(&vec![round; 3 * number + at]).unwrap();
                    }
                }
                let mut received = 0;
                while received < 3 * per_client {
                    match inbox.receive(server.as_fd()) {
                        Ok(is_all) => assert!(!inbox.is_empty() && (!is_all || inbox.len() < BATCH)),
                        Err(error) => panic!("{received} of {}: {error}", 3 * per_client),
                    }
                    let messages = || (0..inbox.len()).map(|at| (inbox.packet(at), inbox.origin(at)));
                    for (octets, origin) in messages() {
                        let client = &clients[octets.len() % 3];
                        assert_eq!(origin.client(), Some(client.local_addr().unwrap()));
                        assert!(octets.iter().all(|octet| *octet == round));
                    }
                    assert_eq!(send(server.as_fd(), messages()).unwrap(), inbox.len());
                    received += inbox.len();
                }
                let error = inbox.receive(server.as_fd()).unwrap_err();
                assert_eq!((error.kind(), inbox.len()), (io::ErrorKind::WouldBlock, 0));
                for (at, client) in clients.iter().enumerate() {
                    for number in 0..per_client {
                        assert_eq!(client.recv(&mut [0; 1_000]).unwrap(), 3 * number + at, "in order");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_too_long_is_cut_and_what_is_sent_nowhere_is_an_error_of_the_first() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = client_of(&server, "127.0.0.1:0");
        let mut inbox = Inbox::new(100);
        client.send(&[7; 101]).unwrap();
        client.send(&[8; 100]).unwrap();
        assert!(inbox.receive(server.as_fd()).unwrap());
        assert_eq!((inbox.packet(0), inbox.packet(1)), (&[7; 100][..], &[8; 100][..]));
        let huge = vec![0; 70_000];
        let origin = inbox.origin(0);
        let messages = [(inbox.packet(1), origin), (&huge, origin), (inbox.packet(1), origin)];
        assert_eq!(send(server.as_fd(), messages.into_iter()).unwrap(), 1);
        assert_eq!(
            send(server.as_fd(), messages.into_iter().skip(1)).unwrap_err().raw_os_error(),
            Some(libc::EMSGSIZE)
        );
        assert_eq!(send(server.as_fd(), std::iter::empty()).unwrap(), 0);
        assert_eq!(Origin::NONE.client(), None);
    }

    fn client_of(server: &UdpSocket, any: &str) -> UdpSocket {
        server.set_nonblocking(true).unwrap();
        let client = UdpSocket::bind(any).unwrap();
        client.connect(server.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client
    }
}
