use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustix::fs::{CWD, Mode, mkfifoat};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// An authority, and a folder for what it signs.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    /// Signs a certificate for `name`, and writes it and its key into one file.
    fn sign(&self, name: &str) -> TlsFiles {
        let key = KeyPair::generate().unwrap();
        let cert =
            CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let file = self.folder.path().join(format!("{name}.pem"));
        fs::write(&file, format!("{}{}", key.serialize_pem(), cert.pem())).unwrap();
        TlsFiles {
            cert: file.clone(),
            key: file,
            ca: self.folder.path().join("ca.pem"),
            client_auth: ClientAuth::Need,
            verify_hostname: true,
        }
    }
}

/// Says something over TLS and hears it back; the error of whichever end has one.
async fn talk(server: &Tls, client: &Tls, host: &str) -> io::Result<()> {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let serve = async {
        let mut socket = server.accept(theirs).await?;
        let mut word = [0; 5];
        socket.read_exact(&mut word).await?;
        socket.write_all(&word).await?;
        socket.shutdown().await
    };
    let ask = async {
        let mut socket = client.connect(host, ours).await?;
        socket.write_all(b"hello").await?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await?;
        assert_eq!(answer, b"hello");
        Ok(())
    };
    let both = async {
        let (served, asked) = tokio::join!(serve, ask);
        asked.and(served)
    };
    tokio::time::timeout(Duration::from_secs(10), both).await.expect("neither waits for ever")
}

#[tokio::test]
async fn members_that_one_authority_has_signed_talk_to_each_other() {
    let authority = Authority::new();
    let [one, two] = ["one.example", "two.example"].map(|name| Tls::load(authority.sign(name)).unwrap());
    talk(&one, &two, "one.example").await.unwrap();
    let error = talk(&one, &two, "three.example").await.unwrap_err().to_string();
    assert!(error.contains("not valid for name"), "{error}");
    let careless = TlsFiles { verify_hostname: false, ..authority.sign("two.example") };
    talk(&one, &Tls::load(careless).unwrap(), "three.example").await.unwrap();
}

#[tokio::test]
async fn a_stranger_is_refused_at_both_ends() {
    let (ours, others) = (Authority::new(), Authority::new());
    let member = Tls::load(ours.sign("member.example")).unwrap();
    let stranger = Tls::load(others.sign("member.example")).unwrap();
    for (server, client) in [(&member, &stranger), (&stranger, &member)] {
        assert!(talk(server, client, "member.example").await.is_err());
    }
    // It trusts us, but we do not trust it: only its certificate is wrong.
    let liar = TlsFiles { ca: ours.folder.path().join("ca.pem"), ..others.sign("member.example") };
    let liar = Tls::load(liar).unwrap();
    assert!(talk(&member, &liar, "member.example").await.is_err());
    let trusting = TlsFiles { client_auth: ClientAuth::None, ..ours.sign("member.example") };
    talk(&Tls::load(trusting).unwrap(), &liar, "member.example").await.unwrap();
}

#[tokio::test]
async fn new_files_are_taken_and_broken_ones_change_nothing() {
    let (old, new) = (Authority::new(), Authority::new());
    let files = old.sign("member.example");
    let member = Tls::load(files.clone()).unwrap();
    let of_new = Tls::load(new.sign("other.example")).unwrap();
    assert!(talk(&member, &of_new, "member.example").await.is_err());

    fs::write(&files.cert, "broken").unwrap();
    let of_old = Tls::load(old.sign("other.example")).unwrap();
    talk(&member, &of_old, "member.example").await.unwrap();

    let signed_by_new = new.sign("member.example");
    fs::copy(new.folder.path().join("ca.pem"), &files.ca).unwrap();
    fs::copy(&signed_by_new.cert, &files.cert).unwrap();
    talk(&member, &of_new, "member.example").await.unwrap();
}

#[tokio::test]
async fn a_client_believes_new_authorities_and_keeps_the_old_when_they_are_broken() {
    let (old, new) = (Authority::new(), Authority::new());
    let open = |files| Tls::load(TlsFiles { client_auth: ClientAuth::None, ..files }).unwrap();
    let (of_old, of_new) = (open(old.sign("app.example")), open(new.sign("app.example")));
    let ca = old.folder.path().join("trusted.pem");
    let client = TlsClient::new(Trust::Authorities(ca.clone()));
    assert!(matches!(client.load(), Err(TlsDialError::Authorities(_))), "the file may come later");

    fs::write(&ca, old.issuer.pem()).unwrap();
    meet(&of_old, &client).await.unwrap();
    meet(&of_new, &client).await.unwrap_err();
    fs::write(&ca, "broken").unwrap();
    meet(&of_old, &client).await.unwrap();
    fs::write(&ca, format!("{}{}", old.issuer.pem(), new.issuer.pem())).unwrap();
    meet(&of_old, &client).await.unwrap();
    meet(&of_new, &client).await.unwrap();
}

/// Whether a client comes to terms with a server.
async fn meet(server: &Tls, client: &TlsClient) -> Result<(), TlsDialError> {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let both = async { tokio::join!(server.accept(theirs), client.connect("app.example", ours)) };
    let (_served, asked) =
        tokio::time::timeout(Duration::from_secs(10), both).await.expect("neither waits for ever");
    asked.map(drop)
}

#[test]
fn what_is_wrong_with_a_file_is_said_and_no_secret_with_it() {
    let authority = Authority::new();
    let files = authority.sign("member.example");
    let put = |name: &str, text: &str| {
        let file = authority.folder.path().join(name);
        fs::write(&file, text).unwrap();
        file
    };
    let empty = put("empty.pem", "");
    let encrypted = put(
        "encrypted.pem",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nc2VjcmV0\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let fifo = authority.folder.path().join("fifo.pem");
    mkfifoat(CWD, &fifo, Mode::RUSR | Mode::WUSR).unwrap();
    let wrong = [
        (TlsFiles { cert: empty.clone(), ..files.clone() }, "empty.pem: there is no certificate in it"),
        (TlsFiles { ca: empty.clone(), ..files.clone() }, "empty.pem: there is no certificate in it"),
        (TlsFiles { key: empty, ..files.clone() }, "there is no private key in it"),
        (TlsFiles { key: encrypted, ..files.clone() }, "the key is encrypted; decrypt it"),
        (
            TlsFiles { key: authority.sign("other.example").key, ..files.clone() },
            "the key that belongs to it",
        ),
        (TlsFiles { key: fifo, ..files.clone() }, "fifo.pem: it is no regular file; give a PEM file"),
        (TlsFiles { cert: "/none/at/all".into(), ..files }, "/none/at/all"),
    ];
    for (files, expected) in wrong {
        let error = Tls::load(files).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("c2VjcmV0"), "{error}");
    }
}
