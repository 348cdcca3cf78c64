//! The census on disk: what was seen outlives the process.
//!
//! `magic ‖ names of those that expire next ‖ entries ‖ anchors ‖ SHA-256 of all before`, numbers little-endian, each
//! list behind its length. A file that is not exactly that is broken: nothing of it is believed.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openssl::sha::Sha256;

use super::entry::{Entry, Moment, PREFIX, Use};
use super::ledger::{Ledger, Voucher};
use crate::certificate::Fingerprint;
use crate::trust::Anchor;

const MAGIC: &[u8; 24] = b"portcullis census, v. 1\n";
const ENTRY: usize = PREFIX + 8 + 4 + 4 + 4 + 2 + 1;
/// Of a text in it: a subject may be long, but never so long.
const LONGEST: usize = u16::MAX as usize;

/// Where the census is kept.
pub(super) struct CensusFile {
    path: PathBuf,
    /// The file that was read or written last: one that is not it was written by somebody else.
    known: Option<Version>,
}

/// Which file lies at the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    device: u64,
    inode: u64,
    modified: (i64, i64),
}

/// What to do about a file that was looked for.
pub(super) enum Found {
    Nothing,
    Census(Ledger),
    /// What is wrong with it, and where it was put.
    Broken {
        reason: io::Error,
        put: PathBuf,
    },
}

impl CensusFile {
    /// The directory is made if it is not there yet; whether something can be put there is found out now, not when the
    /// first census is lost.
    pub(super) fn new(directory: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let file = Self { path: directory.join("census"), known: None };
        create(&file.new_path())?;
        std::fs::remove_file(file.new_path())?;
        Ok(file)
    }

    /// Of this process: another one that is being replaced, or replaces it, may write at the same time.
    fn new_path(&self) -> PathBuf {
        self.path.with_extension(format!("new-{}", std::process::id()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads what lies there, unless it is known already. What is broken is set aside, for somebody to look at.
    pub(super) fn read_new(&mut self, most: usize) -> io::Result<Found> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(error),
        };
        let version = Version::of(&file)?;
        if self.known == Some(version) {
            return Ok(Found::Nothing);
        }
        // No more than the file has room for, whatever it says.
        let room = most.min(file.metadata()?.len() as usize / ENTRY);
        match read(BufReader::with_capacity(1 << 16, file), most, room) {
            Ok(ledger) => {
                self.known = Some(version);
                Ok(Found::Census(ledger))
            }
            Err(reason) if is_about_contents(&reason) => {
                let is_short = reason.kind() == io::ErrorKind::UnexpectedEof;
                let reason = if is_short { broken("it ends too early") } else { reason };
                let put = self.path.with_extension("broken");
                std::fs::rename(&self.path, &put)?;
                Ok(Found::Broken { reason, put })
            }
            Err(reason) => Err(reason),
        }
    }

    /// Replaces the file whole, or leaves it as it is. `write` gets it before it is in place.
    pub(super) fn replace(&mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        let new = self.new_path();
        let written = create(&new).and_then(|file| {
            let mut out = BufWriter::with_capacity(1 << 16, file);
            write(&mut out)?;
            let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.sync_all()?;
            let version = Version::of(&file)?;
            std::fs::rename(&new, &self.path)?;
            Ok(version)
        });
        match written {
            Ok(version) => {
                self.known = Some(version);
                // The rename itself is on the disk once the directory is.
                self.path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
            }
            Err(error) => {
                // It may not have come to be at all.
                let _ = std::fs::remove_file(&new);
                Err(error)
            }
        }
    }
}

impl Version {
    fn of(file: &File) -> io::Result<Self> {
        let found = file.metadata()?;
        Ok(Self { device: found.dev(), inode: found.ino(), modified: (found.mtime(), found.mtime_nsec()) })
    }
}

/// Names of clients are in it: for the owner only.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn is_about_contents(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Writes the parts of a census one after the other.
pub(super) struct Writer<'a> {
    out: &'a mut dyn Write,
    digest: Sha256,
}

impl<'a> Writer<'a> {
    pub(super) fn begin(out: &'a mut dyn Write) -> io::Result<Self> {
        let mut writer = Self { out, digest: Sha256::new() };
        writer.bytes(MAGIC)?;
        Ok(writer)
    }

    pub(super) fn vouchers(&mut self, vouchers: &[Voucher]) -> io::Result<()> {
        self.bytes(&(vouchers.len() as u32).to_le_bytes())?;
        for voucher in vouchers {
            self.text(&voucher.trust_domain)?;
            self.text(&voucher.anchor.subject)?;
            self.bytes(&voucher.anchor.fingerprint.0)?;
            self.bytes(&voucher.anchor.not_after.to_le_bytes())?;
        }
        Ok(())
    }

