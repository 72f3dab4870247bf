//! The view as a file: what a sidecar that starts without an ensemble answers from.
//!
//! ```text
//! rollcall-view 1 <CRC-32 of the rest, 8 hexadecimal digits>\n
//! {"root":"/rollcall/services","current_at_ms":1764115200000,"zxid":4294967303,
//!  "services":[{"namespace":"default","name":"web","zxid":4294967303,"settings":{"min_healthy":1},
//!               "instances":[{"id":"web-1","mzxid":4294967303,"session":72057594037927936,"record":{…}}]}]}
//! ```
//!
//! A record stands there as in its znode. A service of which the name alone is known has `"followed":false`. An instance whose record vanished, and
//! that is still offered, has `"vanished":true` and when that was, `"vanished_at_ms"`; earlier versions do not say when, and it is taken to have
//! been when the view was last current. Whatever is not exactly what was written is refused: a view that is wrong is worse than none.

use std::fmt;
use std::io::{self, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::layout::Layout;
use super::name::{Label, ServiceKey};
use super::record::Record;
use super::services::Services;
use super::state_file::{self, Loaded};
use super::view::{Instance, Instances, Service, ServiceSettings, Standing, View};
use crate::clock::Moment;
use crate::id::{SessionId, Zxid};

/// The file's name in the state directory.
const FILE: &str = "view";

/// A view that was saved.
#[derive(Clone, Debug)]
pub struct SavedView {
    /// The view, loaded.
    pub view: View,
    /// Wall clock of the last proof that it was current, ms since 1970.
    pub current_at_ms: i64,
}

/// Why a saved view is not used.
#[derive(Debug, thiserror::Error)]
pub enum SavedViewError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It does not begin as one does.
    #[error("it is no saved view of version {VERSION}")]
    NoView,
    /// Something in it has changed.
    #[error("its checksum is wrong: it is damaged")]
    Damaged,
    /// What is written is not understood.
    #[error("its content is not understood")]
    Json(#[from] serde_json::Error),
    /// It shows another registry.
    #[error("it shows the registry below {found}, not below {wanted}")]
    OtherRoot {
        /// Which it shows.
        found: String,
        /// Which was asked for.
        wanted: String,
    },
    /// It is not what was written.
    #[error("{reason}; it was set aside as {}", aside.display())]
    SetAside {
        /// Where it is now.
        aside: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl SavedView {
    /// Reads the file in `folder` at `moment`; `None` when there is none. One that is not exactly what was written is set aside.
    ///
    /// # Errors
    ///
    /// When it is not exactly what was written, or shows another registry than that of `layout`.
    pub fn load(folder: &Path, layout: &Layout, moment: Moment) -> Result<Option<Self>, SavedViewError> {
        let parse = |bytes: &[u8]| match Self::decode(bytes, layout, moment) {
            // It is whole.
            Err(other @ SavedViewError::OtherRoot { .. }) => Ok(Err(other)),
            decoded => decoded.map(Ok),
        };
        match state_file::load(folder, FILE, BYTES_MAX, parse)? {
            Loaded::Absent => Ok(None),
            Loaded::Whole(saved) => saved.map(Some),
            Loaded::Damaged { aside, reason } => Err(SavedViewError::SetAside { aside, reason }),
        }
    }

    /// Writes the file in `folder` at `moment`; a crash leaves the earlier one or this one. Returns how many bytes it has.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn save(&self, folder: &Path, layout: &Layout, moment: Moment) -> io::Result<u64> {
        state_file::replace_by(folder, FILE, |file| self.write(file, layout, moment))
    }

    /// Writes it piece by piece, since the whole takes as much memory as the view.
    fn write(&self, out: &mut (impl Write + Seek), layout: &Layout, moment: Moment) -> io::Result<u64> {
        // Room for the head, which has one length.
        out.write_all(&[b' '; HEAD_BYTES])?;
        let mut body = BufWriter::new(Checksummed { out, checksum: crc32fast::Hasher::new(), bytes: 0 });
        let (root, current_at_ms, zxid) = (layout.root(), self.current_at_ms, self.view.zxid.raw());
        let services = WrittenServices(&self.view, moment);
        serde_json::to_writer(&mut body, &WrittenBody { root, current_at_ms, zxid, services })?;
        let Checksummed { out, checksum, bytes } =
            body.into_inner().map_err(io::IntoInnerError::into_error)?;
        out.rewind()?;
        out.write_all(format!("{MAGIC} {VERSION} {:08x}\n", checksum.finalize()).as_bytes())?;
        Ok(HEAD_BYTES as u64 + bytes)
    }

    /// The file's bytes, at `moment`.
    ///
    /// # Errors
    ///
    /// When they would be too many to be read again.
    pub fn encode(&self, layout: &Layout, moment: Moment) -> io::Result<Vec<u8>> {
        let mut bytes = io::Cursor::new(Vec::new());
        self.write(&mut bytes, layout, moment)?;
        Ok(bytes.into_inner())
    }

    /// Reads the file's bytes, at `moment`.
    ///
    /// # Errors
    ///
    /// As [`SavedView::load`].
    pub fn decode(bytes: &[u8], layout: &Layout, moment: Moment) -> Result<Self, SavedViewError> {
        let (head, text) = bytes.split_at_checked(HEAD_BYTES).ok_or(SavedViewError::NoView)?;
        let head = std::str::from_utf8(head).map_err(|_| SavedViewError::NoView)?;
        let checksum = head
            .strip_prefix(&format!("{MAGIC} {VERSION} "))
            .and_then(|rest| rest.strip_suffix('\n'))
            .ok_or(SavedViewError::NoView)?;
        if format!("{:08x}", crc32fast::hash(text)) != checksum {
            return Err(SavedViewError::Damaged);
        }
        let Body { root, current_at_ms, zxid, services: LoadedServices { services, vanished } } =
            serde_json::from_slice(text)?;
        if root != layout.root() {
            return Err(SavedViewError::OtherRoot { found: root, wanted: layout.root().to_owned() });
        }
        let mut services: Services = services.into_iter().collect();
        for Vanished { service, id, at_ms } in vanished {
            let known = services.get_mut(&service).and_then(Arc::get_mut);
            if let Some(known) = known.and_then(|known| known.instances.find_mut_if(id.as_str(), |_| true)) {
                let instance = Arc::make_mut(known);
                instance.standing = Standing::Suspect;
                instance.vanished_at = Some(moment.instant_at(at_ms.unwrap_or(current_at_ms)));
            }
        }
        let view = View { services, zxid: Zxid::from_raw(zxid), is_loaded: true, ..View::default() };
        Ok(Self { view, current_at_ms })
    }

    /// How old what it shows is at `now_ms`, wall clock; a clock that was set back counts as no time.
    pub fn age(&self, now_ms: i64) -> Duration {
        Duration::from_millis(u64::try_from(now_ms.saturating_sub(self.current_at_ms)).unwrap_or(0))
    }
}

/// Counts and sums up what passes, and lets no more pass than can be read again.
struct Checksummed<W> {
    out: W,
    checksum: crc32fast::Hasher,
    bytes: u64,
}

impl<W: Write> Write for Checksummed<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.out.write(buffer)?;
        self.bytes += written as u64;
        if self.bytes + HEAD_BYTES as u64 > BYTES_MAX {
            let message = format!("the view takes more than {BYTES_MAX} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        self.checksum.update(&buffer[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// As [`Body`], of a view that is not copied for it.
#[derive(Serialize)]
struct WrittenBody<'a> {
    root: &'a str,
    current_at_ms: i64,
    zxid: i64,
    services: WrittenServices<'a>,
}

struct WrittenServices<'a>(&'a View, Moment);

#[derive(Serialize)]
struct WrittenService<'a> {
    namespace: &'a Label,
    name: &'a Label,
    zxid: i64,
    #[serde(skip_serializing_if = "Clone::clone")]
    followed: bool,
    settings: &'a ServiceSettings,
    instances: WrittenInstances<'a>,
}

struct WrittenInstances<'a>(&'a Instances, Moment);

