//! What the handler says in the log.

use std::io;
use std::sync::Mutex;

use super::*;

#[test]
fn that_an_answer_is_too_long_is_logged_once_in_a_while() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(log.clone()).finish();
    tracing::subscriber::with_default(subscriber, || {
        let handler = sample::big(2000).into_handler();
        let packet = query("big.default.rollcall.internal.", RecordType::SRV).to_vec().unwrap();
        for _ in 0..3 {
            handler.answer(&packet, client(), Transport::Tcp, &mut Vec::new());
        }
    });
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<_> = text.lines().filter(|line| line.contains("64 KiB")).collect();
    let [line] = lines[..] else { panic!("one line, not {text}") };
    for part in ["WARN", "big.default.rollcall.internal.", "2000", "ask for fewer with a filter"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
}

/// What was logged.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
