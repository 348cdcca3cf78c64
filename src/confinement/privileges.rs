//! Capabilities, new privileges, core dumps.

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Resource, Rlimit, geteuid, set_dumpable_behavior, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// What became of each.
pub(super) struct Privileges {
    pub(super) is_root: bool,
    pub(super) no_new: Result<(), String>,
    pub(super) no_dumps: Result<(), String>,
    /// `None`: the kernel does not say.
    kept: Option<CapabilitySet>,
}

impl Privileges {
    /// Ports below 1024 are bound already.
    pub(super) fn give_up() -> Self {
        let is_root = geteuid().is_root();
        let told = |result: Result<(), Errno>| result.map_err(|error| error.to_string());
        let no_new = told(set_no_new_privs(true));
        // Root without it could not read at a reload what it could read at start, such as the key of another user.
        let needed = if is_root { CapabilitySet::DAC_OVERRIDE } else { CapabilitySet::empty() };
        drop_all_but(needed);
        Self {
            is_root,
            no_new,
            no_dumps: told(refuse_dumps()),
            kept: capabilities(None).ok().map(|sets| sets.permitted),
        }
    }

    /// The capabilities that are left. The kernel is asked, since a filter of the service manager may have kept us from
    /// giving them up.
    pub(super) fn kept(&self) -> Vec<String> {
        let Some(kept) = self.kept else { return vec!["unknown".to_owned()] };
        kept.iter_names().map(|(name, _)| name.to_ascii_lowercase()).collect()
    }
}

/// What fails is seen in what is left.
fn drop_all_but(needed: CapabilitySet) {
    let _ = clear_ambient_capability_set();
    let Ok(had) = capabilities(None) else { return };
    for bit in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        // It takes a capability itself to give up those that a program could get; with no new privileges nobody can.
        let _ = remove_capability_from_bounding_set(one);
    }
    let kept = had.permitted & needed;
    let _ = set_capabilities(
        None,
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() },
    );
}

/// Neither a core on disk nor a debugger of the same user: both would see private keys.
fn refuse_dumps() -> Result<(), Errno> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

#[cfg(test)]
impl Privileges {
    pub(super) fn of_a_test() -> Self {
        Self { is_root: false, no_new: Ok(()), no_dumps: Ok(()), kept: Some(CapabilitySet::empty()) }
    }
}