#[derive(Serialize)]
struct WrittenInstance<'a> {
    id: &'a Label,
    mzxid: i64,
    session: i64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    vanished: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    vanished_at_ms: Option<i64>,
    record: &'a Record,
}

impl Serialize for WrittenServices<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(view, moment) = self;
        serializer.collect_seq(view.services.values().map(|service| WrittenService {
            namespace: &service.key.namespace,
            name: &service.key.name,
            zxid: service.zxid.raw(),
            followed: service.is_followed,
            settings: &service.settings,
            instances: WrittenInstances(&service.instances, *moment),
        }))
    }
}

impl Serialize for WrittenInstances<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(instances, moment) = self;
        serializer.collect_seq(instances.iter().map(|instance| WrittenInstance {
            id: &instance.id,
            mzxid: instance.mzxid.raw(),
            session: instance.session.0,
            vanished: instance.standing != Standing::Registered,
            vanished_at_ms: instance.vanished_at.map(|at| moment.unix_ms_at(at)),
            record: &instance.record,
        }))
    }
}

#[derive(Deserialize)]
struct Body {
    root: String,
    current_at_ms: i64,
    zxid: i64,
    services: LoadedServices,
}

/// Services as the view has them: each is made when it is read, so that none stands there twice for long.
#[derive(Default)]
struct LoadedServices {
    services: Vec<Arc<Service>>,
    vanished: Vec<Vanished>,
}

