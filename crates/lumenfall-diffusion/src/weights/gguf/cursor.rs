//! A buffered reader of the header, which checks each length before it allocates or reads.

use super::super::files::RandomAccess;
use crate::error::{Error, Result};

/// The number of bytes that are read at a time.
const BUFFER_BYTES: u64 = 256 << 10;

/// A file whose header is longer is rejected. The vocabularies of language models have less than half of it.
const MAX_HEADER_BYTES: u64 = 64 << 20;

/// A file with longer names and keys is rejected.
const MAX_TEXT_BYTES: u64 = 1024;

/// A position in the header of a file.
pub(super) struct Cursor<'a> {
    file: &'a RandomAccess,
    /// The position of the buffer in the file.
    start: u64,
    buffer: Vec<u8>,
    /// The number of bytes of the buffer that were used.
    used: usize,
    end: u64,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(file: &'a RandomAccess) -> Self {
        Self { file, start: 0, buffer: Vec::new(), used: 0, end: file.length.min(MAX_HEADER_BYTES) }
    }

    pub(super) fn position(&self) -> u64 {
        self.start + self.used as u64
    }

    /// Returns the next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.bytes(N as u64)?.first_chunk().copied();
        bytes.ok_or_else(|| self.too_long(N as u64))
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Returns a name or a key: its length, and UTF-8.
    pub(super) fn text(&mut self) -> Result<String> {
        let at = self.position();
        let length = self.u64()?;
        if length > MAX_TEXT_BYTES {
            return Err(self.corrupt(format!(
                "has a text of {length} bytes at position {at}, where at most {MAX_TEXT_BYTES} are allowed"
            )));
        }
        let text = String::from_utf8(self.bytes(length)?.to_vec());
        text.map_err(|_| self.corrupt(format!("has a text at position {at} that is not UTF-8")))
    }

    pub(super) fn skip(&mut self, count: u64) -> Result<()> {
        let Some(position) = self.position().checked_add(count).filter(|position| *position <= self.end) else {
            return Err(self.too_long(count));
        };
        if position <= self.start + self.buffer.len() as u64 {
            self.used += count as usize;
        } else {
            self.start = position;
            self.buffer.clear();
            self.used = 0;
        }
        Ok(())
    }

    /// Returns an error that says that the file is corrupt because of `reason`.
    pub(super) fn corrupt(&self, reason: impl std::fmt::Display) -> Error {
        self.malformed(format!("{reason}, so the file is corrupt; download it again"))
    }

    pub(super) fn malformed(&self, reason: String) -> Error {
        Error::malformed(&self.file.path, reason)
    }

    /// Returns the next `count` bytes, which are at most `BUFFER_BYTES`.
    fn bytes(&mut self, count: u64) -> Result<&[u8]> {
        if ((self.buffer.len() - self.used) as u64) < count {
            let position = self.position();
            let available = self.end - position;
            if count > available {
                return Err(self.too_long(count));
            }
            self.buffer.resize(available.min(BUFFER_BYTES) as usize, 0);
            self.file.read_at(position, &mut self.buffer)?;
            self.start = position;
            self.used = 0;
        }
        let from = self.used;
        self.used += count as usize;
        Ok(self.buffer.get(from..self.used).unwrap_or_default())
    }

    fn too_long(&self, count: u64) -> Error {
        let position = self.position();
        match self.end == self.file.length {
            true => self.corrupt(format!(
                "has {} bytes, but its header has {count} more bytes at position {position}",
                self.file.length
            )),
            false => self.malformed(format!(
                "has {count} more bytes in its header at position {position}, but a header may have at most \
                 {MAX_HEADER_BYTES} bytes; download the file again, or use another file of the model"
            )),
        }
    }
}
