//! Which upstreams are asked for which names, from the settings and the system's file.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::rr::Name;

use super::health::{Health, order};
use super::places::GroupId;
use super::resolv_conf::ResolvConf;
use super::settings::ForwardPlan;
use super::upstream::{PORT, Upstream, UpstreamAddress};

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// Whoever is asked for all other names.
    pub(super) default: Arc<Group>,
    /// Domains with upstreams of their own, the longest first.
    pub(super) domains: Vec<(Name, Arc<Group>)>,
    /// Endings that are tried for short names.
    pub(super) search: Vec<Name>,
}

/// Upstreams of which one is asked after the other.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) upstreams: Vec<Arc<Upstream>>,
    pub(super) manners: Manners,
    turn: AtomicUsize,
}

/// How the upstreams of a group are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Manners {
    /// How long one is waited for before the next is asked, too.
    pub(super) timeout: Duration,
    /// How often all are asked.
    pub(super) attempts: u32,
    /// Whether each has its turn to be the first.
    pub(super) is_rotating: bool,
    /// Whether UDP is not used.
    pub(super) is_over_tcp: bool,
}

impl Default for Manners {
    fn default() -> Self {
        Self { timeout: TIMEOUT, attempts: ATTEMPTS, is_rotating: false, is_over_tcp: false }
    }
}

impl Routes {
    /// What `plan` and the file say. Nameservers of the file that `is_own` are left out and given back; `known` finds or makes an
    /// upstream, so that what is known of one survives.
    pub(super) fn plan(
        plan: &ForwardPlan,
        file: &ResolvConf,
        is_own: impl Fn(SocketAddr) -> bool,
        mut known: impl FnMut(&UpstreamAddress) -> Arc<Upstream>,
    ) -> (Self, Vec<SocketAddr>) {
        let manners = Manners {
            timeout: plan.timeout.or(file.timeout).unwrap_or(TIMEOUT),
            attempts: plan.attempts.or(file.attempts).unwrap_or(ATTEMPTS),
            is_rotating: file.is_rotating,
            // The file speaks of its own nameservers.
            is_over_tcp: file.is_over_tcp && plan.upstreams.is_none(),
        };
        let at = |ip: &IpAddr| SocketAddr::new(*ip, PORT);
        let (own, others): (Vec<_>, Vec<_>) = file.nameservers.iter().map(at).partition(|addr| is_own(*addr));
        let others = others.into_iter().map(|addr| UpstreamAddress { addr, tls_name: None });
        let addresses = plan.upstreams.clone().unwrap_or_else(|| others.collect());
        let mut group = |addresses: &[UpstreamAddress], manners| {
            let upstreams = addresses.iter().map(&mut known).collect();
            Arc::new(Group { upstreams, manners, turn: AtomicUsize::new(0) })
        };
        let default = group(&addresses, manners);
        let manners = Manners { is_over_tcp: false, is_rotating: false, ..manners };
        let mut domains: Vec<_> =
            plan.domains.iter().map(|(name, addresses)| (name.clone(), group(addresses, manners))).collect();
        domains.sort_by_key(|(name, _)| std::cmp::Reverse(name.num_labels()));
        let own = if plan.upstreams.is_none() { own } else { Vec::new() };
        (Self { default, domains, search: file.search.clone() }, own)
    }

    /// Who is asked for `name`.
    pub(super) fn group(&self, name: &Name) -> &Arc<Group> {
        let of_domain = self.domains.iter().find(|(domain, _)| domain.zone_of(name));
        of_domain.map_or(&self.default, |(_, group)| group)
    }

    /// Tells the group of `name` from all others.
    pub(super) fn group_id(&self, name: &Name) -> GroupId {
        Arc::as_ptr(self.group(name)).addr()
    }

    /// All upstreams by their addresses.
    pub(super) fn upstreams(&self) -> BTreeMap<UpstreamAddress, Arc<Upstream>> {
        let groups = self.domains.iter().map(|(_, group)| group).chain([&self.default]);
        let upstreams = groups.flat_map(|group| &group.upstreams);
        upstreams.map(|upstream| (upstream.address.clone(), upstream.clone())).collect()
    }

