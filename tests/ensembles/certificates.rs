//! Certificates for TLS between members, signed by an authority that lives as long as the files are written.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::member::Member;

/// The certificate of the authority, in a member's folder.
pub(crate) const AUTHORITY: &str = "ca.pem";
/// A member's certificate and key, as Apache reads a PEM key store, and we read either.
pub(crate) const IDENTITY: &str = "member.pem";

/// Where members on loopback connect from. Apache's check that a certificate is for the address that somebody connects from, too.
const SOURCE: &str = "127.0.0.1";

/// Gives each member a certificate for its host, of one authority.
pub(crate) fn issue(members: &[Member]) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key can be made");
    let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority can sign itself");
    for member in members {
        let host = member.peer_addresses()[0].ip().to_string();
        let key = KeyPair::generate().expect("a key can be made");
        let params = CertificateParams::new(vec![host, SOURCE.to_owned()]).expect("an address is a name");
        let certificate = params.signed_by(&key, &issuer).expect("an authority can sign");
        write(member.folder(), AUTHORITY, &issuer.pem());
        write(member.folder(), IDENTITY, &format!("{}{}", key.serialize_pem(), certificate.pem()));
    }
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).expect("a file can be written");
}
