//! What a command may not ask the kernel for: namespaces. In a user namespace of its own making it would have every capability, and
//! with them all of the kernel that is otherwise closed to it.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// Flags of clone(2) and unshare(2).
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];
/// The same system calls by x86-64's other numbers, where a kernel has them (x32).
const X32: i64 = 0x4000_0000;

/// The filters of a command, made once: it is called before the fork, since making them takes memory. The error says what is wrong
/// with them.
pub(super) fn filters() -> Result<&'static [BpfProgram; 2], String> {
    static FILTERS: OnceLock<Result<[BpfProgram; 2], String>> = OnceLock::new();
    FILTERS.get_or_init(|| make().map_err(|error| error.to_string())).as_ref().map_err(Clone::clone)
}

fn make() -> Result<[BpfProgram; 2], seccompiler::BackendError> {
    let refused = |flag: &libc::c_int| {
        let flag = u64::from(flag.unsigned_abs());
        let has = SeccompCmpOp::MaskedEq(flag);
        SeccompRule::new(vec![SeccompCondition::new(0, SeccompCmpArgLen::Qword, has, flag)?])
    };
    let with_namespaces: Vec<SeccompRule> = NAMESPACES.iter().map(refused).collect::<Result<_, _>>()?;
    let mut forbidden = BTreeMap::new();
    let mut unknown = BTreeMap::new();
    for numbers in [0, X32] {
        forbidden.insert(libc::SYS_clone + numbers, with_namespaces.clone());
        forbidden.insert(libc::SYS_unshare + numbers, Vec::new());
        forbidden.insert(libc::SYS_setns + numbers, Vec::new());
        // Its flags are in memory, where a filter does not look. The C library takes clone(2) where this one is not known.
        unknown.insert(libc::SYS_clone3 + numbers, Vec::new());
    }
    Ok([filter(forbidden, libc::EPERM)?, filter(unknown, libc::ENOSYS)?])
}

fn filter(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    error: libc::c_int,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let refuse = SeccompAction::Errno(error.unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, TargetArch::x86_64)?.try_into()
}
