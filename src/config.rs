//! Settings files: YAML in, a checked value out, or every mistake at once.
//!
//! ```text
//! text ─► document (tree with positions, duplicate keys, ${NAME}) ─► typed (serde, one mistake after the other
//!         taken out of the tree until the rest reads) ─► the role's own checks ─► value, or all mistakes by position
//! ```
//!
//! Every mistake names file, line, column, path and remedy; only an error of YAML's syntax stands alone, since nothing
//! after it can be trusted. A mistake that only follows from another one is not told. Values that came from the
//! environment, and values of keys that name a secret, are never repeated in a text.
//!
//! This module knows no role: what the keys mean is the business of the type that is read and of the checks that
//! the caller passes in.

mod document;
pub mod duration;
mod environment;
mod file_watch;
mod message;
mod mistake;
mod scalar;
#[cfg(test)]
pub(crate) mod schema;
pub mod timestamp;
mod typed;

use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::de::DeserializeOwned;

pub use environment::Environment;
pub use file_watch::{FileWatch, Nudge};
pub use mistake::{LocatedMistake, Mistake, Position, nearest_word};
pub use scalar::{Scalar, socket_addr};

use document::Document;

/// Bytes of the longest settings file, which is read into memory: no ConfigMap of Kubernetes holds more.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a settings file gives no settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{0}; give the path of a file that can be read")]
    Read(#[from] std::io::Error),
    /// It is a folder, a pipe that somebody has put there, or the like.
    #[error("{}: no regular file; save what it is to say in one, and give the path of that", .0.display())]
    NoFile(PathBuf),
    /// The file is longer than any settings.
    #[error(
        "{}: longer than {FILE_BYTES_MAX} bytes; give a settings file, and divide what it lists among several if it is one",
        .0.display()
    )]
    TooLong(PathBuf),
    /// The file is no text.
    #[error("{}: not UTF-8 text; save it as UTF-8", .0.display())]
    NotText(PathBuf),
    /// What is wrong in the file, in the order of the lines.
    #[error("{}", mistake::render(.file, .mistakes))]
    Mistakes {
        /// The file's name as it was given.
        file: String,
        /// All of them.
        mistakes: Vec<LocatedMistake>,
    },
}

/// Reads `file` as a `T` and has `decide` check it and make of it what the role runs with.
///
/// `decide` is called also when mistakes were found, with what could be read, so that its own are told with them.
///
/// # Errors
///
/// When the file cannot be read, or with every mistake in it.
pub fn load<T: DeserializeOwned, R>(
    file: &Path,
    environment: &Environment,
    decide: impl FnOnce(T) -> Result<R, Vec<Mistake>>,
) -> Result<R, ConfigError> {
    load_text(file, &read(file)?, environment, decide)
}

/// As [`load`], when the `text` of the file was read already.
///
/// # Errors
///
/// With every mistake in it.
pub fn load_text<T: DeserializeOwned, R>(
    file: &Path,
    text: &str,
    environment: &Environment,
    decide: impl FnOnce(T) -> Result<R, Vec<Mistake>>,
) -> Result<R, ConfigError> {
    parse(text, environment, decide)
        .map_err(|mistakes| ConfigError::Mistakes { file: file.display().to_string(), mistakes })
}

/// As [`load`], from a text.
///
/// # Errors
///
/// Every mistake in it, in the order of their positions.
pub fn parse<T: DeserializeOwned, R>(
    text: &str,
    environment: &Environment,
    decide: impl FnOnce(T) -> Result<R, Vec<Mistake>>,
) -> Result<R, Vec<LocatedMistake>> {
    let mut document = Document::parse(text, environment).map_err(|mistake| vec![mistake])?;
    let decided = typed::read(&mut document).map(decide);
    if let Some(Err(found)) = &decided {
        document.add_found(found);
    }
    let mistakes = document.into_mistakes();
    match decided {
        Some(Ok(value)) if mistakes.is_empty() => Ok(value),
        Some(Ok(_) | Err(_)) | None => Err(mistakes),
    }
}

