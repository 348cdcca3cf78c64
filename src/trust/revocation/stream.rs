//! DER that is read while it comes: of a list of any length, no more is in memory than what is looked at.

use std::io::{self, ErrorKind, Read};

use super::signature::Signed;
use crate::certificate::der::{Element, NotDer, Reader};

/// No element that is looked at as a whole is longer: an entry, a name, the extensions.
const WINDOW: usize = 64 * 1024;

/// Why reading came to an end.
#[derive(Debug)]
pub(super) enum Fault {
    NotDer,
    Unreadable(io::Error),
}

impl From<NotDer> for Fault {
    fn from(_: NotDer) -> Self {
        Self::NotDer
    }
}

/// The first byte behind an element that was entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End(u64);

pub(super) struct Stream<R> {
    source: R,
    window: Box<[u8]>,
    /// What is in the window: read from `next` on, and not yet shown to the signature from `unsigned` on.
    filled: usize,
    next: usize,
    unsigned: usize,
    /// Of the window's first byte.
    position: u64,
    /// Follows what is read, between [`begin_signed`](Self::begin_signed) and [`end_signed`](Self::end_signed).
    signed: Option<Signed>,
}

impl<R: Read> Stream<R> {
    pub(super) fn new(source: R) -> Self {
        let window = vec![0; WINDOW].into_boxed_slice();
        Self { source, window, filled: 0, next: 0, unsigned: 0, position: 0, signed: None }
    }

    /// Everything from here on is signed.
    pub(super) fn begin_signed(&mut self) {
        self.unsigned = self.next;
        self.signed = Some(Signed::default());
    }

    /// What is signed by whom is known now.
    pub(super) fn signed(&mut self) -> &mut Signed {
        self.show_signed();
        self.signed.get_or_insert_default()
    }

    /// What was signed ends here.
    pub(super) fn end_signed(&mut self) -> Signed {
        self.show_signed();
        self.signed.take().unwrap_or_default()
    }

    /// Steps into an element.
    pub(super) fn enter(&mut self, tag: u8) -> Result<End, Fault> {
        loop {
            let mut reader = Reader::new(self.unread());
            match reader.header() {
                Ok((found, length)) if found == tag => {
                    self.next = self.filled - reader.rest().len();
                    return Ok(End(self.here() + length as u64));
                }
                Ok(_) => return Err(Fault::NotDer),
                Err(NotDer) => self.fill()?,
            }
        }
    }

    /// The next element as a whole, whatever it is.
    pub(super) fn any(&mut self) -> Result<Element<'_>, Fault> {
        let end = loop {
            let mut reader = Reader::new(self.unread());
            match reader.any() {
                Ok(_) => break self.filled - reader.rest().len(),
                Err(NotDer) => self.fill()?,
            }
        };
        let start = std::mem::replace(&mut self.next, end);
        Ok(Reader::new(&self.window[start..end]).any()?)
    }

    pub(super) fn expect(&mut self, tag: u8) -> Result<Element<'_>, Fault> {
        let element = self.any()?;
        if element.tag == tag { Ok(element) } else { Err(Fault::NotDer) }
    }

    /// The tag of what comes next before `end`.
    pub(super) fn next_tag(&mut self, end: End) -> Result<Option<u8>, Fault> {
        if self.here() >= end.0 {
            return Ok(None);
        }
        if self.next == self.filled {
            self.fill()?;
        }
        Ok(self.unread().first().copied())
    }

    /// How far it is to `end`.
    pub(super) fn remaining(&self, end: End) -> usize {
        end.0.saturating_sub(self.here()) as usize
    }

    /// Whether this is `end`, and not a byte behind it.
    pub(super) fn is_at(&self, end: End) -> bool {
        self.here() == end.0
    }

    /// Nothing follows.
    pub(super) fn finish(mut self) -> Result<(), Fault> {
        if self.next < self.filled {
            return Err(Fault::NotDer);
        }
        match self.fill() {
            Err(Fault::NotDer) => Ok(()),
            Err(fault) => Err(fault),
            Ok(()) => Err(Fault::NotDer),
        }
    }

    fn here(&self) -> u64 {
        self.position + self.next as u64
    }

    fn unread(&self) -> &[u8] {
        &self.window[self.next..self.filled]
    }

    /// Reads more. That there is no more, or no room for it, is a fault: somebody needed it.
    fn fill(&mut self) -> Result<(), Fault> {
        self.show_signed();
        self.window.copy_within(self.next..self.filled, 0);
        self.position += self.next as u64;
        self.filled -= self.next;
        (self.next, self.unsigned) = (0, 0);
        loop {
            match self.source.read(&mut self.window[self.filled..]) {
                // The end of the file, or of the window.
                Ok(0) => return Err(Fault::NotDer),
                Ok(read) => {
                    self.filled += read;
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Fault::Unreadable(error)),
            }
        }
    }

    fn show_signed(&mut self) {
        if let Some(signed) = &mut self.signed {
            signed.update(&self.window[self.unsigned..self.next]);
            self.unsigned = self.next;
        }
    }
}
