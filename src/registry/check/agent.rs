//! Agent checks: what HAProxy's `agent-check` asks. Connect, and read one line.

use std::net::SocketAddr;

use tokio::io::AsyncReadExt;

use super::failure::CheckFailure;
use super::load::{AGENT_BYTES_MAX, Pass, agent_answer};
use super::tcp;

/// Reads what the agent says. It need not close the connection.
pub(super) async fn ask(server: SocketAddr) -> Result<Pass, CheckFailure> {
    let mut stream = tcp::connect(server).await?;
    let (mut said, mut buffer) = (Vec::new(), [0; AGENT_BYTES_MAX]);
    while !said.contains(&b'\n') && said.len() < AGENT_BYTES_MAX {
        let room = AGENT_BYTES_MAX - said.len();
        match stream.read(&mut buffer[..room]).await {
            Ok(0) => break,
            Ok(count) => said.extend_from_slice(&buffer[..count]),
            Err(source) => return Err(CheckFailure::Connect { server, source }),
        }
    }
    agent_answer(&String::from_utf8_lossy(&said)).map_err(|said| CheckFailure::Agent { server, said })
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_line_is_enough_and_a_flood_is_cut_off() {
        let share = |said: &'static [u8]| async move { asked(said, true).await.map(|pass| pass.share) };
        assert_eq!(share(b"up 40%\nand more").await.unwrap(), Some(0.4));
        assert_eq!(share(b"ready\n").await.unwrap(), None);
        assert_eq!(
            asked(b"25%", false).await.unwrap().share,
            Some(0.25),
            "it closes instead of a line's end"
        );
        let failure = share(b"drain\n").await.unwrap_err().to_string();
        assert!(failure.ends_with("says \"drain\""), "{failure}");
        assert!(share(&[b'x'; 4 * AGENT_BYTES_MAX]).await.is_err());
    }

    async fn asked(said: &[u8], stays_open: bool) -> Result<Pass, CheckFailure> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = listener.local_addr().unwrap();
        let agent = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _cut_off = stream.write_all(said).await;
            if stays_open {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            answer = async {
                // The agent that closes is done before it is heard.
                ask(server).await
            } => answer,
            () = async { agent.await; std::future::pending().await } => unreachable!("it waits for ever"),
        }
    }
}
