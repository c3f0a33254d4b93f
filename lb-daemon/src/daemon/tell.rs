//! Events, as they are kept, followed and logged.

use lb_core::config::model::{BackendName, FarmName};
use lb_core::state::{Event, EventKind, EventLevel, News};

use super::Daemon;
use crate::clock;

impl Daemon {
    /// Keeps an event, tells those who follow, and logs it.
    pub(super) fn tell(
        &self,
        level: EventLevel,
        kind: EventKind,
        farm: Option<&FarmName>,
        backend: Option<&BackendName>,
        mut message: String,
    ) {
        if let Some(by) = self.by {
            message += &format!(" ({by})");
        }
        match level {
            EventLevel::Info => tracing::info!("{message}"),
            EventLevel::Warning => tracing::warn!("{message}"),
            EventLevel::Error => tracing::error!("{message}"),
        }
        let news = News {
            level,
            kind,
            farm: farm.map(FarmName::as_str),
            backend: backend.map(BackendName::as_str),
            by: self.by,
            message,
        };
        let event = self.events.publish(|log| log.push(clock::wall(), news));
        // Events that name a backend are changes of its state.
        if let (Some(farm), Some(_)) = (farm, backend) {
            self.call_hooks(farm, event);
        }
    }

    fn call_hooks(&self, farm: &FarmName, event: Event) {
        let Some(config) = self.config.farm(farm.as_str()) else { return };
        if config.on_change.is_empty() {
            return;
        }
        match serde_json::to_string(&crate::api::types::Event::new(&event)) {
            Ok(json) => config.on_change.iter().for_each(|hook| self.hooks.notify(farm, hook, json.clone())),
            Err(error) => tracing::error!("cannot write an event as JSON: {error}"),
        }
    }
}
