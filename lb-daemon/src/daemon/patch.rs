//! What an operator sets on a backend by hand, and who waits for it: saved first, then in force.

use super::operators::Setting;
use crate::handle::{Refusal, Reply};

/// One such change.
#[derive(Debug)]
pub(super) struct Patch {
    pub setting: Setting,
    reply: Reply<()>,
}

impl Patch {
    pub fn new(setting: Setting, reply: Reply<()>) -> Self {
        Self { setting, reply }
    }

    /// What became of it. Whoever asked may have left.
    pub fn answer(self, result: Result<(), Refusal>) {
        self.reply.send(result).ok();
    }
}
