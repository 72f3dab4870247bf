//! TLS towards servers that are none of ours: no certificate of our own, and the choice whom to believe.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use fs_err as fs;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_rustls::{TlsConnector, client};
use tracing::warn;

use super::{TlsError, certificates};

/// Whose signature on a server's certificate is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The authorities that the machine trusts: the first bundle that is found in the usual places.
    System,
    /// The authorities in this PEM file, and no others.
    Authorities(PathBuf),
    /// Nobody's, and anybody's: who answers is taken for the server. Danger: proves nothing but that TLS is spoken.
    Anyone,
}

/// Why there is no TLS with a server.
#[derive(Debug, thiserror::Error)]
pub enum TlsDialError {
    /// The authorities cannot be read.
    #[error(transparent)]
    Authorities(#[from] TlsError),
    /// There is no bundle of authorities on this machine.
    #[error("there is no bundle of authorities on this machine; name a PEM file of authorities (ca)")]
    NoBundle,
    /// The name cannot be that of a server.
    #[error("{0:?} is neither a DNS name nor an IP address")]
    Name(String),
    /// The handshake failed.
    #[error("{0}")]
    Handshake(#[from] io::Error),
    /// The other end takes TLS, and does not say that it speaks the protocol.
    #[error("the server does not agree to speak {0} (ALPN); let it offer {0}, or name a port where it does")]
    Protocol(&'static str),
}

/// One end of TLS that asks and has no certificate. A changed file of authorities is read anew.
#[derive(Debug)]
pub struct TlsClient {
    trust: Trust,
    /// What the other end must agree to speak, by its name in ALPN (RFC 7301).
    protocol: Option<&'static str>,
    loaded: Mutex<Option<Loaded>>,
}

#[derive(Debug)]
struct Loaded {
    config: Arc<ClientConfig>,
    seen: Option<(u64, SystemTime)>,
}

impl TlsClient {
    /// Reads nothing yet: the files may come later.
    pub const fn new(trust: Trust) -> Self {
        Self { trust, protocol: None, loaded: Mutex::new(None) }
    }

    /// Speaks this protocol only, by its name in ALPN, such as `h2`.
    #[must_use]
    pub fn speaking(self, protocol: &'static str) -> Self {
        Self { protocol: Some(protocol), ..self }
    }

    /// Begins with the other end, whose certificate must be for `server_name`.
    ///
    /// # Errors
    ///
    /// When the authorities cannot be read, or the other end does not answer so, is not to be trusted, or does not agree on the
    /// protocol.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        server_name: &str,
        socket: S,
    ) -> Result<client::TlsStream<S>, TlsDialError> {
        let name = ServerName::try_from(server_name.to_owned())
            .map_err(|_| TlsDialError::Name(server_name.to_owned()))?;
        let config = self.current()?;
        let stream = TlsConnector::from(config).connect(name, socket).await?;
        match self.protocol {
            Some(wanted) if stream.get_ref().1.alpn_protocol() != Some(wanted.as_bytes()) => {
                Err(TlsDialError::Protocol(wanted))
            }
            Some(_) | None => Ok(stream),
        }
    }

    /// Reads the authorities, if they are to be read.
    ///
    /// # Errors
    ///
    /// When they cannot be, and never could.
    pub fn load(&self) -> Result<(), TlsDialError> {
        self.current().map(drop)
    }

    fn current(&self) -> Result<Arc<ClientConfig>, TlsDialError> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match &self.trust {
            Trust::Authorities(file) => Some(file.clone()),
            Trust::System => Some(
                BUNDLES.iter().map(PathBuf::from).find(|file| file.exists()).ok_or(TlsDialError::NoBundle)?,
            ),
            Trust::Anyone => None,
        };
        let metadata = file.as_ref().and_then(|file| fs::metadata(file).ok());
        let seen = metadata.and_then(|metadata| Some((metadata.len(), metadata.modified().ok()?)));
        if let Some(loaded) = loaded.as_ref().filter(|loaded| loaded.seen == seen) {
            return Ok(loaded.config.clone());
        }
        match (self.read(file), loaded.as_mut()) {
            (Ok(mut config), _) => {
                config.alpn_protocols = self.protocol.into_iter().map(Vec::from).collect();
                let config = Arc::new(config);
                *loaded = Some(Loaded { config: config.clone(), seen });
                Ok(config)
            }
            (Err(error), Some(loaded)) => {
                warn!(%error, "authorities have changed and cannot be used; the old ones stay");
                loaded.seen = seen;
                Ok(loaded.config.clone())
            }
            (Err(error), None) => Err(error.into()),
        }
    }

    fn read(&self, file: Option<PathBuf>) -> Result<ClientConfig, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for the versions it is built with");
        let Some(file) = file else {
            let verifier = Arc::new(Anyone { provider });
            return Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth());
        };
        let mut roots = RootCertStore::empty();
        // A bundle may hold what is none of ours; one certificate that cannot be used must not take the others away.
        let (usable, _others) = roots.add_parsable_certificates(certificates(&file)?);
        if usable == 0 {
            let what = "none of its certificates can be used".to_owned();
            return Err(TlsError::File { file, what, remedy: "give the certificate of an authority" });
        }
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }
}

/// Whether a certificate can be for it: a DNS name or an IP address.
pub fn is_server_name(name: &str) -> bool {
    ServerName::try_from(name).is_ok()
}

/// Takes any certificate whose key the other end holds.
#[derive(Debug)]
struct Anyone {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Where distributions keep the bundle of authorities, as Go's crypto/x509 looks for it (root_linux.go).
const BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
