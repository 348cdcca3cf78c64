//! The files that a configuration names, as they were at one moment.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::config::{Config, Listed};

/// Longer chains of symbolic links are loops: Linux gives up at as many.
const MOST_LINKS: usize = 40;

/// Two are equal as long as no file changed. What cannot be read is a state like any other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileStates(Vec<(PathBuf, Option<State>)>);

/// A directory of lists is as its files are: what else comes and goes in it means nothing.
const DIRECTORY: State = State { device: 0, number: 0, size: 0, modified: (0, 0), changed: (0, 0) };

/// A file that was replaced has another number; one that was written in place, other times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    device: u64,
    number: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileStates {
    /// Taken before the files are read: what changes meanwhile is a change.
    pub fn of(config: &Config) -> Self {
        let mut states: Vec<_> = config.files().into_iter().map(State::of).collect();
        for source in config.lists() {
            match source.look() {
                Ok(Listed::File) => states.push(State::of(source.path)),
                Ok(Listed::Directory { files, .. }) => {
                    states.push((source.path, Some(DIRECTORY)));
                    states.extend(files.into_iter().map(State::of));
                }
                Err(_) => states.push((source.path, None)),
            }
        }
        Self(states)
    }

    /// Whoever has just written this file need not hear that it changed.
    pub(super) fn renew(&mut self, path: &Path) {
        for state in self.0.iter_mut().filter(|(known, _)| known == path) {
            *state = State::of(path.to_owned());
        }
    }

    /// When the newest of the changes since `before` was made: written in place, or put there under its name, whatever
    /// the file's own date is. `None`: nothing tells, since a file is gone, or other files are looked at.
    pub(super) fn changed_at(&self, before: &Self) -> Option<SystemTime> {
        let changed = self.0.iter().filter(|state| !before.0.contains(state));
        let (seconds, nanoseconds) = changed.filter_map(|(_, state)| Some(state.as_ref()?.changed)).max()?;
        let since_1970 = Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanoseconds).ok()?);
        SystemTime::UNIX_EPOCH.checked_add(since_1970)
    }
}

impl FileStates {
    /// The files that are not what they were.
    pub(super) fn changed_since(&self, before: &Self) -> BTreeSet<PathBuf> {
        let (now, then): (BTreeSet<_>, BTreeSet<_>) = (self.0.iter().collect(), before.0.iter().collect());
        now.symmetric_difference(&then).map(|(path, _)| path.clone()).collect()
    }
}

impl State {
    fn of(path: PathBuf) -> (PathBuf, Option<Self>) {
        let state = std::fs::metadata(&path).ok().map(|found| Self {
            device: found.dev(),
            number: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        });
        (path, state)
    }
}

/// All files that a change of may matter: those that are named, those in directories of lists, and in each of these one
/// that is not there, so that new ones are noticed.
pub(super) fn watched(config: &Config) -> Vec<PathBuf> {
    let mut files = config.files();
    for source in config.lists() {
        if let Ok(Listed::Directory { files: within, .. }) = source.look() {
            files.push(source.path.join(NEW));
            files.extend(within);
        }
        files.push(source.path);
    }
    files
}

/// The directories of all that `config` names, and of itself.
pub fn directories_of(config: &Config) -> BTreeSet<PathBuf> {
    let mut files = watched(config);
    files.push(config.file.clone());
    directories(&files)
}

/// No file is called so.
const NEW: &str = "\u{fffd}";

/// The directories in which something must happen for one of `files` to become another one: its own, and that of each
/// symbolic link on the way. Kubernetes swaps such a link to replace all files of a volume at once.
pub(super) fn directories(files: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut directories = BTreeSet::new();
    for file in files {
        follow(file, &mut directories);
    }
    directories
}

fn follow(file: &Path, directories: &mut BTreeSet<PathBuf>) {
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let mut rest: Vec<PathBuf> = parts(&absolute);
    let (mut reached, mut links) = (PathBuf::new(), 0);
    while let Some(part) = rest.pop() {
        if part == Path::new("..") {
            reached.pop();
            continue;
        }
        let next = reached.join(&part);
        match std::fs::read_link(&next) {
            Ok(target) if links < MOST_LINKS => {
                links += 1;
                directories.insert(reached.clone());
                if target.is_absolute() {
                    reached = PathBuf::new();
                }
                rest.extend(parts(&target));
            }
            _ if rest.is_empty() => drop(directories.insert(reached.clone())),
            _ => reached = next,
        }
    }
}

/// The last one first.
fn parts(path: &Path) -> Vec<PathBuf> {
    let parts = path.components().filter(|part| !matches!(part, Component::CurDir));
    let mut parts: Vec<PathBuf> = parts.map(|part| part.as_os_str().into()).collect();
    parts.reverse();
    parts
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_directory_of_each_link_on_the_way_is_watched() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        for directory in ["volume/..1", "store/real", "etc"] {
            std::fs::create_dir_all(root.join(directory)).unwrap();
        }
        std::fs::write(root.join("volume/..1/ca.crt"), "").unwrap();
        symlink("..1", root.join("volume/..data")).unwrap();
        symlink("..data/ca.crt", root.join("volume/ca.crt")).unwrap();
        symlink(root.join("store"), root.join("etc/certs")).unwrap();
        symlink("../store/loop", root.join("store/loop")).unwrap();
        let watched = |file: &str| directories(&[root.join(file)]);
        let of = |names: &[&str]| names.iter().map(|name| root.join(name)).collect::<BTreeSet<_>>();
        assert_eq!(watched("volume/ca.crt"), of(&["volume", "volume/..1"]));
        assert_eq!(watched("etc/certs/real/missing.crt"), of(&["etc", "store/real"]));
        assert_eq!(watched("store/loop"), of(&["store"]));
    }
}
