//! Which files may be opened, in what way, by the rules of Landlock (`landlock(7)`).

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, Compatible, LandlockStatus, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, make_bitflags,
};

use super::places::Places;

/// The newest that these rules were written for and tried with. An older kernel enforces what it knows.
const TESTED: ABI = ABI::V7;

/// The rules in force.
pub(super) struct FileRules {
    /// The version of Landlock, as far as it is used.
    pub(super) abi: u32,
    /// Beneath these files may be read. A rule holds for a file, not for a name: where another directory has taken the
    /// place of one, the rule went with the old one.
    readable: BTreeSet<(u64, u64)>,
}

impl FileRules {
    /// Whether the rules let this process read it, whatever else stands in the way. What is not there is not outside.
    pub(super) fn covers(&self, path: &Path) -> bool {
        let Ok(path) = path.canonicalize() else { return true };
        path.ancestors().filter_map(identity).any(|known| self.readable.contains(&known))
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// Confines this thread and those that it starts.
pub(super) fn confine(places: &Places) -> Result<FileRules, String> {
    let (status, readable) = enforce(places).map_err(|error| error.to_string())?;
    match status {
        LandlockStatus::Available { effective_abi, .. } => {
            Ok(FileRules { abi: effective_abi.min(TESTED) as u32, readable })
        }
        LandlockStatus::NotEnabled => Err("the kernel has it, but it is not among `lsm=`".to_owned()),
        LandlockStatus::NotImplemented => {
            Err("the kernel does not offer it, or a filter of system calls is in the way".to_owned())
        }
    }
}

fn enforce(places: &Places) -> Result<(LandlockStatus, BTreeSet<(u64, u64)>), RulesetError> {
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(TESTED))?
        // Every port is bound by now, and a port that is connected to is no business of a file system.
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::Signal)?;
    if !places.needs_abstract_sockets {
        rules = rules.scope(Scope::AbstractUnixSocket)?;
    }
    let mut rules = rules.create()?;
    let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    let socket = make_bitflags!(AccessFs::{MakeSock | RemoveFile});
    let keep = AccessFs::from_all(TESTED)
        & !make_bitflags!(AccessFs::{Execute | MakeChar | MakeBlock | MakeFifo | MakeSock | MakeSym | IoctlDev});
    let mut readable = BTreeSet::new();
    for (paths, access) in [(&places.read, read), (&places.keep, keep), (&places.sockets, socket)] {
        for path in paths {
            rules = allow(rules, path, access)?;
            if access.contains(AccessFs::ReadFile) {
                readable.extend(identity(path));
            }
        }
    }
    let status = rules.restrict_self()?;
    debug_assert!(
        status.ruleset != RulesetStatus::NotEnforced
            || !matches!(status.landlock, LandlockStatus::Available { .. })
    );
    Ok((status.landlock, readable))
}

/// What is not there now will not be there later, as far as this process can see.
fn allow(
    rules: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    let Ok(place) = PathFd::new(path) else { return Ok(rules) };
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(TESTED) };
    rules.set_compatibility(landlock::CompatLevel::BestEffort).add_rule(PathBeneath::new(place, access))
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream, ToSocketAddrs};
    use std::os::unix::net::UnixListener;

    use super::*;

    /// The rules hold for a thread and those that it starts, so that a test can live with them.
    fn confined<T: Send>(places: &Places, act: impl FnOnce(&FileRules) -> T + Send) -> Option<T> {
        let confined = || match confine(places) {
            Ok(rules) => Some(act(&rules)),
            Err(why) => {
                eprintln!("nothing is tested: {why}");
                None
            }
        };
        std::thread::scope(|scope| scope.spawn(confined).join().unwrap())
    }

    #[test]
    fn files_are_read_and_written_where_the_rules_say_and_nowhere_else() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for directory in ["named", "kept", "sockets", "other"] {
            std::fs::create_dir(at(directory)).unwrap();
            std::fs::write(at(directory).join("file"), "text").unwrap();
        }
        std::os::unix::fs::symlink(at("other/file"), at("named/link")).unwrap();
        let places = Places {
            read: [at("named"), at("missing")].into(),
            keep: [at("kept")].into(),
            sockets: [at("sockets")].into(),
            needs_abstract_sockets: false,
        };
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let denied = |result: std::io::Result<()>| {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::PermissionDenied);
        };
        confined(&places, |rules| {
            assert_eq!(std::fs::read(at("named/file")).unwrap(), b"text");
            assert_eq!(std::fs::read_dir(at("named")).unwrap().count(), 2);
            denied(std::fs::write(at("named/file"), "other"));
            denied(std::fs::write(at("named/new"), "other"));
            denied(std::fs::remove_file(at("named/file")));
            std::fs::write(at("kept/new"), "other").unwrap();
            std::fs::rename(at("kept/new"), at("kept/file")).unwrap();
            std::fs::create_dir(at("kept/more")).unwrap();
            drop(UnixListener::bind(at("sockets/socket")).unwrap());
            std::fs::remove_file(at("sockets/socket")).unwrap();
            denied(std::fs::read(at("sockets/file")).map(drop));
            denied(UnixListener::bind(at("kept/socket")).map(drop));
            for outside in ["other/file", "named/link", "sockets/file"] {
                denied(std::fs::read(at(outside)).map(drop));
                assert!(!rules.covers(&at(outside)), "{outside}");
            }
            assert!(rules.covers(&at("named/file")) && rules.covers(&at("kept/file")));
            assert!(rules.covers(&at("other/missing")), "what is not there has another reason");
            TcpStream::connect(port.local_addr().unwrap()).unwrap();
            if rules.abi >= 4 {
                denied(TcpListener::bind("127.0.0.1:0").map(drop));
            }
        });
        std::fs::rename(at("named"), at("gone")).unwrap();
        std::fs::create_dir(at("named")).unwrap();
        std::fs::write(at("named/file"), "text").unwrap();
    }

    #[test]
    fn a_directory_that_took_the_place_of_another_is_outside() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        std::fs::create_dir(at("named")).unwrap();
        let rules = FileRules { abi: 1, readable: identity(&at("named")).into_iter().collect() };
        std::fs::write(at("named/file"), "").unwrap();
        assert!(rules.covers(&at("named/file")));
        std::fs::rename(at("named"), at("before")).unwrap();
        std::fs::create_dir(at("named")).unwrap();
        std::fs::write(at("named/file"), "").unwrap();
        assert!(!rules.covers(&at("named/file")) && rules.covers(&at("before/file")));
    }

    #[test]
    fn names_are_resolved_as_before() {
        let places = Places::of_the_system();
        let resolved = confined(&places, |_| ("localhost", 80).to_socket_addrs().map(Iterator::count));
        assert!(resolved.is_none_or(|found| found.unwrap() > 0));
    }
}
