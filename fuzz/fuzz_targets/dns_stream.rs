//! What a client sends over TCP: the first byte says in which pieces it arrives, the rest is the stream.
#![no_main]

mod dns;

use std::sync::LazyLock;

use bytes::BufMut;
use libfuzzer_sys::fuzz_target;
use rollcall::dns::tcp::frame::{Frame, Frames, QUERY_OCTETS_MAX};
use rollcall::dns::{Handler, Transport};

static HANDLER: LazyLock<Handler> = LazyLock::new(dns::handler);

fuzz_target!(|data: &[u8]| {
    let Some((step, stream)) = data.split_first() else { return };
    let messages = messages(stream, usize::from(*step) + 1);
    assert_eq!(messages, self::messages(stream, 1024), "pieces make no difference");
    for message in messages {
        assert!(message.len() <= QUERY_OCTETS_MAX);
        dns::answer(&HANDLER, &message, Transport::Tcp);
    }
});

/// The messages in a stream that arrives in pieces, up to the end of what can be framed.
fn messages(stream: &[u8], step: usize) -> Vec<Vec<u8>> {
    let mut frames = Frames::default();
    let mut messages = Vec::new();
    for piece in stream.chunks(step) {
        frames.room().put_slice(piece);
        while let Some(frame) = frames.next() {
            match frame {
                Frame::Whole(message) => messages.push(message.to_vec()),
                Frame::TooLong(header) => {
                    messages.push(header.to_vec());
                    return messages;
                }
            }
        }
    }
    messages
}