/// An instance that had vanished and was still offered.
struct Vanished {
    service: ServiceKey,
    id: Label,
    /// When it had, which earlier versions do not say.
    at_ms: Option<i64>,
}

impl<'de> Deserialize<'de> for LoadedServices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EachService;

        impl<'de> Visitor<'de> for EachService {
            type Value = LoadedServices;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of services")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<LoadedServices, A::Error> {
                let mut loaded = LoadedServices::default();
                while let Some(service) = list.next_element::<SavedService>()? {
                    loaded.add(service);
                }
                Ok(loaded)
            }
        }

        deserializer.deserialize_seq(EachService)
    }
}

impl LoadedServices {
    fn add(&mut self, saved: SavedService) {
        let key = ServiceKey { namespace: saved.namespace, name: saved.name };
        for instance in saved.instances.iter().filter(|instance| instance.vanished) {
            let (service, id) = (key.clone(), instance.id.clone());
            self.vanished.push(Vanished { service, id, at_ms: instance.vanished_at_ms });
        }
        let instances = saved.instances.into_iter().map(|saved| {
            let (mzxid, session) = (Zxid::from_raw(saved.mzxid), SessionId(saved.session));
            Arc::new(Instance::new(saved.id, saved.record, mzxid, session))
        });
        let instances = instances.collect();
        let zxid = Zxid::from_raw(saved.zxid);
        let (settings, is_followed) = (saved.settings, saved.followed);
        // What was told and not read yet, when it was saved, is not in it: the list of instances is not known to be whole.
        let service = Service { settings, is_followed, instances, zxid, ..Service::new(key.clone()) };
        self.services.push(Arc::new(service));
    }
}

#[derive(Deserialize)]
struct SavedService {
    namespace: Label,
    name: Label,
    zxid: i64,
    /// Whether more than its name was known.
    #[serde(default = "is_followed_by_default")]
    followed: bool,
    settings: ServiceSettings,
    instances: Vec<SavedInstance>,
}

#[derive(Deserialize)]
struct SavedInstance {
    id: Label,
    mzxid: i64,
    session: i64,
    /// Whether it had vanished and was still offered.
    #[serde(default)]
    vanished: bool,
    /// When it had, which earlier versions do not say.
    #[serde(default)]
    vanished_at_ms: Option<i64>,
    record: Record,
}

const fn is_followed_by_default() -> bool {
    true
}

