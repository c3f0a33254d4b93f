//! The subcommands of `drover`, one file each.

pub mod check;
