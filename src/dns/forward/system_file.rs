//! What the system's `resolv.conf` says now, and what of all that it said counts. Pure.
//!
//! Others rewrite the file while it is watched: it is away for a moment, or empty, and may stay so. As with settings, what cannot be
//! read, or says nothing, changes nothing: who was asked before is asked on. Only before anything was read there is nothing to go on with.

use super::resolv_conf::ResolvConf;

/// The file of the system.
#[derive(Debug)]
pub(super) struct SystemFile {
    /// What it said last, or why it cannot be read.
    said: Result<String, String>,
    /// What counts, once it could be read.
    counts: Option<ResolvConf>,
    /// Whether that is something that it said before.
    is_passed_over: bool,
}

/// What became of a reading of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// It counts.
    Counts,
    /// It counts, and what was read before it did not.
    CountsAgain,
    /// It does not count, and why. What it said before does.
    PassedOver(String),
    /// The same, as it was with the reading before.
    StillPassedOver(String),
    /// It cannot be read, and why, and never could.
    NeverRead(String),
}

/// Whether the nameservers of the file are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nameservers {
    /// They are.
    Asked,
    /// Others are, so that the file may well name none.
    NotAsked,
}

impl Default for SystemFile {
    fn default() -> Self {
        Self { said: Ok(String::new()), counts: None, is_passed_over: false }
    }
}

impl SystemFile {
    /// What it said last, or why it cannot be read.
    pub(super) const fn said(&self) -> &Result<String, String> {
        &self.said
    }

    /// What counts.
    pub(super) fn counts(&self) -> ResolvConf {
        self.counts.clone().unwrap_or_default()
    }

    /// Takes a reading of the file.
    pub(super) fn take(&mut self, said: Result<String, String>, nameservers: Nameservers) -> Reading {
        self.said.clone_from(&said);
        let says_enough = |file: &ResolvConf| match nameservers {
            Nameservers::Asked => !file.nameservers.is_empty(),
            Nameservers::NotAsked => *file != ResolvConf::default(),
        };
        let is_loss = |file: &ResolvConf| !says_enough(file) && self.counts.as_ref().is_some_and(says_enough);
        let reason = match said.map(|text| ResolvConf::parse(&text)) {
            Ok(file) if !is_loss(&file) => {
                self.counts = Some(file);
                let was_passed_over = std::mem::take(&mut self.is_passed_over);
                return if was_passed_over { Reading::CountsAgain } else { Reading::Counts };
            }
            Ok(_) => match nameservers {
                Nameservers::Asked => "it names no nameserver that can be used".to_owned(),
                Nameservers::NotAsked => "it says nothing".to_owned(),
            },
            Err(error) if self.counts.is_none() => return Reading::NeverRead(error),
            Err(error) => error,
        };
        if std::mem::replace(&mut self.is_passed_over, true) {
            Reading::StillPassedOver(reason)
        } else {
            Reading::PassedOver(reason)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "nameserver 10.0.0.1\nsearch a.example\n";

    #[test]
    fn what_cannot_be_read_or_names_nobody_changes_nothing_and_is_told_once() {
        let mut file = SystemFile::default();
        assert_eq!(read(&mut file, GOOD), Reading::Counts);
        let good = file.counts();
        assert!(matches!(fail(&mut file), Reading::PassedOver(_)));
        for text in ["", "# later\n", "search b.example\n", "nameserver dns.example\n"] {
            assert!(matches!(read(&mut file, text), Reading::StillPassedOver(_)), "{text:?}");
            assert_eq!(file.counts(), good, "{text:?}");
            assert_eq!(file.said().as_deref(), Ok(text));
        }
        assert!(matches!(fail(&mut file), Reading::StillPassedOver(_)));
        assert_eq!(read(&mut file, GOOD), Reading::CountsAgain);
        assert_eq!(read(&mut file, "nameserver 10.0.0.2\n"), Reading::Counts);
        assert_eq!(file.counts(), ResolvConf::parse("nameserver 10.0.0.2\n"));
        assert!(matches!(read(&mut file, ""), Reading::PassedOver(_)), "the next time is told again");
    }

    #[test]
    fn before_anything_was_read_nothing_counts() {
        let mut file = SystemFile::default();
        for _ in 0..2 {
            assert!(matches!(fail(&mut file), Reading::NeverRead(_)));
            assert_eq!(file.counts(), ResolvConf::default());
        }
        assert_eq!(read(&mut file, ""), Reading::Counts);
        assert_eq!(read(&mut file, "search a.example\n"), Reading::Counts, "nobody is lost by that");
        assert_eq!(read(&mut file, GOOD), Reading::Counts);
    }

    #[test]
    fn where_others_are_asked_the_file_need_not_name_anybody() {
        let mut file = SystemFile::default();
        let mut take = |text: &str| file.take(Ok(text.to_owned()), Nameservers::NotAsked);
        assert_eq!(take(GOOD), Reading::Counts);
        assert_eq!(take("search b.example\n"), Reading::Counts);
        assert!(matches!(take(""), Reading::PassedOver(_)));
        assert_eq!(file.counts(), ResolvConf::parse("search b.example\n"));
    }

    fn read(file: &mut SystemFile, text: &str) -> Reading {
        file.take(Ok(text.to_owned()), Nameservers::Asked)
    }

    fn fail(file: &mut SystemFile) -> Reading {
        file.take(Err("gone".to_owned()), Nameservers::Asked)
    }
}