    /// Whether the same upstreams are asked for all names, in the same order.
    pub(super) fn leads_where(&self, other: &Self) -> bool {
        let addresses = |group: &Group| -> Vec<UpstreamAddress> {
            group.upstreams.iter().map(|upstream| upstream.address.clone()).collect()
        };
        let all = |routes: &Self| -> Vec<_> {
            let domains = routes.domains.iter().map(|(name, group)| (name.clone(), addresses(group)));
            domains.chain([(Name::root(), addresses(&routes.default))]).collect()
        };
        all(self) == all(other)
    }

    /// Whether what was answered there counts here: for every name at least one upstream is asked in both.
    ///
    /// Resolvers of one list are meant to say the same, and any of them may have been the one that answered. So a list in another order, with
    /// one more or one less, leaves what is kept as it is, and old answers for when the new ones are away. A domain that has
    /// upstreams of its own in one of the two alone was given them because others know other names there.
    pub(super) fn agrees_with(&self, other: &Self) -> bool {
        let domains = self.domains.iter().zip(&other.domains);
        self.domains.len() == other.domains.len()
            && self.default.agrees_with(&other.default)
            && domains.into_iter().all(|((name, one), (of, other))| name == of && one.agrees_with(other))
    }
}

impl Group {
    fn agrees_with(&self, other: &Self) -> bool {
        let is_there =
            |upstream: &Arc<Upstream>| other.upstreams.iter().any(|other| other.address == upstream.address);
        let is_nobody_asked = self.upstreams.is_empty() && other.upstreams.is_empty();
        is_nobody_asked || self.upstreams.iter().any(is_there)
    }

    /// The upstreams in the order in which they are asked now.
    pub(super) fn in_order(&self) -> Vec<Arc<Upstream>> {
        let turn = self.turn.fetch_add(usize::from(self.manners.is_rotating), Ordering::Relaxed);
        let healths: Vec<Health> = self.upstreams.iter().map(|upstream| *upstream.health()).collect();
        let first = turn.checked_rem(healths.len()).unwrap_or(0);
        order(&healths, first).into_iter().map(|place| self.upstreams[place].clone()).collect()
    }

    /// Those that are to be asked our own question, by whoever is told so.
    pub(super) fn claim_probes(&self, now: Instant) -> Vec<Arc<Upstream>> {
        self.upstreams.iter().filter(|upstream| upstream.health().claim_probe(now)).cloned().collect()
    }
}

