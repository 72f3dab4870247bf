//! Three members of ours that are an ensemble.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::dev::rollcall;
use super::{Port, Process, http, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

/// Their processes, on one folder.
pub(crate) struct Trio {
    members: Vec<Member>,
    _folder: TempDir,
}

struct Member {
    client: Port,
    status: Port,
    /// Where the others find it, which stay its own.
    _peers: [Port; 2],
    settings: PathBuf,
    process: Process,
}

impl Trio {
    /// Starts them and waits until all serve.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let ports: Vec<[Port; 4]> = (0..3).map(|_| [(); 4].map(|()| Port::free())).collect();
        let members: Vec<String> = (1..)
            .zip(&ports)
            .map(|(id, [client, _, quorum, election])| {
                format!(
                    "  - {{id: {id}, host: 127.0.0.1, client_port: {}, quorum_port: {}, election_port: {}}}\n",
                    client.number(),
                    quorum.number(),
                    election.number()
                )
            })
            .collect();
        let start = |(id, [client, status, quorum, election]): (u8, [Port; 4])| {
            let settings = folder.path().join(format!("member{id}.yaml"));
            let text = format!(
                "server_id: {id}\ndata_dir: {}\nclient: {{address: {}}}\nstatus_address: {}\nmembers:\n{}",
                folder.path().join(format!("data{id}")).display(),
                client.address(),
                status.address(),
                members.concat()
            );
            std::fs::write(&settings, text).expect("a file can be written");
            let process = run(&settings);
            Member { client, status, _peers: [quorum, election], settings, process }
        };
        let members = (1..).zip(ports).map(start).collect();
        let trio = Self { members, _folder: folder };
        trio.wait_until_all_serve();
        trio
    }

    /// `HOST:PORT` of each for clients, separated by commas.
    pub(crate) fn addresses(&self) -> String {
        let addresses: Vec<_> = self.members.iter().map(|member| member.client.address()).collect();
        addresses.join(",")
    }

    /// Ends all of them as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.members.iter_mut().for_each(|member| member.process.kill());
    }

    /// Starts all of them on what they had, and waits until they serve.
    pub(crate) fn restart(&mut self) {
        self.members.iter_mut().for_each(|member| member.process = run(&member.settings));
        self.wait_until_all_serve();
    }

    fn wait_until_all_serve(&self) {
        for member in &self.members {
            let is_ready = || http::get(member.status.number(), "/readyz").is_ok_and(|it| it.status == 200);
            wait_until("a member serves", LIMIT, is_ready);
        }
    }
}

fn run(settings: &Path) -> Process {
    Process::start("rollcall ensemble", rollcall().arg("ensemble").arg("-c").arg(settings))
}
