//! The checks of one service, and their names.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::target::Check;
use super::CheckSettings;
use crate::config::Mistake;
use crate::registry::name::Label;

/// Decides every setting of `checks`, which stand at `path` in the file; `address` and `port` are the service's own.
/// Mistakes are added to `mistakes`, and the list is not complete then.
pub fn resolve_checks(
    checks: &[CheckSettings],
    path: &str,
    address: Option<IpAddr>,
    port: Option<u16>,
    mistakes: &mut Vec<Mistake>,
) -> Vec<Check> {
    let mut taken = BTreeSet::new();
    for (index, name) in
        checks.iter().enumerate().filter_map(|(index, check)| Some((index, check.name.as_ref()?)))
    {
        if !taken.insert(name.clone()) {
            mistakes.push(Mistake::new(
                format!("{path}[{index}].name"),
                format!("the name {name:?} is given to two checks"),
                "give each check of a service a name of its own",
            ));
        }
    }
    let mut resolved = Vec::with_capacity(checks.len());
    for (index, settings) in checks.iter().enumerate() {
        let check = settings.resolve(&format!("{path}[{index}]"), address, port, mistakes);
        let Some(mut check) = check else { continue };
        if settings.name.is_none() {
            check.name = free_name(settings.kind.as_str(), &mut taken);
        }
        resolved.push(check);
    }
    resolved
}

/// `kind`, or `kind-2` and so on when that is taken.
fn free_name(kind: &str, taken: &mut BTreeSet<String>) -> Label {
    let numbered = (2_u32..).map(|number| format!("{kind}-{number}"));
    let mut names = std::iter::once(kind.to_owned()).chain(numbered);
    let name = names.find(|name| taken.insert(name.clone())).expect("there are more names than checks");
    Label::parse(&name).expect("a kind and a number make a label")
}
