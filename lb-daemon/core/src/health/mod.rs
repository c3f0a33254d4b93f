//! Health of backends: the rise/fall machine and the schedule of checks.
