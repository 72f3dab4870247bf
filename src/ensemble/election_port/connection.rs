//! One connection over which two members exchange votes: frames in, frames out.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tracing::warn;

use super::mailbox::Mailbox;
use crate::ensemble::log_limit::LogLimit;
use crate::ensemble::peers::PeerEvent;
use crate::id::ServerId;
use crate::wire::{FrameError, split_frame, write_frame};
use crate::zab::Notification;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum EndReason {
    #[error("the other end closed it")]
    Closed,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("a message without content")]
    Empty,
    #[error("the other end asks for SASL between members, which is not offered; use TLS")]
    Sasl,
    #[error("this member stops")]
    Stopped,
}

/// What is read at a time.
const READ_BYTES: usize = 4 << 10;
/// The beginning of what Apache ZooKeeper's members say to one another before all else when they use SASL.
const SASL_MAGIC: [u8; 4] = [0x5f, 0x24, 0x35, 0x01];

/// Passes messages on in both directions until the connection ends.
pub(super) async fn run(
    peer: ServerId,
    stream: impl AsyncRead + AsyncWrite,
    mailbox: &Mailbox,
    events: &mpsc::Sender<PeerEvent>,
) -> EndReason {
    let (reader, writer) = tokio::io::split(stream);
    let ended = tokio::select! {
        ended = read_messages(peer, reader, events) => ended,
        ended = write_messages(writer, mailbox) => ended,
    };
    match ended {
        Ok(never) => match never {},
        Err(reason) => reason,
    }
}

async fn read_messages(
    peer: ServerId,
    mut reader: ReadHalf<impl AsyncRead>,
    events: &mpsc::Sender<PeerEvent>,
) -> Result<Never, EndReason> {
    let mut buffer = BytesMut::new();
    let mut malformed = LogLimit::default();
    loop {
        if buffer.starts_with(&SASL_MAGIC) {
            return Err(EndReason::Sasl);
        }
        let Some(message) = split_frame(&mut buffer, Notification::BYTES_MAX)? else {
            // Often, nothing comes for days.
            if buffer.is_empty() {
                buffer = BytesMut::new();
            }
            buffer.reserve(READ_BYTES);
            match reader.read_buf(&mut buffer).await? {
                0 => return Err(EndReason::Closed),
                _ => continue,
            }
        };
        if message.is_empty() {
            return Err(EndReason::Empty);
        }
        match Notification::decode(&message) {
            Ok(message) => {
                let told = events.send(PeerEvent::Notification(peer, message)).await;
                told.map_err(|_gone| EndReason::Stopped)?;
            }
            Err(error) => {
                if let Some(held_back) = malformed.pass() {
                    warn!(%peer, %error, held_back, "ignoring what is no vote");
                }
            }
        }
    }
}

async fn write_messages(
    mut writer: WriteHalf<impl AsyncWrite>,
    mailbox: &Mailbox,
) -> Result<Never, EndReason> {
    loop {
        let message = mailbox.take().await;
        let mut frame = Vec::new();
        write_frame(&mut frame, |content| message.encode(content));
        writer.write_all(&frame).await?;
        writer.flush().await?;
    }
}

/// What a loop that only ends with an error returns.
enum Never {}
