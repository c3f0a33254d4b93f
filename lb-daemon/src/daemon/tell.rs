//! Events, as they are kept, followed and logged, and the hooks that are told of them.

use std::sync::Arc;

use lb_core::config::model::{BackendName, Config, FarmName};
use lb_core::state::{Event, EventKind, EventLevel, News, Peer};

use super::BackendKey;
use crate::clock;
use crate::handle::Events;
use crate::hooks::Hooks;

/// Something to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    level: EventLevel,
    kind: EventKind,
    farm: Option<FarmName>,
    backend: Option<BackendName>,
    pub message: String,
}

impl Told {
    pub fn new(level: EventLevel, kind: EventKind, message: impl Into<String>) -> Self {
        Self { level, kind, farm: None, backend: None, message: message.into() }
    }

    pub fn info(kind: EventKind, message: impl Into<String>) -> Self {
        Self::new(EventLevel::Info, kind, message)
    }

    pub fn warning(kind: EventKind, message: impl Into<String>) -> Self {
        Self::new(EventLevel::Warning, kind, message)
    }

    pub fn error(kind: EventKind, message: impl Into<String>) -> Self {
        Self::new(EventLevel::Error, kind, message)
    }

    pub fn of_farm(self, farm: &FarmName) -> Self {
        Self { farm: Some(farm.clone()), ..self }
    }

    /// Of a backend: a change of its state, of which hooks are told.
    pub fn of(self, (farm, backend): &BackendKey) -> Self {
        Self { farm: Some(farm.clone()), backend: Some(backend.clone()), ..self }
    }
}

/// See the module.
pub(super) struct Telling {
    events: Arc<Events>,
    hooks: Hooks,
    /// Who asked for what is being done.
    by: Option<Peer>,
}

impl Telling {
    pub fn new(events: Arc<Events>, hooks: Hooks) -> Self {
        Self { events, hooks, by: None }
    }

    pub fn events(&self) -> Arc<Events> {
        self.events.clone()
    }

    /// From now on it is told who asked for it.
    pub fn set_by(&mut self, by: Option<Peer>) {
        self.by = by;
    }

    pub fn by(&self) -> Option<Peer> {
        self.by
    }

    /// Keeps an event, tells those who follow and the hooks of its farm in `config`, and logs it.
    pub fn tell(&self, config: &Config, told: Told) {
        let event = publish(&self.events, self.by, told);
        let farm = event.farm.as_deref().filter(|_| event.backend.is_some());
        let Some(farm) = farm.and_then(|farm| config.farm(farm)) else { return };
        if farm.on_change.is_empty() {
            return;
        }
        match serde_json::to_string(&crate::api::types::Event::new(&event)) {
            Ok(json) => {
                farm.on_change.iter().for_each(|hook| self.hooks.notify(&farm.name, hook, json.clone()));
            }
            Err(error) => tracing::error!("cannot write an event as JSON: {error}"),
        }
    }
}

/// Keeps an event that no hook is told of, and logs it. For what is done beside the loop.
pub(super) fn publish(events: &Events, by: Option<Peer>, told: Told) -> Event {
    let Told { level, kind, farm, backend, mut message } = told;
    if let Some(by) = by {
        message += &format!(" ({by})");
    }
    match level {
        EventLevel::Info => tracing::info!("{message}"),
        EventLevel::Warning => tracing::warn!("{message}"),
        EventLevel::Error => tracing::error!("{message}"),
    }
    let (farm, backend) = (farm.as_ref().map(FarmName::as_str), backend.as_ref().map(BackendName::as_str));
    let news = News { level, kind, farm, backend, by, message };
    events.publish(|log| log.push(clock::wall(), news))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::test_config;

    #[test]
    fn an_event_says_who_asked_for_it_until_that_is_done() {
        let mut telling = Telling::new(Arc::default(), Hooks::new(Arc::default()));
        let config = test_config::parse("");
        let by = Peer { uid: 7, pid: Some(8) };
        telling.set_by(Some(by));
        telling.tell(&config, Told::info(EventKind::ConfigApplied, "applied"));
        telling.set_by(None);
        telling.tell(&config, Told::warning(EventKind::ConfigRefused, "refused"));
        let (events, _) = telling.events().follow();
        let told: Vec<_> = events.into_iter().map(|event| (event.by, event.message)).collect();
        assert_eq!(told, [(Some(by), format!("applied ({by})")), (None, "refused".to_owned())]);
    }
}
