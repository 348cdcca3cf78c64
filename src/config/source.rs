//! A list that the configuration names: a file, or a directory all of whose files count.

use std::io;
use std::path::{Path, PathBuf};

/// Where lists of one kind are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPlace {
    pub path: PathBuf,
    /// What the names of files must end in to count, where `path` is a directory.
    pub endings: &'static [&'static str],
}

/// What is there at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    /// Also what is not there at all: whoever reads it will know.
    File,
    /// In the order of their names.
    Directory { files: Vec<PathBuf>, passed_over: Vec<PathBuf> },
}

impl ListPlace {
    /// Looks at the directory, if it is one. Hidden files do not count: Kubernetes keeps the volume behind them.
    pub fn look(&self) -> io::Result<Listed> {
        if !std::fs::metadata(&self.path).is_ok_and(|found| found.is_dir()) {
            return Ok(Listed::File);
        }
        let (mut files, mut passed_over) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(&self.path)? {
            let path = entry?.path();
            if is_hidden(&path) {
                continue;
            }
            // A link that leads nowhere is a file that cannot be read, not one that is not there.
            let is_directory = std::fs::metadata(&path).is_ok_and(|found| found.is_dir());
            if !is_directory && self.counts(&path) { files.push(path) } else { passed_over.push(path) }
        }
        files.sort_unstable();
        passed_over.sort_unstable();
        Ok(Listed::Directory { files, passed_over })
    }

    fn counts(&self, path: &Path) -> bool {
        path.extension().is_some_and(|ending| self.endings.iter().any(|known| ending == *known))
    }
}

/// By a dot in front, or as what an editor leaves behind.
fn is_hidden(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    name.starts_with(b".") || name.ends_with(b"~")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn of_a_directory_the_files_of_the_right_endings_count() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for name in ["b.csv", "a.yaml", ".hidden.yaml", "c.yaml~", "notes.txt", "yaml"] {
            std::fs::write(at(name), "").unwrap();
        }
        std::fs::create_dir(at("d.yaml")).unwrap();
        symlink("nowhere", at("e.yaml")).unwrap();
        let look = |path| ListPlace { path, endings: &["yaml", "csv"] }.look().unwrap();
        let found = Listed::Directory {
            files: vec![at("a.yaml"), at("b.csv"), at("e.yaml")],
            passed_over: vec![at("d.yaml"), at("notes.txt"), at("yaml")],
        };
        assert_eq!(look(root.path().to_owned()), found);
        assert_eq!(look(at("a.yaml")), Listed::File);
        assert_eq!(look(at("missing")), Listed::File);
    }
}
