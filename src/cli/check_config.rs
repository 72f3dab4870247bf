//! `rollcall check-config`.

mod schema;

use std::collections::BTreeMap;
use std::path::Path;

use super::arguments::CheckConfigArguments;
use super::dev::DevSettings;
use super::failure::Failure;
use super::output::print;
use crate::config::{ConfigError, Environment, LocatedMistake, parse, read};
use crate::ensemble::{EnsembleConfig, ZooCfg, load_zoo_cfg};
use crate::registry::ServiceKey;
use crate::registry::check::{Asking, Check, CheckSource};
use crate::sidecar::{SidecarPlan, SidecarSettings};
use crate::tls::{Tls, TlsClient, TlsFiles, Trust};

/// Reads the file as each role would, and reports on the one that it fits best.
pub(super) fn run(arguments: &CheckConfigArguments) -> Result<(), Failure> {
    if let Some(role) = arguments.schema {
        return print(schema::text(role).trim_end());
    }
    let file = arguments.file.as_deref().expect("the arguments have a file or a role");
    if file.extension().is_some_and(|extension| extension == "cfg") {
        return check_zoo_cfg(file);
    }
    // Once for all roles: what comes through /dev/stdin comes once.
    let text = read(file)?;
    let environment = Environment::of_process();
    let services = |count: usize| format!("{count} {}", if count == 1 { "service" } else { "services" });
    let mut checks = BTreeMap::new();
    let sidecar = parse(&text, &environment, SidecarSettings::plan).map(|plan| {
        checks.insert("sidecar", trusts(&plan));
        format!("sidecar settings, {}", services(plan.registrations.len()))
    });
    let dev = parse(&text, &environment, DevSettings::plan).map(|plan| {
        checks.insert("dev", trusts(&plan.sidecar));
        format!("dev settings, {}", services(plan.sidecar.registrations.len()))
    });
    let mut tls = None;
    let ensemble = parse(&text, &environment, EnsembleConfig::plan).map(|plan| {
        tls = plan.member.peers.and_then(|peers| peers.tls);
        format!("ensemble settings, server {}", plan.member.server_id)
    });

    // Where several fit as well, the name may tell.
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let readings = [("sidecar", sidecar), ("dev", dev), ("ensemble", ensemble)];
    let best = readings.into_iter().min_by_key(|(role, read)| (misfit(read), !name.contains(role)));
    let (role, read) = best.expect("there are three");
    let read =
        read.map_err(|mistakes| ConfigError::Mistakes { file: file.display().to_string(), mistakes })?;
    if role == "ensemble" {
        check_tls(file, tls)?;
    }
    check_trusts(file, checks.remove(role).unwrap_or_default())?;
    print(&format!("{}: ok ({read})", file.display()))
}

/// Whom the checks that speak TLS believe, each with the name of its check, and whom the forwarder.
fn trusts(plan: &SidecarPlan) -> Vec<(String, Trust)> {
    let checks = plan
        .registrations
        .iter()
        .flat_map(|registration| registration.checks.iter().map(move |check| (&registration.service, check)));
    let trust = |(service, check): (&ServiceKey, &Check)| {
        let CheckSource::Asked(Asking { target, .. }) = &check.source else { return None };
        Some((format!("check {} of {service}", check.name), target.tls()?.trust.clone()))
    };
    let of_forwarder = plan.forward.trust_in_use().map(|trust| ("dns.forward".to_owned(), trust.clone()));
    checks.filter_map(trust).chain(of_forwarder).collect()
}

/// Reads the authorities as who believes them would.
fn check_trusts(file: &Path, trusts: Vec<(String, Trust)>) -> Result<(), Failure> {
    for (whose, trust) in trusts {
        if let Err(error) = TlsClient::new(trust).load() {
            return Err(Failure::usage(format!("{}: {whose}: {error}", file.display())));
        }
    }
    Ok(())
}

/// Reads the certificates and the key as a start would.
fn check_tls(file: &Path, tls: Option<TlsFiles>) -> Result<(), Failure> {
    let Some(tls) = tls else { return Ok(()) };
    match Tls::load(tls) {
        Ok(_usable) => Ok(()),
        Err(error) => Err(Failure::usage(format!("{}: quorum.tls: {error}", file.display()))),
    }
}

/// Apache ZooKeeper's file, and what `rollcall ensemble --zoo-cfg` would warn of.
fn check_zoo_cfg(file: &Path) -> Result<(), Failure> {
    let ZooCfg { plan, warnings, .. } = load_zoo_cfg(file)?;
    let name = file.display();
    let mut text: String = warnings.iter().map(|warning| format!("{name}: {warning}\n")).collect();
    check_tls(file, plan.member.peers.and_then(|peers| peers.tls))?;
    text.push_str(&format!("{name}: ok (Apache ZooKeeper's settings, server {})", plan.member.server_id));
    print(&text)
}

/// How badly a file fits a role: first by the keys of its top level that the role does not know, since nothing below them is
/// looked at, then by all mistakes.
fn misfit(read: &Result<String, Vec<LocatedMistake>>) -> (usize, usize) {
    let mistakes = read.as_ref().err().map(Vec::as_slice).unwrap_or_default();
    let is_foreign = |mistake: &&LocatedMistake| mistake.mistake.is_unknown_key_at_top();
    (mistakes.iter().filter(is_foreign).count(), mistakes.len())
}
