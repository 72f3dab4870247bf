//! Where abuse harms nobody: what it costs a client there is the machine's share, which is in whatever it costs beside a server.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

/// Takes what comes, and does nothing with it.
#[derive(Debug)]
pub(super) struct Sink {
    addr: SocketAddr,
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Sink {
    pub(super) fn start() -> Self {
        let (tcp, udp) = (0..ATTEMPTS).find_map(|_| bound().ok()).expect("a port can be had twice");
        let addr = tcp.local_addr().expect("it has an address");
        let is_over = Arc::new(AtomicBool::new(false));
        let (of_tcp, of_udp) = (is_over.clone(), is_over.clone());
        let threads = vec![
            thread::spawn(move || hold(&tcp, &of_tcp)),
            thread::spawn(
                move || while udp.recv(&mut [0; 2_048]).is_ok() && !of_udp.load(Ordering::Acquire) {},
            ),
        ];
        Self { addr, is_over, threads }
    }

    pub(super) const fn port(&self) -> u16 {
        self.addr.port()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        // Each waits for something.
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.send_to(b"", self.addr));
        let tcp = TcpStream::connect(self.addr);
        if udp.is_ok() && tcp.is_ok() {
            for thread in self.threads.drain(..) {
                let _panicked = thread.join();
            }
        }
    }
}

/// Keeps the newest connections.
fn hold(listener: &TcpListener, is_over: &AtomicBool) {
    let mut held = VecDeque::with_capacity(HELD);
    while let Ok((stream, _)) = listener.accept() {
        if is_over.load(Ordering::Acquire) {
            return;
        }
        if held.len() == HELD {
            held.pop_front();
        }
        held.push_back(stream);
    }
}

fn bound() -> io::Result<(TcpListener, UdpSocket)> {
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let udp = UdpSocket::bind(tcp.local_addr()?)?;
    Ok((tcp, udp))
}

/// As many as a sidecar keeps.
const HELD: usize = 768;
/// Ports that are tried, of which the system gives those that are free for TCP.
const ATTEMPTS: usize = 16;
