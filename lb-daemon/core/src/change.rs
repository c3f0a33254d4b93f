//! What a change goes through, and what becomes of it when a step ends in one way or another.
//!
//! A configuration is read, the next hops of its backends are looked for, the maps follow it, the file is written; from then on
//! it is in force, and there is no way back: VIPs are put in place and taken away, the connections of those that went are cut,
//! and what it has changed of what operators have set is written. What an operator sets is written first, and then in force.

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The text and what it says.
    Read,
    /// The next hops of new backends, and whose the new VIPs are.
    Resolved,
    /// The file. The maps have followed by then.
    Written,
    /// VIPs come and go.
    Placed,
    /// Connections of VIPs that are gone.
    Cut,
    /// What a configuration has changed of what operators have set.
    Kept,
    /// What an operator sets.
    Saved,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Done,
    /// It could not be done.
    Refused,
    /// Whoever did it broke off.
    Broke,
    /// It took longer than it may. `stopped`: it can no longer take effect.
    Late {
        stopped: bool,
    },
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// What was read is judged beside what is in force.
    Judge,
    /// The maps follow the configuration; then it is written.
    BringIn,
    /// Everything goes back to what was in force.
    TakeBack,
    /// It is in force: everything else follows.
    Follow,
    /// The same, and whoever asked is told that the file may hold it or not.
    FollowUnwritten,
    CutVips,
    /// Whatever is left to be kept is waited for, and then it is answered.
    Conclude,
    /// It is answered that it is in force, and may not be kept.
    AnswerUnwritten,
    /// What an operator has set comes into force.
    Set,
    /// Nothing has changed.
    Refuse,
    /// Nothing has changed, and what is in force is to be written after what is not wanted any more.
    RefuseAndKeep,
}

/// What follows when a step of a change has ended.
pub fn then(stage: Stage, ended: Ended) -> Then {
    match (stage, ended) {
        (Stage::Read, Ended::Done) => Then::Judge,
        (Stage::Read, Ended::Refused | Ended::Broke | Ended::Late { .. }) => Then::Refuse,
        // The network goes on without anybody waiting for it.
        (Stage::Resolved, _) => Then::BringIn,
        (Stage::Placed, _) => Then::CutVips,
        (Stage::Written, Ended::Done) => Then::Follow,
        // The new file may take the old one's place at any time.
        (Stage::Written, Ended::Late { stopped: false }) => Then::FollowUnwritten,
        (Stage::Written, Ended::Refused | Ended::Broke | Ended::Late { stopped: true }) => Then::TakeBack,
        (Stage::Cut, _) => Then::Conclude,
        (Stage::Kept, Ended::Done | Ended::Refused | Ended::Broke) => Then::Conclude,
        (Stage::Kept, Ended::Late { .. }) => Then::AnswerUnwritten,
        (Stage::Saved, Ended::Done) => Then::Set,
        (Stage::Saved, Ended::Refused | Ended::Broke) => Then::Refuse,
        (Stage::Saved, Ended::Late { .. }) => Then::RefuseAndKeep,
    }
}

impl Stage {
    /// Whether the network is what is waited for.
    pub fn is_the_networks(self) -> bool {
        match self {
            Self::Resolved | Self::Placed => true,
            Self::Read | Self::Written | Self::Cut | Self::Kept | Self::Saved => false,
        }
    }

    /// Whether a thread may hang in it that nobody else has: there are few of those.
    pub fn has_a_thread(self) -> bool {
        match self {
            Self::Read | Self::Written | Self::Cut => true,
            Self::Resolved | Self::Placed | Self::Kept | Self::Saved => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_way_back_until_the_file_may_hold_it_and_none_afterwards() {
        let late = |stopped| Ended::Late { stopped };
        let ends = [Ended::Done, Ended::Refused, Ended::Broke, late(true), late(false)];
        let table = [
            (Stage::Read, [Then::Judge, Then::Refuse, Then::Refuse, Then::Refuse, Then::Refuse]),
            (Stage::Resolved, [Then::BringIn; 5]),
            (
                Stage::Written,
                [Then::Follow, Then::TakeBack, Then::TakeBack, Then::TakeBack, Then::FollowUnwritten],
            ),
            (Stage::Placed, [Then::CutVips; 5]),
            (Stage::Cut, [Then::Conclude; 5]),
            (
                Stage::Kept,
                [
                    Then::Conclude,
                    Then::Conclude,
                    Then::Conclude,
                    Then::AnswerUnwritten,
                    Then::AnswerUnwritten,
                ],
            ),
            (Stage::Saved, [Then::Set, Then::Refuse, Then::Refuse, Then::RefuseAndKeep, Then::RefuseAndKeep]),
        ];
        for (stage, expected) in table {
            assert_eq!(ends.map(|ended| then(stage, ended)), expected, "{stage:?}");
        }
    }

    #[test]
    fn a_disk_or_the_tables_may_hold_a_thread_and_the_network_none() {
        let stages = [
            Stage::Read,
            Stage::Resolved,
            Stage::Written,
            Stage::Placed,
            Stage::Cut,
            Stage::Kept,
            Stage::Saved,
        ];
        assert_eq!(
            stages.map(|stage| (stage.has_a_thread(), stage.is_the_networks())),
            [
                (true, false),
                (false, true),
                (true, false),
                (false, true),
                (true, false),
                // One writer has those two, whoever waits for it.
                (false, false),
                (false, false),
            ]
        );
    }
}
