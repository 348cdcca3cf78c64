//! What is written is read, and nothing else is.

use super::*;
use crate::census::tally::Window;

fn entry(number: u32) -> Entry {
    let mut fingerprint = [0; PREFIX];
    fingerprint[..4].copy_from_slice(&number.to_be_bytes());
    Entry {
        fingerprint,
        name: number.into(),
        not_after: Moment(1000 + number),
        first_seen: Moment(number),
        last_seen: Moment(number + 1),
        anchor: (number % 2) as u16,
        standing: if number.is_multiple_of(3) { Use::Superseded } else { Use::InUse },
    }
}

fn voucher(subject: &str) -> Voucher {
    let anchor = Anchor {
        subject: subject.to_owned(),
        fingerprint: Fingerprint([subject.len() as u8; 32]),
        not_after: 99,
    };
    Voucher { trust_domain: "fleet".into(), anchor: Arc::new(anchor) }
}

fn written(entries: u32, anchors: &[Voucher]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::begin(&mut bytes).unwrap();
    writer.subjects(&[(Moment(1001), Fingerprint([1; 32]), "CN=one".into())]).unwrap();
    writer.count(entries as usize).unwrap();
    writer.entries(&(0..entries).map(entry).collect::<Vec<_>>()).unwrap();
    writer.vouchers(anchors).unwrap();
    writer.end().unwrap();
    bytes
}

#[test]
fn what_is_written_is_read() {
    let anchors = [voucher("CN=a"), voucher("CN=bc")];
    let ledger = read(&*written(100, &anchors), 1000, 1000).unwrap();
    assert_eq!((ledger.len(), ledger.vouchers()), (100, &anchors[..]));
    assert_eq!(ledger.block(0).unwrap()[5], entry(5));
    assert_eq!(ledger.soonest().iter().next().unwrap().2.as_ref(), "CN=one");
    let tally = ledger.tally(Window { since: 0, now: 1050 });
    assert_eq!(tally.by_anchor().iter().map(|counts| counts.superseded).sum::<u64>(), 34);
    let few = read(&*written(100, &anchors), 10, 10).unwrap();
    assert!(few.len() <= 10 && few.block(0).unwrap().iter().any(|kept| *kept == entry(99)));
}

#[test]
fn a_file_that_was_cut_or_changed_anywhere_is_broken() {
    let bytes = written(3, &[voucher("CN=a"), voucher("CN=bc")]);
    for length in 0..bytes.len() {
        let error = read(&bytes[..length], 9, 9).err().unwrap();
        assert!(is_about_contents(&error), "{length}: {error}");
    }
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let error = read(&*changed, 9, 9).err().unwrap_or_else(|| panic!("{at}"));
        assert!(is_about_contents(&error), "{at}: {error}");
    }
    let longer = [bytes, vec![0]].concat();
    assert!(is_about_contents(&read(&*longer, 9, 9).err().unwrap()));
    for anchors in [&[voucher("CN=a")][..], &[voucher("CN=a"), voucher("CN=a")]] {
        assert!(is_about_contents(&read(&*written(3, anchors), 9, 9).err().unwrap()));
    }
}

#[test]
fn a_broken_file_is_put_aside_and_one_that_is_known_is_not_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let anchors = [voucher("CN=a"), voucher("CN=bc")];
    let mut file = CensusFile::new(directory.path()).unwrap();
    assert!(matches!(file.read_new(9), Ok(Found::Nothing)));
    file.replace(|out| out.write_all(&written(3, &anchors))).unwrap();
    assert!(matches!(file.read_new(9), Ok(Found::Nothing)), "its own");
    let mut other = CensusFile::new(directory.path()).unwrap();
    assert!(matches!(other.read_new(9), Ok(Found::Census(ledger)) if ledger.len() == 3));
    assert!(matches!(other.read_new(9), Ok(Found::Nothing)), "read already");
    other.replace(|out| out.write_all(&written(2, &anchors))).unwrap();
    assert!(matches!(file.read_new(9), Ok(Found::Census(ledger)) if ledger.len() == 2));
    std::fs::write(file.path(), "portcullis census, v. 9\n").unwrap();
    let Ok(Found::Broken { put, .. }) = file.read_new(9) else { panic!("it is broken") };
    assert_eq!(std::fs::read(put).unwrap(), b"portcullis census, v. 9\n");
    assert!(!file.path().exists());
}

#[test]
fn what_cannot_be_written_leaves_the_file_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let mut file = CensusFile::new(directory.path()).unwrap();
    file.replace(|out| out.write_all(b"before")).unwrap();
    let failed = file.replace(|out| {
        out.write_all(b"half")?;
        Err(io::Error::other("no room"))
    });
    assert_eq!(failed.unwrap_err().to_string(), "no room");
    assert_eq!(std::fs::read(file.path()).unwrap(), b"before");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left behind");
}
