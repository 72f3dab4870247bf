//! What grpc checks ask.

use std::net::SocketAddr;

use super::super::grpc::GrpcTarget;
use super::CheckSettings;
use crate::config::Mistake;

/// Bytes of the longest name of a gRPC service.
const SERVICE_BYTES_MAX: usize = 255;

impl CheckSettings {
    pub(super) fn resolve_grpc(
        &self,
        path: &str,
        server: Option<SocketAddr>,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<GrpcTarget> {
        self.refuse_host(path, mistakes);
        let tls = self.resolve_tls(path, server, mistakes);
        let service = self.service.clone().unwrap_or_default();
        if service.len() > SERVICE_BYTES_MAX {
            mistakes.push(Mistake::new(
                format!("{path}.service"),
                format!("the name has {} bytes", service.len()),
                format!("write at most {SERVICE_BYTES_MAX}"),
            ));
        }
        let server = server?;
        let host = self.host.clone().unwrap_or_else(|| server.to_string());
        Some(GrpcTarget { server, tls, host, service })
    }
}
