//! Connections of checks that may speak TLS.

use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::failure::CheckFailure;
use super::tcp;
use crate::tls::{TlsClient, Trust};

/// How the server proves who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsTarget {
    /// Whose signature on its certificate is believed.
    pub trust: Trust,
    /// The DNS name or IP address that the certificate must be for.
    pub server_name: String,
}

/// A connection, and TLS on it if it is spoken.
pub(super) type Connection = Either<TcpStream, TlsStream<TcpStream>>;

/// Connects, and begins TLS if there is a target for it.
pub(super) async fn connect(
    server: SocketAddr,
    tls: Option<(&TlsTarget, &TlsClient)>,
) -> Result<Connection, CheckFailure> {
    let stream = tcp::connect(server).await?;
    let Some((target, client)) = tls else { return Ok(Either::Left(stream)) };
    match client.connect(&target.server_name, stream).await {
        Ok(stream) => Ok(Either::Right(stream)),
        Err(source) => Err(CheckFailure::Tls { server, source }),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

    use crate::tls::{ClientAuth, TlsFiles};

    /// A server's certificate for `name`, and the authority that signed it.
    pub(in crate::registry::check) fn sign(folder: &Path, name: &str) -> TlsFiles {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let (file, ca) = (folder.join("server.pem"), folder.join("ca.pem"));
        fs_err::write(&ca, issuer.pem()).unwrap();
        fs_err::write(&file, format!("{}{}", key.serialize_pem(), cert.pem())).unwrap();
        let client_auth = ClientAuth::None;
        TlsFiles { cert: file.clone(), key: file, ca, client_auth, verify_hostname: true }
    }

    /// A server's end of TLS that speaks the protocols of these names.
    pub(in crate::registry::check) fn acceptor(files: &TlsFiles, protocols: &[&str]) -> TlsAcceptor {
        let chain: Result<_, _> = CertificateDer::pem_file_iter(&files.cert).unwrap().collect();
        let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let mut config = builder.with_single_cert(chain.unwrap(), key).unwrap();
        config.alpn_protocols = protocols.iter().map(|name| Vec::from(*name)).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}