/// Reads a settings file as text.
///
/// # Errors
///
/// When it cannot be read, is no file, is too long, or is no text.
pub fn read(file: &Path) -> Result<String, ConfigError> {
    let kind = fs::metadata(file)?.file_type();
    // A FIFO keeps whoever opens it until somebody opens its other end. Of a pipe that this process was given, such as /dev/stdin, somebody
    // has the other end, and it is closed in the end.
    let is_given = ["/dev", "/proc"].iter().any(|folder| file.starts_with(folder));
    if kind.is_dir() || (kind.is_fifo() && !is_given) {
        return Err(ConfigError::NoFile(file.to_owned()));
    }
    let mut bytes = Vec::new();
    fs::File::open(file)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(ConfigError::TooLong(file.to_owned()));
    }
    String::from_utf8(bytes).map_err(|_| ConfigError::NotText(file.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use rustix::fs::{CWD, Mode, mkfifoat};
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Example {
        namespace: String,
        http: Http,
        services: Vec<Service>,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Http {
        address: String,
        port: Option<u16>,
        password: Option<u16>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Service {
        name: String,
        port: u16,
        #[serde(default)]
        meta: BTreeMap<String, String>,
        #[serde(default)]
        checks: Vec<Check>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Check {
        kind: Kind,
        #[serde(default)]
        interval: Option<String>,
        #[serde(default)]
        rise: u32,
    }

    #[derive(Debug, PartialEq, Eq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Http,
        Tcp,
    }

    const BROKEN: &str = "\
namespace: [shop]
http:
  address: 127.0.0.1
  adress: 127.0.0.2
  port: 70000
services:
  - name: web
    port: ${WEB_PORT}
    prot: 80
    checks:
      - kind: htpp
        intervall: 2s
      - interval: never
        rise: -1
    name: web2
  - port: ${SECRET}
    meta:
      version: 1.5
    checks:
      kind: tcp
  - just a text
colour: blue
";

    const BROKEN_REPORT: &str = r#"broken.yaml:1:12: namespace: a list stands where a text is needed; write a text
broken.yaml:4:3: http.adress: unknown key; did you mean "address"? (known: address, port, password)
broken.yaml:5:9: http.port: the number 70000 does not fit; write a whole number from 0 to 65535
broken.yaml:8:11: services[0].port: the environment variable WEB_PORT is not set; set it, or write the value
broken.yaml:9:5: services[0].prot: unknown key; did you mean "port"? (known: name, port, meta, checks)
broken.yaml:11:15: services[0].checks[0].kind: unknown value "htpp"; did you mean "http"? (known: http, tcp)
broken.yaml:12:9: services[0].checks[0].intervall: unknown key; did you mean "interval"? (known: kind, interval, rise)
broken.yaml:13:9: services[0].checks[1]: the key kind is missing; add it
broken.yaml:13:19: services[0].checks[1].interval: "never" is not a duration; write one such as 2s
broken.yaml:14:15: services[0].checks[1].rise: the number -1 does not fit; write a whole number from 0 to 4294967295
broken.yaml:15:5: services[0].name: the key stands twice, first in line 7; keep one of them
broken.yaml:16:5: services[1]: the key name is missing; add it
broken.yaml:16:11: services[1].port: the text "${SECRET}" stands where a whole number is needed; write a whole number from 0 to 65535
broken.yaml:18:16: services[1].meta.version: the number 1.5 stands where a text is needed; put it in quotes
broken.yaml:20:7: services[1].checks: a mapping stands where a list is needed; write a list, each item after a hyphen
broken.yaml:21:5: services[2]: the text "just a text" stands where a mapping is needed; write keys with values
broken.yaml:22:1: colour: unknown key; remove it (known: namespace, http, services)"#;

    #[test]
    fn every_mistake_is_told_at_once_with_its_position_and_remedy() {
        let error = parse_example(BROKEN).unwrap_err();
        assert_eq!(mistake::render("broken.yaml", &error), BROKEN_REPORT);
        assert!(!mistake::render("broken.yaml", &error).contains("hunter2"));
    }

    #[test]
    fn a_good_file_gives_its_values() {
        let example = parse_example(
            "base: &base {kind: http}\nservices: [{name: '${NAME}', port: 80, checks: [*base]}]",
        );
        assert_eq!(example.unwrap_err()[0].mistake.path, "base", "no key is free, not even for anchors");
        let text = "# nothing but this\nservices:\n- name: a${NAME}b\n  port: ${PORT}\n  meta: {a: \"$${NAME}\"}\n  checks:\n  - &check {kind: tcp, interval: 2s}\n  - *check\n";
        let example = parse_example(text).unwrap();
        let service = &example.services[0];
        assert_eq!((service.name.as_str(), service.port, service.meta["a"].as_str()), ("axb", 80, "${NAME}"));
        assert_eq!((&service.checks[1].kind, service.checks[1].rise), (&Kind::Tcp, 0));
        assert!(parse_example("").is_ok(), "an empty file has every default");
    }

    #[test]
    fn an_error_of_syntax_stands_alone_with_its_position() {
        for (text, line) in [("a: [1, 2\nb: 3\n", 2), ("b:\n  a: 'x\n", 2), ("a: 1\n---\nb: 2\n", 2)] {
            let mistakes = parse_example(text).unwrap_err();
            assert_eq!((mistakes.len(), mistakes[0].position.line), (1, line), "{text:?}: {mistakes:?}");
        }
    }

    #[test]
    fn what_follows_from_a_mistake_is_not_told() {
        let mistakes = parse_example("services: [{name: web, port: many}]").unwrap_err();
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        assert!(mistakes[0].mistake.message.contains("many"));
    }

    #[test]
    fn all_missing_keys_of_a_mapping_are_told() {
        let mistakes = parse_example("services: [{}, {checks: [{}]}]").unwrap_err();
        let told: Vec<_> = mistakes.iter().map(|LocatedMistake { mistake, .. }| mistake).collect();
        let told: Vec<_> =
            told.iter().map(|mistake| format!("{} {}", mistake.path, mistake.message)).collect();
        let missing = [
            ("services[0]", "name"),
            ("services[0]", "port"),
            ("services[1]", "name"),
            ("services[1]", "port"),
        ];
        let missing = missing.into_iter().chain([("services[1].checks[0]", "kind")]);
        let missing: Vec<_> = missing.map(|(path, key)| format!("{path} the key {key} is missing")).collect();
        assert_eq!(told, missing);
    }

    #[test]
    fn paths_count_items_as_they_stand_in_the_file() {
        let text = "services:\n- 5\n- {name: web, port: 80, checks: [7, {kind: tcp, interval: never}]}\n";
        let mistakes = parse_example(text).unwrap_err();
        let paths: Vec<_> = mistakes.iter().map(|mistake| mistake.mistake.path.as_str()).collect();
        assert_eq!(paths, ["services[0]", "services[1].checks[0]", "services[1].checks[1].interval"]);
    }

    #[test]
    fn secrets_are_not_repeated() {
        let mistakes = parse_example("http: {password: hunter2}").unwrap_err();
        assert!(!mistake::render("f", &mistakes).contains("hunter2"), "{mistakes:?}");
    }

    #[test]
    fn a_short_value_of_a_variable_is_hidden_and_nothing_else() {
        for (value, told) in [
            ("x", r#"the text "${ID}" stands where a whole number is needed"#),
            ("a", r#"the text "${ID}" stands where a whole number is needed"#),
            ("-1", "the number ${ID} does not fit"),
        ] {
            let environment = Environment::of([("ID".to_owned(), value.to_owned())]);
            let mistakes = parse::<Example, _>("http:\n  port: ${ID}\n", &environment, Ok);
            let mistakes = mistakes.map(drop).unwrap_err();
            assert_eq!((mistakes.len(), mistakes[0].mistake.message.as_str()), (1, told));
        }
    }

    #[test]
    fn hostile_files_are_refused_in_bounded_time() {
        let bomb: String = (1..30).fold("a0: &a0 [x]\n".to_owned(), |text, level| {
            text + &format!("a{level}: &a{level} [*a{0}, *a{0}, *a{0}]\n", level - 1)
        });
        assert!(parse_example(&bomb).is_err());
        assert!(parse_example(&"[".repeat(10_000)).is_err());
        assert!(parse_example(&"- ".repeat(10_000)).is_err());
        let many: String = (0..2_000).map(|key| format!("key{key}: 1\n")).collect();
        assert!(parse_example(&many).unwrap_err().len() <= document::MISTAKES_MAX + 1);
    }

    #[test]
    fn a_file_of_five_thousand_services_is_read_and_one_of_too_many_values_is_told_the_bound() {
        let services = |checks: usize| {
            let checks = ["{kind: http, interval: 2s, rise: 2}"].repeat(checks).join(", ");
            let service = |number| format!("- {{name: web-{number}, port: 8080, checks: [{checks}]}}\n");
            parse_example(&format!("services:\n{}", (0..5_000).map(service).collect::<String>()))
        };
        let example = services(1).unwrap();
        assert_eq!((example.services.len(), example.services[4_999].name.as_str()), (5_000, "web-4999"));
        let mistakes = services(5).unwrap_err();
        assert_eq!(
            mistakes[0].mistake.to_string(),
            "more than 100000 values, an alias counted as all that it stands for; use fewer aliases, or divide what the file lists among \
             several"
        );
    }

    #[test]
    fn a_file_that_is_none_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.yaml");
        let load = |file: &Path| load::<Example, _>(file, &Environment::empty(), Ok).unwrap_err().to_string();
        assert!(load(&file).contains("x.yaml"));
        fs::write(&file, [0xff, 0xfe]).unwrap();
        assert!(load(&file).contains("not UTF-8"));
        fs::write(&file, "#".repeat(1_100_000)).unwrap();
        assert!(load(&file).contains("longer than"));
        fs::remove_file(&file).unwrap();
        mkfifoat(CWD, &file, Mode::RUSR | Mode::WUSR).unwrap();
        for no_file in [file.as_path(), folder.path()] {
            let told = format!("{}: no regular file; save what it is", no_file.display());
            assert!(load(no_file).starts_with(&told), "{}", load(no_file));
        }
        assert_eq!(read(Path::new("/dev/null")).unwrap(), "");
    }

    #[test]
    fn a_pipe_that_the_process_was_given_is_read() {
        let (receiver, mut sender) = std::io::pipe().unwrap();
        sender.write_all(b"colour: blue").unwrap();
        drop(sender);
        let file = format!("/proc/self/fd/{}", receiver.as_raw_fd());
        assert_eq!(read(Path::new(&file)).unwrap(), "colour: blue");
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(1_000))]

        #[test]
        fn no_text_makes_it_panic(
            start in 0..BROKEN.len(),
            length in 0..60_usize,
            wild in "[-:#&*!|>'\"%@`{}\\[\\],?~ \\n\\t\\ra-z0-9é$<]{0,40}",
        ) {
            let end = (start + length).min(BROKEN.len());
            let _ = parse_example(&format!("{}{wild}{}", &BROKEN[..start], &BROKEN[end..]));
            let _ = parse_example(&wild);
        }
    }

    fn parse_example(text: &str) -> Result<Example, Vec<LocatedMistake>> {
        let variables = [("NAME", "x"), ("PORT", "80"), ("SECRET", "hunter2")];
        let environment = Environment::of(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
        parse(text, &environment, |example: Example| {
            let mut mistakes = Vec::new();
            for (at, service) in example.services.iter().enumerate() {
                if service.port == 0 {
                    mistakes.push(Mistake::new(
                        format!("services[{at}].port"),
                        "0 is not a port",
                        "use another",
                    ));
                }
                for (check_at, check) in service.checks.iter().enumerate() {
                    if check.interval.as_deref() == Some("never") {
                        let path = format!("services[{at}].checks[{check_at}].interval");
                        mistakes.push(Mistake::new(
                            path,
                            "\"never\" is not a duration",
                            "write one such as 2s",
                        ));
                    }
                }
            }
            if mistakes.is_empty() { Ok(example) } else { Err(mistakes) }
        })
    }
}