const MAGIC: &str = "rollcall-view";
const VERSION: u32 = 1;
/// `rollcall-view 1 `, eight digits and a line feed.
const HEAD_BYTES: usize = MAGIC.len() + 3 + 8 + 1;
/// The longest file: some 100 000 instances.
const BYTES_MAX: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    const CURRENT_AT_MS: i64 = 1_764_115_200_000;

    #[test]
    fn what_was_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let state_dir = folder.path().join("state");
        assert!(SavedView::load(&state_dir, &Layout::default(), moment()).unwrap().is_none());
        for port in [80, 81] {
            let bytes = sample(port).save(&state_dir, &Layout::default(), moment()).unwrap();
            assert_eq!(bytes, std::fs::metadata(state_dir.join(FILE)).unwrap().len());
            let loaded = SavedView::load(&state_dir, &Layout::default(), moment()).unwrap().unwrap();
            assert_eq!(text(&loaded), text(&sample(port)));
            assert!(loaded.view.is_loaded);
            assert_eq!(std::fs::read_dir(&state_dir).unwrap().count(), 1, "nothing else is left behind");
        }
    }

    #[test]
    fn keys_of_later_versions_survive() {
        let bytes = sample(80).encode(&Layout::default(), moment()).unwrap();
        let loaded = decode(&bytes).unwrap();
        let service = loaded.view.services.values().next().unwrap();
        assert_eq!(service.instances[0].record.other["color"], "red");
        assert_eq!(service.settings.min_healthy, 2);
    }

    #[test]
    fn names_alone_are_told_apart_from_services_without_instances() {
        let mut sample = sample(80);
        let key =
            |name| ServiceKey { namespace: Label::parse("shop").unwrap(), name: Label::parse(name).unwrap() };
        for (name, is_followed) in [("empty", true), ("name", false)] {
            let service = Service { is_followed, ..Service::new(key(name)) };
            sample.view.services.insert(Arc::new(service));
        }
        let loaded = decode(&sample.encode(&Layout::default(), moment()).unwrap()).unwrap();
        let is_followed: Vec<_> = loaded.view.services.values().map(|service| service.is_followed).collect();
        assert_eq!(is_followed, [true, true, false]);
        assert_eq!(text(&sample).matches("followed").count(), 1, "as earlier versions write it");
    }

    #[test]
    fn any_change_of_any_byte_is_noticed() {
        let bytes = sample(80).encode(&Layout::default(), moment()).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let error = decode(&changed).unwrap_err();
            assert!(matches!(error, SavedViewError::Damaged | SavedViewError::NoView), "byte {at}: {error}");
            assert!(decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn the_view_of_another_registry_is_refused_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        sample(80).save(folder.path(), &Layout::default(), moment()).unwrap();
        let error =
            SavedView::load(folder.path(), &Layout::new("/elsewhere").unwrap(), moment()).unwrap_err();
        assert_eq!(error.to_string(), "it shows the registry below /rollcall/services, not below /elsewhere");
        assert!(folder.path().join(FILE).exists());
    }

    #[test]
    fn its_age_counts_from_the_last_proof() {
        let saved = sample(80);
        assert_eq!(saved.age(saved.current_at_ms + 1_500), Duration::from_millis(1_500));
        assert_eq!(saved.age(saved.current_at_ms - 1_500), Duration::ZERO);
    }

    #[test]
    fn when_an_instance_vanished_is_kept_whatever_the_clock_of_the_next_process_began_with() {
        let bytes = sample(80).encode(&Layout::default(), moment()).unwrap();
        assert!(
            String::from_utf8_lossy(&bytes).contains(r#""vanished":true,"vanished_at_ms":1764115210000,"#)
        );
        let vanished_at = |bytes: &[u8], moment| {
            let loaded = SavedView::decode(bytes, &Layout::default(), moment).unwrap();
            let service = loaded.view.services.values().next().unwrap();
            assert_eq!(service.instances[0].vanished_at, None);
            moment.now - service.instances[1].vanished_at.unwrap()
        };
        let second = Duration::from_secs(1);
        let at = |unix_ms| Moment { now: moment().now + second * 1_000, unix_ms };
        assert_eq!(vanished_at(&bytes, at(CURRENT_AT_MS + 70_000)), second * 60);
        assert_eq!(
            vanished_at(&bytes, at(CURRENT_AT_MS - 70_000)),
            Duration::ZERO,
            "a clock that was set back"
        );

        let text = text(&sample(80)).replace(r#","vanished_at_ms":1764115210000"#, "");
        let sealed = seal(text.as_bytes().split_at(HEAD_BYTES).1);
        assert_eq!(vanished_at(&sealed, at(CURRENT_AT_MS + 70_000)), second * 70, "of an earlier version");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_refused(bytes: Vec<u8>) {
            prop_assert!(decode(&bytes).is_err());
            prop_assert!(decode(&seal(&bytes)).is_err());
        }
    }

    /// When everything is written and read, unless a test says otherwise.
    fn moment() -> Moment {
        static MOMENT: OnceLock<Moment> = OnceLock::new();
        *MOMENT.get_or_init(|| Moment { now: clock::now(), unix_ms: CURRENT_AT_MS + 60_000 })
    }

    /// With a checksum that is right.
    fn seal(body: &[u8]) -> Vec<u8> {
        [format!("{MAGIC} {VERSION} {:08x}\n", crc32fast::hash(body)).as_bytes(), body].concat()
    }

    fn decode(bytes: &[u8]) -> Result<SavedView, SavedViewError> {
        SavedView::decode(bytes, &Layout::default(), moment())
    }

    fn text(saved: &SavedView) -> String {
        String::from_utf8(saved.encode(&Layout::default(), moment()).unwrap()).unwrap()
    }

    fn sample(port: u16) -> SavedView {
        let label = |text: &str| Label::parse(text).unwrap();
        let record = format!(
            r#"{{"v":1,"addresses":["10.0.0.1"],"ports":[{{"name":"http","port":{port}}}],"status":"up","color":"red"}}"#
        );
        let record = Record::decode(record.as_bytes()).unwrap();
        let instance = |id| Instance::new(label(id), record.clone(), Zxid::from_raw(7), SessionId(i64::MIN));
        let vanished_at = Some(moment().now - Duration::from_secs(50));
        let vanished = Instance { standing: Standing::Suspect, vanished_at, ..instance("web-2") };
        let key = ServiceKey { namespace: label("default"), name: label("web") };
        let service = Service {
            settings: ServiceSettings { min_healthy: 2, ..ServiceSettings::default() },
            instances: vec![Arc::new(instance("web-1")), Arc::new(vanished)].into(),
            zxid: Zxid::from_raw(8),
            children_zxid: Zxid::from_raw(8),
            ..Service::new(key)
        };
        let services = [Arc::new(service)].into();
        let view = View { services, zxid: Zxid::from_raw(9), is_loaded: true, ..View::default() };
        SavedView { view, current_at_ms: CURRENT_AT_MS }
    }
}
