//! TLS from PEM files, taken anew when they change.
//!
//! ```text
//! TlsFiles ─► Tls::load ─► accept, connect        (each looks whether the files have changed)
//! Trust ─► TlsClient ─► connect                   (to servers that are none of ours)
//! ```
//!
//! A file may hold certificates and key together, as the PEM key stores of Apache ZooKeeper do. New files that are broken change
//! nothing: what was loaded last stays in use, and the log says so.

mod random;
mod trust;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use fs_err as fs;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use tracing::{info, warn};

pub use random::fill_random;
pub use trust::{TlsClient, TlsDialError, Trust, is_server_name};

/// Where certificates and keys lie, and what is asked of the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// This end's certificate, with the chain behind it, in PEM.
    pub cert: PathBuf,
    /// Its key, in PEM, not encrypted.
    pub key: PathBuf,
    /// The certificates of those whom the other end may be signed by, in PEM.
    pub ca: PathBuf,
    /// Whether whoever connects must have a certificate too.
    pub client_auth: ClientAuth,
    /// Whether the certificate of whom this end connects to must be for the name that it was dialled by.
    pub verify_hostname: bool,
}

/// Whether whoever connects must have a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// It is not asked.
    None,
    /// It may have none, but a wrong one is refused.
    Want,
    /// It must.
    #[default]
    Need,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds something else.
    #[error("{}: {what}; {remedy}", .file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// What is wrong.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
    /// What the files hold does not go together.
    #[error("{} and {} cannot be used: {source}; give a certificate and the key that belongs to it", .cert.display(), .key.display())]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        source: Error,
    },
}

/// TLS, ready to use.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    loaded: Mutex<Loaded>,
}

#[derive(Clone, Debug)]
struct Loaded {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    seen: Seen,
}

/// How the files looked: a mounted file is replaced by another, not written.
type Seen = [Option<(u64, SystemTime)>; 3];

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// When one cannot be read, holds something else, or does not go together with the others.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let loaded = Mutex::new(Loaded::read(&files)?);
        Ok(Self { files, loaded })
    }

    /// Lets the other end begin.
    ///
    /// # Errors
    ///
    /// When it does not, or is not to be trusted.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        socket: S,
    ) -> io::Result<server::TlsStream<S>> {
        let server = self.current().server;
        TlsAcceptor::from(server).accept(socket).await
    }

    /// Begins with the other end, which was dialled by the name `host`.
    ///
    /// # Errors
    ///
    /// When it does not answer so, or is not to be trusted.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        host: &str,
        socket: S,
    ) -> io::Result<client::TlsStream<S>> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let client = self.current().client;
        TlsConnector::from(client).connect(name, socket).await
    }

    /// What was loaded last, after a look whether there is something newer.
    fn current(&self) -> Loaded {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = look_at(&self.files);
        if seen != loaded.seen {
            match Loaded::read(&self.files) {
                Ok(new) => {
                    info!(cert = %self.files.cert.display(), "certificates have changed, and are used from now on");
                    *loaded = new;
                }
                Err(error) => {
                    warn!(%error, "certificates have changed and cannot be used; the old ones stay");
                    loaded.seen = seen;
                }
            }
        }
        loaded.clone()
    }
}

impl Loaded {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let seen = look_at(files);
        let provider = Arc::new(ring::default_provider());
        let chain = certificates(&files.cert)?;
        let key = private_key(&files.key)?;
        let mut roots = RootCertStore::empty();
        for root in certificates(&files.ca)? {
            roots.add(root).map_err(|error| TlsError::File {
                file: files.ca.clone(),
                what: error.to_string(),
                remedy: "give the certificate of an authority",
            })?;
        }
        let roots = Arc::new(roots);
        let pair = |source| TlsError::Pair { cert: files.cert.clone(), key: files.key.clone(), source };
        let unverifiable = |what: String| TlsError::File {
            file: files.ca.clone(),
            what,
            remedy: "give at least one certificate of an authority",
        };

        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(pair)?;
        let builder = match files.client_auth {
            ClientAuth::None => builder.with_no_client_auth(),
            ClientAuth::Want | ClientAuth::Need => {
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
                let verifier = if files.client_auth == ClientAuth::Want {
                    verifier.allow_unauthenticated()
                } else {
                    verifier
                };
                let verifier = verifier.build().map_err(|error| unverifiable(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let server = builder.with_single_cert(chain.clone(), key.clone_key()).map_err(pair)?;

        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
            .build()
            .map_err(|error| unverifiable(error.to_string()))?;
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(pair)?;
        let builder = if files.verify_hostname {
            builder.with_webpki_verifier(verifier)
        } else {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyName { verifier, provider }))
        };
        let client = builder.with_client_auth_cert(chain, key).map_err(pair)?;
        Ok(Self { server: Arc::new(server), client: Arc::new(client), seen })
    }
}

/// Trusts a certificate that the authority has signed, whatever name it is for.
#[derive(Debug)]
struct AnyName {
    verifier: Arc<WebPkiServerVerifier>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified =
            self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            // The name is looked at last, once everything else is as it should be.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn look_at(files: &TlsFiles) -> Seen {
    [&files.cert, &files.key, &files.ca].map(|file| {
        let metadata = fs::metadata(file).ok()?;
        Some((metadata.len(), metadata.modified().ok()?))
    })
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |what: String| TlsError::File {
        file: file.to_owned(),
        what,
        remedy: "give a PEM file with a certificate (BEGIN CERTIFICATE)",
    };
    let bytes = read(file).map_err(|error| wrong(error.to_string()))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_none) => Err(wrong("there is no certificate in it".to_owned())),
        Err(error) => Err(wrong(error.to_string())),
    }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let wrong = |what: String, remedy| TlsError::File { file: file.to_owned(), what, remedy };
    let bytes = read(file).map_err(|error| wrong(error.to_string(), "give a PEM file that can be read"))?;
    if bytes.windows(ENCRYPTED.len()).any(|window| window == ENCRYPTED) {
        let what = "the key is encrypted".to_owned();
        return Err(wrong(what, "decrypt it (openssl pkcs8 -in KEY -out PLAIN), and guard the file"));
    }
    // What stands in the file is nobody's business, so the error is not repeated.
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_not_a_key| {
        wrong("there is no private key in it".to_owned(), "give a PEM file with a key (BEGIN PRIVATE KEY)")
    })
}

/// Reads the file, if it is one: a FIFO would keep who opens it until somebody opens its other end.
fn read(file: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(file)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    fs::read(file)
}

const ENCRYPTED: &[u8] = b"BEGIN ENCRYPTED PRIVATE KEY";

#[cfg(test)]
mod tests;
