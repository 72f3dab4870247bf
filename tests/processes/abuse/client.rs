//! Who asks as applications do: one question at a time, over UDP mostly.

use std::io::{self, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use rollcall::clock;

use super::CANARY;
use crate::support::dns::{A, Header, question};

#[derive(Debug)]
pub(super) struct Client {
    port: u16,
    udp: UdpSocket,
    /// Kept open between questions, as long as the server lets it.
    tcp: Option<TcpStream>,
    id: u16,
}

/// How long answers took.
#[derive(Debug, Default)]
pub(super) struct Latencies {
    pub(super) udp: Samples,
    pub(super) tcp: Samples,
}

#[derive(Debug, Default)]
pub(super) struct Samples(Vec<Duration>);

impl Client {
    pub(super) fn of(port: u16) -> Self {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket can be had");
        udp.connect(("127.0.0.1", port)).expect("loopback can be reached");
        udp.set_read_timeout(Some(LIMIT)).expect("a timeout can be set");
        Self { port, udp, tcp: None, id: 0 }
    }

    /// Asks one question after the other: of ten one over TCP, of a hundred one over a connection of its own.
    ///
    /// # Panics
    ///
    /// When one is not answered.
    pub(super) fn ask_for(&mut self, time: Duration) -> Latencies {
        let mut latencies = Latencies::default();
        let begin = clock::now();
        while begin.elapsed() < time {
            self.id = self.id.wrapping_add(1);
            let query = question(self.id, CANARY, A, 1);
            let asked = clock::now();
            let (answer, samples) = match self.id % 100 {
                99 => (self.ask_over_tcp(None, &query), &mut latencies.tcp),
                of_ten if of_ten % 10 == 9 => {
                    let kept = self.tcp.take();
                    (self.ask_over_tcp(kept, &query), &mut latencies.tcp)
                }
                _ => (self.ask_over_udp(&query), &mut latencies.udp),
            };
            samples.0.push(asked.elapsed());
            let header = Header::parse(&answer).expect("an answer has a header");
            assert_eq!((header.id, header.rcode, header.answers), (self.id, 0, 1), "{header:?}");
        }
        latencies
    }

    fn ask_over_udp(&self, query: &[u8]) -> Vec<u8> {
        self.udp.send(query).expect("loopback takes it");
        let mut answer = vec![0; 2_000];
        let length = self.udp.recv(&mut answer).unwrap_or_else(|error| panic!("no answer over UDP: {error}"));
        answer.truncate(length);
        answer
    }

    /// Asks over a connection that is open, and over another if the server has closed it (RFC 7766 section 6.2.4).
    fn ask_over_tcp(&mut self, kept: Option<TcpStream>, query: &[u8]) -> Vec<u8> {
        if let Some(answer) = kept.and_then(|kept| self.ask_over(kept, query).ok()) {
            return answer;
        }
        let answer = (0..ATTEMPTS).find_map(|_| self.ask_over(self.connected().ok()?, query).ok());
        answer.unwrap_or_else(|| panic!("no answer over {ATTEMPTS} connections"))
    }

    fn connected(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&([127, 0, 0, 1], self.port).into(), LIMIT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LIMIT))?;
        Ok(stream)
    }

    fn ask_over(&mut self, mut stream: TcpStream, query: &[u8]) -> io::Result<Vec<u8>> {
        let length = u16::try_from(query.len()).expect("a question is short").to_be_bytes();
        stream.write_all(&[&length, query].concat())?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut answer = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut answer)?;
        self.tcp = Some(stream);
        Ok(answer)
    }
}

impl Latencies {
    pub(super) fn extend(&mut self, other: Self) {
        self.udp.0.extend(other.udp.0);
        self.tcp.0.extend(other.tcp.0);
    }
}

impl Samples {
    pub(super) fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() * percent / 100).copied().unwrap_or_default()
    }
}

/// How long an answer is waited for: as long as stub resolvers do.
const LIMIT: Duration = Duration::from_secs(5);
/// Connections that may be closed before they have carried an answer.
const ATTEMPTS: usize = 3;
