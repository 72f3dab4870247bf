//! The settings of the brake.

use std::time::Duration;

use serde::Deserialize;

#[cfg(test)]
use crate::config::schema;
use crate::config::{Mistake, Scalar, duration};

/// The brake as the settings file has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct BrakeSettings {
    /// Whether there is one. Default: true. Danger: without it every mass expiry of sessions empties the answers.
    pub enabled: Option<bool>,
    /// More than this share of a service, or of everything, must vanish for the registry not to be believed, `1%` to `99%`. Default: `30%`.
    #[cfg_attr(test, schemars(with = "Option<schema::Percent>"))]
    pub share: Option<Scalar>,
    /// Within which it must vanish, `1s` to `1m`. Default: `10s`. Danger: who died and does not refuse connections is offered, as a last resort, for
    /// as long.
    #[cfg_attr(test, schemars(with = "Option<schema::Duration>"))]
    pub window: Option<Scalar>,
    /// The longest time for which something is offered that the registry does not know any more, up to `1h`. Default: `5m`.
    #[cfg_attr(test, schemars(with = "Option<schema::Duration>"))]
    pub hold_max: Option<Scalar>,
}

/// The brake, with everything decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrakePlan {
    /// Whether there is one.
    pub is_enabled: bool,
    /// More than this must vanish, in percent.
    pub share_percent: u8,
    /// Within this time.
    pub window: Duration,
    /// The longest hold.
    pub hold_max: Duration,
}

impl Default for BrakePlan {
    fn default() -> Self {
        let (window, hold_max) = (Duration::from_secs(10), Duration::from_secs(300));
        Self { is_enabled: true, share_percent: 30, window, hold_max }
    }
}

impl BrakeSettings {
    const WINDOW: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
    const HOLD_MAX: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3_600));

    /// Checks everything and decides every default; mistakes get paths below `path`.
    pub fn plan(&self, path: &str, mistakes: &mut Vec<Mistake>) -> BrakePlan {
        let mut plan = BrakePlan { is_enabled: self.enabled.unwrap_or(true), ..BrakePlan::default() };
        if let Some(text) = &self.share {
            match text.0.strip_suffix('%').map(str::parse::<u8>) {
                Some(Ok(percent @ 1..=99)) => plan.share_percent = percent,
                _ => mistakes.push(Mistake::new(
                    format!("{path}.share"),
                    format!("{:?} is no share", text.0),
                    "write a whole number of percent from 1% to 99%, or enabled: false for no brake",
                )),
            }
        }
        let mut within = |key: &str, text: &Option<Scalar>, bounds, default| {
            let given = text
                .as_ref()
                .and_then(|text| text.to_duration_within(&format!("{path}.{key}"), bounds, mistakes));
            given.unwrap_or(default)
        };
        plan.window = within("window", &self.window, Self::WINDOW, plan.window);
        plan.hold_max = within("hold_max", &self.hold_max, Self::HOLD_MAX, plan.hold_max);
        if plan.hold_max < plan.window {
            mistakes.push(Mistake::new(
                format!("{path}.hold_max"),
                format!(
                    "{} is shorter than the window, {}",
                    duration::text(plan.hold_max),
                    duration::text(plan.window)
                ),
                "make it longer, or the window shorter",
            ));
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_said_is_the_default() {
        let mut mistakes = Vec::new();
        assert_eq!(BrakeSettings::default().plan("brake", &mut mistakes), BrakePlan::default());
        assert!(mistakes.is_empty());
    }

    #[test]
    fn what_cannot_be_is_told_with_its_path() {
        let text = |text: &str| Some(Scalar(text.to_owned()));
        let mut mistakes = Vec::new();
        for share in ["0%", "100%", "30", "0.3", "-1%"] {
            BrakeSettings { share: text(share), ..BrakeSettings::default() }.plan("brake", &mut mistakes);
        }
        assert_eq!(mistakes.len(), 5);
        assert!(mistakes.iter().all(|mistake| mistake.path == "brake.share"));
        mistakes.clear();
        let settings = BrakeSettings {
            window: text("30s"),
            hold_max: text("20s"),
            share: text("50%"),
            enabled: Some(false),
        };
        let plan = settings.plan("brake", &mut mistakes);
        assert_eq!((plan.share_percent, plan.is_enabled), (50, false));
        assert_eq!(mistakes.len(), 1);
        assert_eq!(mistakes[0].path, "brake.hold_max");
    }
}
