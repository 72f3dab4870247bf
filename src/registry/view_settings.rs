//! What can be changed about the view while it is followed.

use tokio::sync::watch;

use super::brake::BrakePlan;
use super::zones::Home;

/// What is made of the registry by its readers here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ViewSettings {
    /// What becomes of instances that vanish.
    pub brake: BrakePlan,
    /// Where lookups come from.
    pub home: Home,
}

/// The settings as they are now.
#[derive(Clone, Debug)]
pub struct LiveViewSettings(watch::Receiver<ViewSettings>);

impl LiveViewSettings {
    /// The settings, and what changes them.
    pub fn new(settings: ViewSettings) -> (watch::Sender<ViewSettings>, Self) {
        let (sender, receiver) = watch::channel(settings);
        (sender, Self(receiver))
    }

    /// The settings now.
    pub fn get(&self) -> ViewSettings {
        self.0.borrow().clone()
    }

    /// Waits until they change, and takes them; for ever, if nobody can change them any more.
    pub(super) async fn changed(&mut self) -> ViewSettings {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.0.borrow_and_update().clone()
    }
}

impl From<BrakePlan> for LiveViewSettings {
    /// Settings that nobody changes.
    fn from(brake: BrakePlan) -> Self {
        let (_, settings) = Self::new(ViewSettings { brake, home: Home::default() });
        settings
    }
}
