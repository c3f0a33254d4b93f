//! What a backend and a farm are, in one word each.

use serde::{Deserialize, Serialize};

/// What an operator has asked of a backend. Its words are those of the API and of the file in which it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdminState {
    #[default]
    Up,
    /// No new connections, the old ones go on.
    Drain,
    /// Taken out by hand: no new connections, checks go on but do not bring it back.
    Maintenance,
}

impl AdminState {
    pub const ALL: [Self; 3] = [Self::Up, Self::Drain, Self::Maintenance];
}

/// A backend's status, as the contract names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendStatus {
    Up,
    Down,
    /// Not judged yet: takes no traffic.
    Starting,
    Draining,
    Maintenance,
    /// Healthy, but of a lower priority than those in use.
    Standby,
    /// The farm has no checks, or those of one that was up cannot be made: takes traffic, and nobody knows whether it should.
    Unchecked,
}

impl BackendStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Starting => "starting",
            Self::Draining => "draining",
            Self::Maintenance => "maintenance",
            Self::Standby => "standby",
            Self::Unchecked => "unchecked",
        }
    }
    /// Whether new connections may go there (given a weight above 0).
    pub fn serves(self) -> bool {
        matches!(self, Self::Up | Self::Unchecked)
    }
}

/// A farm's status, as the contract names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FarmStatus {
    /// All backends in use.
    Up,
    /// Some are down (or not judged yet).
    Degraded,
    /// None can serve.
    Down,
    Unchecked,
    Disabled,
}

impl FarmStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Degraded => "degraded",
            Self::Down => "down",
            Self::Unchecked => "unchecked",
            Self::Disabled => "disabled",
        }
    }
    /// The farm's status, from its backends' and their weights: who has none serves nobody, whatever his checks say. Drained and
    /// maintained backends were taken out on purpose and do not degrade a farm.
    pub fn of(enabled: bool, backends: impl IntoIterator<Item = (BackendStatus, u16)>) -> Self {
        let (mut serving, mut unchecked, mut sick) = (0u32, 0u32, 0u32);
        for (status, weight) in backends {
            match status {
                BackendStatus::Up => serving += u32::from(weight > 0),
                BackendStatus::Unchecked => unchecked += u32::from(weight > 0),
                BackendStatus::Down | BackendStatus::Starting => sick += 1,
                BackendStatus::Draining | BackendStatus::Maintenance | BackendStatus::Standby => {}
            }
        }
        match (enabled, serving, unchecked, sick) {
            (false, ..) => Self::Disabled,
            (true, 0, 0, _) => Self::Down,
            (true, _, 1.., _) => Self::Unchecked,
            (true, _, 0, 0) => Self::Up,
            (true, _, 0, _) => Self::Degraded,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_farm_is_what_its_backends_and_their_weights_make_of_it() {
        use BackendStatus::{Down, Draining, Maintenance, Standby, Starting, Unchecked, Up};
        let table: &[(&[(BackendStatus, u16)], FarmStatus)] = &[
            (&[], FarmStatus::Down),
            (&[(Up, 1), (Up, 5)], FarmStatus::Up),
            (&[(Up, 1), (Down, 1)], FarmStatus::Degraded),
            (&[(Up, 1), (Starting, 1)], FarmStatus::Degraded),
            (&[(Up, 1), (Draining, 1), (Maintenance, 1), (Standby, 1)], FarmStatus::Up),
            (&[(Down, 1), (Down, 1)], FarmStatus::Down),
            (&[(Draining, 1)], FarmStatus::Down),
            (&[(Unchecked, 1)], FarmStatus::Unchecked),
            (&[(Up, 1), (Unchecked, 1)], FarmStatus::Unchecked),
            (&[(Up, 0), (Up, 0)], FarmStatus::Down),
            (&[(Up, 0), (Up, 1)], FarmStatus::Up),
            (&[(Unchecked, 0)], FarmStatus::Down),
        ];
        for (backends, expected) in table {
            assert_eq!(FarmStatus::of(true, backends.iter().copied()), *expected, "{backends:?}");
            assert_eq!(FarmStatus::of(false, backends.iter().copied()), FarmStatus::Disabled);
        }
    }
}
