//! Who was told to take nobody new since there is no way to him.

use std::collections::BTreeSet;

use super::BackendKey;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Wayless {
    told: BTreeSet<BackendKey>,
}

impl Wayless {
    pub fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// Takes over who they are now: who is new among them, and who is no longer.
    pub fn turn(&mut self, now: BTreeSet<BackendKey>) -> (Vec<BackendKey>, Vec<BackendKey>) {
        let before = std::mem::replace(&mut self.told, now);
        let lost = self.told.difference(&before).cloned().collect();
        (lost, before.difference(&self.told).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::test_config::key;

    #[test]
    fn a_way_that_is_lost_is_told_once_and_so_is_one_that_is_found_again() {
        let mut wayless = Wayless::default();
        let keys = |names: &[&str]| names.iter().map(|name| key(name)).collect::<Vec<_>>();
        let mut turn = |names: &[&str]| wayless.turn(keys(names).into_iter().collect());
        assert_eq!(turn(&["a"]), (keys(&["a"]), keys(&[])));
        assert_eq!(turn(&["a"]), (keys(&[]), keys(&[])));
        assert_eq!(turn(&["b"]), (keys(&["b"]), keys(&["a"])));
        assert_eq!(turn(&[]), (keys(&[]), keys(&["b"])));
        assert!(wayless.is_empty());
    }
}
