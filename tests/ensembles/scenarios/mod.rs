//! What is done to ensembles, each with the kinds of its members as an argument.
//!
//! Short forms of what concerns ours run by default. The others are ignored: those of Apache alone, which showed that
//! nothing is asked for that it does not do. With `ROLLCALL_FULL=1` and `--run-ignored all`, as by
//! `tests/run full`, everything runs, at its full length.

mod crashes;
mod expiry;
mod full_disk;
mod local_sessions;
mod partitions;
mod pauses;
mod read_only;
mod reconfiguration;
mod rejoin;
mod slowness;
mod steady;
mod storage;
mod synchronization;
mod syncs;
mod tls;

use std::time::Duration;

use crate::client::{Client, Settings};
use crate::cluster::Cluster;
use crate::history::{Action, Change};
use crate::member::Kind;
use crate::recorder::Recorder;

/// Who makes up an ensemble. The last has the highest id: between equals it leads.
const OURS: [Kind; 3] = [Kind::Rollcall; 3];
const OURS_FIVE: [Kind; 5] = [Kind::Rollcall; 5];
const APACHE: [Kind; 3] = [Kind::Apache; 3];
/// Our leader, with one of ours and one of Apache's.
const OURS_AND_ONE: [Kind; 3] = [Kind::Rollcall, Kind::Apache, Kind::Rollcall];
/// Our leader, with two of Apache's.
const OURS_AND_TWO: [Kind; 3] = [Kind::Apache, Kind::Apache, Kind::Rollcall];
/// Apache's leader, with one of its own and one of ours.
const APACHE_AND_ONE: [Kind; 3] = [Kind::Apache, Kind::Rollcall, Kind::Apache];
/// Apache's leader, with two of ours.
const APACHE_AND_TWO: [Kind; 3] = [Kind::Rollcall, Kind::Rollcall, Kind::Apache];

/// The length of a scenario: the short form, or the full one.
fn rounds(short: usize, full: usize) -> usize {
    if is_full() { full } else { short }
}

/// A time that is longer in the full form.
fn seconds(short: u64, full: u64) -> Duration {
    Duration::from_secs(if is_full() { full } else { short })
}

fn is_full() -> bool {
    std::env::var_os("ROLLCALL_FULL").is_some_and(|value| value == "1")
}

/// A client of this one member.
fn client_of(cluster: &Cluster, index: usize, name: &str, timeout: Duration, recorder: &Recorder) -> Client {
    let servers = vec![cluster.servers().swap_remove(index)].into();
    let (session_timeout, recorder) = (timeout, recorder.clone());
    Client::new(name, Settings { servers, session_timeout, is_content_with_reading: false, recorder })
}

/// Sets `path` until so many writes are acknowledged, many at a time. Values are at least so long. A disk that stalls may cost a
/// leader its place here; what is asked for is what the ensemble holds in the end.
async fn write_many(client: &mut Client, path: &str, count: usize, value_bytes: usize) {
    const AT_ONCE: usize = 100;
    let writes = async {
        let mut acknowledged = 0;
        while acknowledged < count {
            let wanted = AT_ONCE.min(count - acknowledged);
            let sets = (0..wanted).map(|_set| set(client, path, value_bytes)).collect();
            let replies = client.call(sets).await;
            acknowledged += replies.iter().flatten().filter(|reply| reply.error == 0).count();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), writes).await.expect("the ensemble goes on writing");
}

/// A write of a value that was not written before.
fn set(client: &mut Client, path: &str, value_bytes: usize) -> Action {
    let value = format!("{:.<value_bytes$}", client.new_value());
    Action::Change(Change::Set { path: path.to_owned(), value, version: -1 })
}

async fn create(client: &mut Client, path: &str) {
    let value = client.new_value();
    let create = Change::Create { path: path.to_owned(), value, ephemeral: false };
    let reply = client.ask(Action::Change(create)).await.expect("a healthy ensemble answers");
    assert_eq!(reply.error, 0, "{path} can be made");
}