    pub(super) fn subjects(&mut self, subjects: &[(Moment, Fingerprint, Arc<str>)]) -> io::Result<()> {
        self.bytes(&(subjects.len() as u32).to_le_bytes())?;
        for (not_after, fingerprint, subject) in subjects {
            self.bytes(&not_after.0.to_le_bytes())?;
            self.bytes(&fingerprint.0)?;
            self.text(subject)?;
        }
        Ok(())
    }

    /// So many entries follow.
    pub(super) fn count(&mut self, entries: usize) -> io::Result<()> {
        self.bytes(&(entries as u32).to_le_bytes())
    }

    pub(super) fn entries(&mut self, entries: &[Entry]) -> io::Result<()> {
        for entry in entries {
            let mut bytes = [0; ENTRY];
            let mut rest = &mut bytes[..];
            rest.write_all(&entry.fingerprint)?;
            rest.write_all(&entry.name.to_le_bytes())?;
            for moment in [entry.not_after, entry.first_seen, entry.last_seen] {
                rest.write_all(&moment.0.to_le_bytes())?;
            }
            rest.write_all(&entry.anchor.to_le_bytes())?;
            rest.write_all(&[u8::from(entry.standing == Use::Superseded)])?;
            self.bytes(&bytes)?;
        }
        Ok(())
    }

    pub(super) fn end(self) -> io::Result<()> {
        self.out.write_all(&self.digest.finish())
    }

    fn text(&mut self, text: &str) -> io::Result<()> {
        let mut end = text.len().min(LONGEST);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.bytes(&(end as u16).to_le_bytes())?;
        self.bytes(&text.as_bytes()[..end])
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.out.write_all(bytes)
    }
}

/// `most`: so many are kept, whatever the file has. `room`: so many can be in it.
fn read(input: impl Read, most: usize, room: usize) -> io::Result<Ledger> {
    let mut reader = Reader { input, digest: Sha256::new() };
    if reader.array::<{ MAGIC.len() }>()? != *MAGIC {
        return Err(broken("it does not begin like a census of this version"));
    }
    let mut ledger = Ledger::default();
    for _ in 0..reader.number()? {
        let not_after = Moment(reader.number()?);
        let fingerprint = Fingerprint(reader.array()?);
        ledger.restore_subject(not_after, &fingerprint, &reader.text()?);
    }
    let (mut anchors, count) = (0, reader.number()?);
    ledger.reserve(room.min(count as usize));
    for _ in 0..count {
        let entry = Entry {
            fingerprint: reader.array()?,
            name: u64::from_le_bytes(reader.array()?),
            not_after: Moment(reader.number()?),
            first_seen: Moment(reader.number()?),
            last_seen: Moment(reader.number()?),
            anchor: u16::from_le_bytes(reader.array()?),
            standing: if reader.array()? == [0] { Use::InUse } else { Use::Superseded },
        };
        anchors = anchors.max(usize::from(entry.anchor) + 1);
        ledger.add(entry, most);
    }
    for number in 0..reader.number()? {
        let trust_domain: Arc<str> = reader.text()?.into();
        let anchor = Arc::new(Anchor {
            subject: reader.text()?,
            fingerprint: Fingerprint(reader.array()?),
            not_after: i64::from_le_bytes(reader.array()?),
        });
        if ledger.voucher(&trust_domain, &anchor).map(u32::from) != Some(number) {
            return Err(broken("it names an anchor twice, or too many"));
        }
    }
    if anchors > ledger.vouchers().len() {
        return Err(broken("it names an anchor that it does not have"));
    }
    reader.end()?;
    Ok(ledger)
}

struct Reader<R> {
    input: R,
    digest: Sha256,
}

impl<R: Read> Reader<R> {
    fn array<const LEN: usize>(&mut self) -> io::Result<[u8; LEN]> {
        let mut bytes = [0; LEN];
        self.input.read_exact(&mut bytes)?;
        self.digest.update(&bytes);
        Ok(bytes)
    }

    fn number(&mut self) -> io::Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn text(&mut self) -> io::Result<String> {
        let mut bytes = vec![0; u16::from_le_bytes(self.array()?).into()];
        self.input.read_exact(&mut bytes)?;
        self.digest.update(&bytes);
        String::from_utf8(bytes).map_err(|_| broken("a name in it is no text"))
    }

    fn end(mut self) -> io::Result<()> {
        let mut found = [0; 32];
        self.input.read_exact(&mut found)?;
        if found != self.digest.finish() {
            return Err(broken("its digest is not that of its contents"));
        }
        match self.input.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(broken("something follows its end")),
        }
    }
}

#[cfg(test)]
mod tests;