/// The C library waits for 5 s; a sidecar that does, too, has nobody else asked before its client gives up.
const TIMEOUT: Duration = Duration::from_secs(1);
/// As the C library (RES_DFLRETRY).
const ATTEMPTS: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_domain_has_the_say_and_the_file_the_rest() {
        let domains = ["example.", "corp.example."].map(name).into_iter().zip([address(1), address(2)]);
        let domains = domains.map(|(name, address)| (name, vec![address])).collect();
        let plan = ForwardPlan { domains, ..ForwardPlan::default() };
        let file = ResolvConf::parse("nameserver 10.0.0.9\n");
        let (routes, own) = Routes::plan(&plan, &file, |_| false, new);
        assert!(own.is_empty());
        for (asked, last) in [
            ("www.corp.Example.", 2),
            ("corp.example.", 2),
            ("www.example.", 1),
            ("xcorp.example.", 1),
            ("org.", 9),
        ] {
            assert_eq!(addresses(routes.group(&name(asked))), [address(last)], "{asked}");
        }
    }

    #[test]
    fn the_own_listener_is_left_out_of_the_file() {
        let file =
            ResolvConf::parse("nameserver 127.0.0.1\nnameserver 10.0.0.9\noptions use-vc rotate timeout:3\n");
        let is_own = |addr: SocketAddr| addr.ip().is_loopback();
        let (routes, own) = Routes::plan(&ForwardPlan::default(), &file, is_own, new);
        assert_eq!((addresses(&routes.default), own.len()), (vec![address(9)], 1));
        let manners = routes.default.manners;
        assert!(manners.is_over_tcp && manners.is_rotating);
        assert_eq!((manners.timeout, manners.attempts), (Duration::from_secs(3), ATTEMPTS));
    }

    #[test]
    fn settings_go_before_the_file() {
        let upstreams = Some(vec![address(1)]);
        let plan = ForwardPlan {
            upstreams,
            timeout: Some(TIMEOUT / 2),
            attempts: Some(3),
            ..ForwardPlan::default()
        };
        let file =
            ResolvConf::parse("nameserver 10.0.0.9\nsearch a.example\noptions use-vc timeout:3 attempts:5\n");
        let (routes, _) = Routes::plan(&plan, &file, |_| true, new);
        assert_eq!(addresses(&routes.default), [address(1)]);
        assert_eq!(routes.search, [name("a.example.")]);
        let Manners { timeout, attempts, is_over_tcp, .. } = routes.default.manners;
        assert_eq!((timeout, attempts, is_over_tcp), (TIMEOUT / 2, 3, false));
    }

    #[test]
    fn what_is_known_of_an_upstream_survives_and_each_has_its_turn() {
        let file = ResolvConf::parse("nameserver 10.0.0.1\nnameserver 10.0.0.2\noptions rotate\n");
        let (routes, _) = Routes::plan(&ForwardPlan::default(), &file, |_| false, new);
        let known = routes.upstreams();
        let (again, _) =
            Routes::plan(&ForwardPlan::default(), &file, |_| false, |address| known[address].clone());
        assert!(Arc::ptr_eq(&routes.default.upstreams[0], &again.default.upstreams[0]));
        assert!(again.leads_where(&routes) && !again.leads_where(&Routes::default()));
        let first = || again.default.in_order()[0].address.clone();
        assert_eq!([first(), first(), first()], [address(1), address(2), address(1)]);
    }

    #[test]
    fn answers_count_on_while_somebody_is_asked_as_before() {
        let of = |default: &[u8], domains: &[(&str, &[u8])]| {
            let addresses = |all: &[u8]| all.iter().map(|last| address(*last)).collect::<Vec<_>>();
            let domains = domains.iter().map(|(domain, all)| (name(domain), addresses(all))).collect();
            let plan = ForwardPlan { upstreams: Some(addresses(default)), domains, ..ForwardPlan::default() };
            Routes::plan(&plan, &ResolvConf::default(), |_| false, new).0
        };
        for (default, is_kept) in [
            (&[1, 2][..], true),
            (&[2, 1], true),
            (&[1], true),
            (&[3, 2], true),
            (&[1, 2, 3], true),
            (&[3, 4], false),
            (&[], false),
        ] {
            let (before, after) = (of(&[1, 2], &[]), of(default, &[]));
            assert_eq!(after.agrees_with(&before), is_kept, "{default:?}");
            assert_eq!(before.agrees_with(&after), is_kept, "{default:?}");
        }
        assert!(of(&[], &[]).agrees_with(&Routes::default()));
        let before = of(&[1], &[("a.example.", &[2, 3]), ("b.example.", &[4])]);
        for (domains, is_kept) in [
            (&[("a.example.", &[3, 2][..]), ("b.example.", &[4])][..], true),
            (&[("a.example.", &[3]), ("b.example.", &[4, 5])], true),
            (&[("a.example.", &[2]), ("b.example.", &[5])], false),
            (&[("a.example.", &[2])], false),
            (&[("a.example.", &[2]), ("c.example.", &[4])], false),
        ] {
            assert_eq!(of(&[1], domains).agrees_with(&before), is_kept, "{domains:?}");
        }
    }

    fn new(address: &UpstreamAddress) -> Arc<Upstream> {
        Arc::new(Upstream::new(address.clone(), None))
    }

    fn address(last: u8) -> UpstreamAddress {
        format!("10.0.0.{last}").parse().unwrap()
    }

    fn addresses(group: &Group) -> Vec<UpstreamAddress> {
        group.upstreams.iter().map(|upstream| upstream.address.clone()).collect()
    }

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }
}
