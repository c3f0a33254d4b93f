//! What operators have set, on its way to the disk. One write at a time, and what is wanted last is written last: a disk that
//! hangs and comes back never leaves an older state than the one in force.

use super::jobs::{Done, Jobs};
use crate::overrides::Overrides;

/// The number of no change: nobody waits for it.
pub const NOBODY: u64 = 0;

/// Something to write, and the number of the change that waits for it.
#[derive(Debug)]
pub(super) struct Write {
    of: u64,
    overrides: Overrides,
}

impl Write {
    pub fn new(of: u64, overrides: Overrides) -> Self {
        Self { of, overrides }
    }

    /// Writes it beside the loop.
    pub fn begin(self, jobs: &Jobs) {
        let Self { of, overrides } = self;
        let broke = Done::Saved(of, Err("it broke off; the log says more".to_owned()));
        jobs.run(broke, move || Done::Saved(of, overrides.save().map_err(|error| format!("{error:#}"))));
    }
}

/// The write under way, and the one to follow.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    under_way: Option<u64>,
    next: Option<Write>,
}

impl Keeping {
    /// Wants something written in place of whatever has not been begun. It is given back if it is to be begun now.
    pub fn want(&mut self, write: Write) -> Option<Write> {
        self.next = Some(write);
        self.begin()
    }

    /// The write under way has ended: what is to be begun now.
    pub fn ended(&mut self) -> Option<Write> {
        self.under_way = None;
        self.begin()
    }

    fn begin(&mut self) -> Option<Write> {
        let write = self.next.take_if(|_| self.under_way.is_none())?;
        self.under_way = Some(write.of);
        Some(write)
    }

    /// Whether what that change wants is not written yet.
    pub fn owes(&self, number: u64) -> bool {
        self.under_way == Some(number) || self.next.as_ref().is_some_and(|write| write.of == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_last_is_written_last_and_alone() {
        let folder = tempfile::tempdir().unwrap();
        let overrides = Overrides::load(folder.path()).unwrap();
        let write = |of| Write { of, overrides: overrides.clone() };
        let begun = |write: Option<Write>| write.map(|write| write.of);
        let mut keeping = Keeping::default();
        assert_eq!(begun(keeping.want(write(1))), Some(1));
        // The disk hangs, and the change is given up; another one comes, and is given up as well.
        assert_eq!(begun(keeping.want(write(NOBODY))), None);
        assert_eq!(begun(keeping.want(write(2))), None, "not beside the first");
        assert_eq!([1, 2, 3].map(|number| keeping.owes(number)), [true, true, false]);
        assert_eq!(begun(keeping.want(write(NOBODY))), None);
        assert!(!keeping.owes(2), "it is not written any more");
        // A third one waits when the disk is back: it comes last, and what it took the place of is not written after it.
        assert_eq!(begun(keeping.want(write(3))), None);
        assert_eq!(begun(keeping.ended()), Some(3));
        assert!(keeping.owes(3) && !keeping.owes(1));
        assert_eq!(begun(keeping.ended()), None);
        assert!(!keeping.owes(3));
        assert_eq!(begun(keeping.want(write(4))), Some(4));
    }
}
